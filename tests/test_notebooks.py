"""The notebooks run from top to bottom in their small form, carry no outputs, and use the library, not copies of it."""

import ast
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import ROOT

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
    library = {body: name for file in (ROOT / "r1jax").rglob("*.py") for body, name in bodies_of(file.read_text()).items()}
    bodies = bodies_of(source)
    assert bodies and not [bodies[body] for body in bodies.keys() & library.keys()]


def test_the_losses_learn_in_somebody_elses_loop(tmp_path, monkeypatch):
    scope = run("grpo_loss_elsewhere", tmp_path, monkeypatch)
    bandit, model = scope["bandit_rewards"], scope["model_rewards"]
    assert np.mean(bandit[:5]) < 0.2 and np.mean(bandit[-5:]) > 0.8
    assert np.mean(model[:3]) < 0.65 and np.mean(model[-3:]) > np.mean(model[:3]) + 0.2


@pytest.mark.slow
def test_small_ablations_run(tmp_path, monkeypatch):
    scope = run("small_ablations", tmp_path, monkeypatch)
    (_, (first, _)), (chosen, (second, summary)) = scope["runs"].items()
    assert chosen == scope["CHOSEN"] and len(first) == len(second) == scope["baseline"].iterations
    assert first[0]["accuracy"] == second[0]["accuracy"], "both begin with the same policy, problems and noise"
    assert first[-1]["loss"] != second[-1]["loss"]
    assert 0 <= summary["after"]["accuracy"] <= 1
