"""Every experiment explains its options; the shipped base model is what the README says; the package builds."""

import importlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tyro
from conftest import ROOT

from r1jax.checkpoint import open_parent
from r1jax.config import to_dict
from r1jax.data.tokenizer import load_tokenizer
from r1jax.models.config import ModelConfig
from r1jax.models.presets import miniature, student
from r1jax.tasks import BASE_MODEL, STUDENT_MODEL, WORLD_MODEL
from r1jax.tasks.authors import WORLD, Population, describe_corpus

EXPERIMENTS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if path.parent.name != "sides"  # processes that benchmarks start
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_explains_every_option(name):
    module = importlib.import_module(name)
    text = re.sub(r"(?m)^│|│$", "", tyro.extras.get_parser(module.Config).format_help())
    parts = re.split(r"(?m)^\s*(--[\w.-]+)", text)
    options = dict(zip(parts[1::2], parts[2::2]))
    if "benchmarks" not in name and not name.endswith("export"):  # which write where they are told, and draw nothing
        assert "--workdir" in options and "--seed" in options
    for option, rest in options.items():
        meaning = re.sub(r"\(default:.*", "", " ".join(rest.split()))
        words = re.findall(r"\b[A-Za-z][a-z.]+\b", meaning)
        assert len(words) >= 2, f"{option} is not explained: {meaning!r}"


@pytest.mark.parametrize(
    ("folder", "shape", "population"),
    [(BASE_MODEL, miniature, Population()), (WORLD_MODEL, miniature, WORLD), (STUDENT_MODEL, student, WORLD)],
    ids=["base", "world", "student"],
)
def test_the_shipped_models_are_what_their_experiment_makes(folder, shape, population):
    parent, tokenizer = open_parent(folder), load_tokenizer(folder)
    assert ModelConfig(**parent.model) == shape(tokenizer.vocab_size)
    config = parent.provenance["run"]["config"]
    assert to_dict(population) == to_dict(Population()) | config["population"]
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4e6
    assert not any(str(ROOT) in path.read_text(errors="ignore") for path in files)


def test_the_corpus_does_not_contain_the_answer_to_the_experiment():
    shares = describe_corpus(Population(), (1, 2), documents=20_000, seed=3)
    assert 0.005 < shares["complete correct searches, of solutions"] < 0.10
    assert 0.05 < shares["right answer, of solutions"] < 0.20


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path):
    """A wheel installed elsewhere imports, and finds the model it ships."""
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-q", "-w", str(tmp_path)]
    subprocess.run(build, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("r1jax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not any(name.startswith(("experiments/", "tests/")) for name in names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import r1jax.policy, r1jax.sharding as s, r1jax.tasks as t; assert 'site' in r1jax.__file__, r1jax.__file__;"
        "p = r1jax.policy.load_policy(t.BASE_MODEL, s.make_mesh(s.MeshConfig())); print(p.model.embed_dim)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "128", done.stderr
