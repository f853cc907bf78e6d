"""The notebooks run from top to bottom in their small form, carry no outputs, and use the library, not copies of it."""

import ast
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT

from r1jax.evaluation import Response
from r1jax.metrics import JsonLines, write_json
from r1jax.sharding import make_mesh
from r1jax.tasks.countdown import candidates

NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
SWITCH = "SMALL = False  # @param"


def code_of(path: Path) -> list[str]:
    """The code cells, switched to the small form."""
    cells = ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    assert sum(SWITCH in cell for cell in cells) == 1
    return [cell.replace(SWITCH, "SMALL = True  # @param") for cell in cells]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def run(name: str, folder: Path, monkeypatch) -> dict:
    """Execute the cells in order, as a kernel would; returns the names they leave."""
    monkeypatch.chdir(folder)
    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(code_of(ROOT / "experiments" / "notebooks" / f"{name}.ipynb")):
        exec(compile(cell, f"{name}.ipynb, code cell {number}", "exec"), scope)  # trusted: our own notebook
    return scope


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_file_is_a_notebook_without_outputs(path):
    """What nbformat 4.5 demands of the cells that these notebooks have, and that nothing of a run is left."""
    record = read(path)
    assert (record["nbformat"], record["nbformat_minor"]) == (4, 5) and record["metadata"]["kernelspec"]["name"]
    names = [cell["id"] for cell in record["cells"]]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", name) for name in names)
    for cell in record["cells"]:
        assert all(isinstance(line, str) for line in cell["source"]) and isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            assert cell.keys() == {"cell_type", "id", "metadata", "source", "execution_count", "outputs"}
            assert cell["outputs"] == [] and cell["execution_count"] is None
        else:
            assert cell["cell_type"] == "markdown" and cell.keys() == {"cell_type", "id", "metadata", "source"}


def bodies_of(source: str) -> dict[str, str]:
    """Functions and classes of a source, by their bodies without the docstring."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds):
            documented = ast.get_docstring(node) is not None
            found["\n".join(map(ast.unparse, node.body[documented:]))] = node.name
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_import_the_library_and_copy_nothing_of_it(path):
    source = "\n".join(code_of(path))
    nodes = list(ast.walk(ast.parse(source)))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert any(name.startswith("r1jax.") for name in imported)
    assert not any(name.startswith(("experiments", "tests")) for name in imported)  # the wheel has neither
    library = {
        body: name for file in (ROOT / "r1jax").rglob("*.py") for body, name in bodies_of(file.read_text()).items()
    }
    bodies = bodies_of(source)
    assert bodies and not [bodies[body] for body in bodies.keys() & library.keys()]


def test_the_losses_learn_in_somebody_elses_loop(tmp_path, monkeypatch):
    scope = run("grpo_loss_elsewhere", tmp_path, monkeypatch)
    bandit, model = scope["bandit_rewards"], scope["model_rewards"]
    assert np.mean(bandit[:5]) < 0.2 and np.mean(bandit[-5:]) > 0.8
    assert np.mean(model[:3]) < 0.65 and np.mean(model[-3:]) > np.mean(model[:3]) + 0.2


def test_small_ablations_give_the_stage_what_it_takes(tmp_path, monkeypatch):
    """All cells, with a stage that uses what it is given and writes the files of one that has run."""
    seen = []

    def use(config, experiment, *, init, ask, submit, reward):
        config.grpo.check(make_mesh(config.mesh))
        asked = ask(1, "train", 2, np.random.default_rng(0))
        numbers, target = asked.records[0]["numbers"], asked.records[0]["target"]
        solved = next(text for text, value in candidates(numbers) if value == target)
        texts = [f"<think> yes </think> <answer> {solved} </answer>", "<think> no"]
        verdicts = submit([asked.records[0]] * 2, texts).result()
        group = [Response(text, 1, True, judged) for text, judged in zip(texts, verdicts, strict=True)]
        assert reward(1, asked, [group], np.random.default_rng(0)).rewards.tolist() == [[2.0, 0.0]]
        seen.append(config)
        row = dict.fromkeys(("accuracy", "mean_response_tokens", "entropy", "kl"), 0.5)
        workdir = Path(config.workdir)
        workdir.mkdir(parents=True)
        JsonLines(workdir / "metrics.jsonl", resume_step=0).write({"step": 1} | row)
        write_json(workdir / "summary.json", dict.fromkeys(("before", "after"), row | {"accuracy_ci95": 0.1}))

    monkeypatch.setattr("r1jax.rl_stage.run_rl_stage", use)
    scope = run("small_ablations", tmp_path, monkeypatch)
    assert [config.grpo for config in seen] == [scope["baseline"], scope["variants"][scope["CHOSEN"]]]
    for variant in scope["variants"].values():
        variant.check(make_mesh(seen[0].mesh))
        changed = [name for name, value in vars(variant).items() if value != getattr(scope["baseline"], name)]
        assert len(changed) == 1


@pytest.mark.slow
def test_small_ablations_run(tmp_path, monkeypatch):
    scope = run("small_ablations", tmp_path, monkeypatch)
    (_, (first, _)), (chosen, (second, summary)) = scope["runs"].items()
    assert chosen == scope["CHOSEN"] and len(first) == len(second) == scope["baseline"].iterations
    assert first[0]["accuracy"] == second[0]["accuracy"], "both begin with the same policy, problems and noise"
    assert first[-1]["loss"] != second[-1]["loss"]
    assert 0 <= summary["after"]["accuracy"] <= 1
