"""README and docs: links lead somewhere, Python blocks run, commands name files and options that exist."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from r1jax import launch

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")

PYTHON = re.compile(
    r"(?:<!-- (?P<kind>given|not run):(?P<before>.*?)-->\s*)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
"""A Python block, and the comment before it that readers do not see: code that makes what the block supposes, or why the
block cannot be run here."""

COMMAND = re.compile(r"python (-m (?:r1jax|experiments)\S*|(?:experiments|tpu_scripts)/\S+\.py)([^;|&#)]*)")


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    return CODE_SPAN.sub("", FENCE.sub("", text))


def anchors_of(text: str) -> set[str]:
    """Anchors of the headings for which GitHub and mkdocs make the same name."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(LINK.pattern, "", heading)).strip().lower()
        if re.sub(r"[-\s]+", "-", plain) == plain.replace(" ", "-"):
            found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(without_code(page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if page.parent.name == "docs":
            assert target.is_relative_to(page.parent), f"{link} leaves the documentation site"
        if anchor:
            assert anchor in anchors_of(target.read_text()), f"{link}: no such heading"


def test_every_page_has_a_place_in_the_site():
    listed = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


@pytest.mark.parametrize("page", [page for page in PAGES if "```python\n" in page.read_text()], ids=identify)
def test_the_code_on_the_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page in one scope, as one who reads it from the top would enter them."""
    monkeypatch.chdir(tmp_path)
    text, scope = page.read_text(), {}
    blocks = list(PYTHON.finditer(text))
    assert len(blocks) == text.count("```python\n")
    for block in blocks:
        if block["kind"] == "not run":
            assert len(block["before"].split()) > 3, "the reason must be given"
            continue
        for part in ("before", "code"):
            lines = "\n" * text.count("\n", 0, max(block.start(part), 0))
            exec(compile(lines + (block[part] or ""), str(page), "exec"), scope)  # trusted: our own page
    if page.name == "README.md":
        assert np.isfinite(scope["loss"]) and scope["gradient"].shape == (4, 8) and np.abs(scope["gradient"]).sum() > 0


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """(file, or -m module; arguments) of every command for this project's programs, in blocks, spans or indented."""
    shown = [body.replace("\\\n", " ") for language, body in FENCE.findall(text) if language != "python"]
    plain = FENCE.sub("", text)
    shown += re.findall(r"(?m)^    .*$", plain) + [" ".join(span.split()) for span in CODE_SPAN.findall(plain)]
    found = []
    for block in shown:
        for program, rest in COMMAND.findall(block.replace("$seed", "0")):
            for line in rest.split("\n")[:1]:
                found.append((program, shlex.split(line.replace("[", "").replace("]", ""))))
    return found


COMMANDS = {page: commands_of(page.read_text()) for page in PAGES}


def test_the_reader_of_commands_sees_every_form():
    text = (
        "`for seed in 0 1; do python\nexperiments/a.py --seed $seed; done`, `python experiments/b.py [--init WORKDIR]`\n\n"
        "    python -m r1jax.c --x 1   # why\n\n```bash\npython experiments/d.py \\\n    --y 2 && python experiments/e.py\nls\n```\n"
    )
    assert sorted(commands_of(text)) == [
        ("-m r1jax.c", ["--x", "1"]), ("experiments/a.py", ["--seed", "0"]), ("experiments/b.py", ["--init", "WORKDIR"]),
        ("experiments/d.py", ["--y", "2"]), ("experiments/e.py", []),
    ]  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if COMMANDS[page]], ids=identify)
def test_commands_name_programs_and_options_that_exist(page, monkeypatch):
    """Each program reads its own command line, and does nothing with it."""
    parsed, run = [], launch.run

    def only_parse(main, *arguments, **settings):
        run(note, *arguments, **settings)

    def connect(distributed, *, allowed):
        assert allowed or not distributed, "--distributed is not for this program"

    def note(config):
        parsed.append(config)

    note.__module__ = launch.__name__  # whose docstring stands in for the program's
    monkeypatch.setattr(launch, "run", only_parse)
    monkeypatch.setattr(launch, "tune_allocator", lambda: None)
    monkeypatch.setattr(launch, "connect", connect)
    for program, arguments in COMMANDS[page]:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        spec = importlib.util.find_spec(program[3:]) if program.startswith("-m ") else None
        path = Path(spec.origin) if spec else ROOT / program
        assert path.is_file(), program
        if "launch.run(" not in path.read_text():
            assert not any(argument.startswith("--") for argument in arguments), f"{program} takes no options"
            continue
        before = len(parsed)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            pytest.fail(f"python {program} {shlex.join(arguments)}: exit {stop.code}")
        assert len(parsed) == before + 1


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site/api/objectives/index.html").read_text()
    assert "DeepSeekMath" in reference and 'id="r1jax.objectives.grpo_loss"' in reference
