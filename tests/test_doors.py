"""Who imports whom, read from the syntax trees: imports inside functions count."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each room of r1jax may import from r1jax, besides itself. A room is a package or a module right below r1jax.
DOORS = {
    "ops": set(),
    "rewards": set(),
    "config": set(),
    "metrics": {"config"},
    "hosts": {"config"},
    "optimizer": set(),
    "tasks": {"rewards"},
    "launch": {"config"},
    "sharding": {"config"},
    "chain": {"config", "launch", "metrics"},
    "objectives": {"ops"},
    "data": {"tasks", "rewards", "config"},
    "models": {"ops", "sharding", "launch"},
    "interop": {"config", "models", "ops", "sharding"},
    "generation": {"models", "ops", "sharding", "config", "hosts"},
    "evaluation": {"generation", "rewards", "data", "tasks", "config", "metrics", "hosts"},
    "train": {"sharding", "optimizer", "ops", "config"},
    "checkpoint": {"config", "hosts", "train"},
    "policy": {"checkpoint", "config", "data", "interop", "models", "provenance", "sharding", "train"},
    "reward_model": {"checkpoint", "config", "data", "hosts", "models", "policy", "sharding"},
    "report": {"config", "metrics"},
    "doctor": {"evaluation", "rewards"},
    "judging": {"config", "data", "generation", "models", "ops", "policy", "rewards", "sharding"},
    "mismatch": set(),
    "grpo_config": {"config", "generation", "models", "optimizer", "sharding"},
    "dynamic_sampling": {"evaluation", "generation", "objectives"},
    "aot": {
        "config",
        "data",
        "generation",
        "grpo_config",
        "models",
        "objectives",
        "ops",
        "optimizer",
        "rl",
        "rl_layout",
        "sft_stage",
        "sharding",
        "train",
    },
    "rl": {"generation", "models", "objectives", "ops", "train"},
    "rl_packing": {"models", "rl"},
    "rl_layout": {"config", "grpo_config", "models", "rl", "rl_packing", "train"},
}
DOORS["provenance"] = {"config"}
DOORS["critic"] = {"checkpoint", "config", "generation", "grpo_config", "hosts", "models", "objectives", "ops"}
DOORS["critic"] |= {"optimizer", "policy", "rl", "sharding", "train"}
DOORS["rl_loop"] = DOORS.keys() - {"report", "launch"}
DOORS["collect"] = DOORS["rl_stage"] = DOORS["sft_stage"] = DOORS.keys() - {"interop"}

# Rooms that may import a package; the rooms of the second table may not.
KEEPERS = {"orbax": {"checkpoint"}, "flax": {"models", "sharding", "train"}, "grain": {"data"}}
KEEPERS |= {"tokenizers": {"data"}, "jinja2": {"data"}}
KEEPERS |= {"sympy": {"rewards"}, "math_verify": {"rewards"}, "reasoning_gym": {"tasks"}}
CLOSED = {"jax": {"rewards", "tasks", "data"}}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


LIBRARY = sorted((ROOT / "r1jax").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
MODULES = {module_name(path) for path in LIBRARY + EXPERIMENTS}


def imports_of(source: str, name: str, *, is_package: bool = False) -> set[str]:
    """Full names of the modules a source file imports anywhere; `from a import b` names a.b where that is a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")[: len(name.split(".")) + is_package - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            children = {f"{base}.{alias.name}" for alias in node.names}
            known = children & MODULES
            found |= known | ({base} if known != children else set())
    return found


def imports_of_file(path: Path) -> set[str]:
    return imports_of(path.read_text(), module_name(path), is_package=path.name == "__init__.py")


def room_of(module: str) -> str:
    """The room of a module of r1jax; "" for r1jax itself."""
    return (module.split(".") + [""])[1]


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_reader_of_imports_sees_every_form():
    source = (
        "import os.path, r1jax.ops.norm as norm\n"
        "from r1jax import checkpoint, launch as start\n"
        "from r1jax.config import UserError\n"
        "def late():\n"
        "    from . import moe\n"
        "    from ..sharding import RULES\n"
        "    from r1jax.data import tokenizer, packing\n"
    )
    assert imports_of(source, "r1jax.models.layers") == {
        "os.path", "r1jax.ops.norm", "r1jax.checkpoint", "r1jax.launch", "r1jax.config", "r1jax.models.moe",
        "r1jax.sharding", "r1jax.data.tokenizer", "r1jax.data.packing",
    }  # fmt: skip
    assert imports_of("from .rollout import generate", "r1jax.generation", is_package=True) == {
        "r1jax.generation.rollout"
    }
    assert imports_of("from r1jax import __version__", "r1jax.config") == {"r1jax"}


@pytest.mark.parametrize("path", LIBRARY, ids=identify)
def test_library_files_use_only_the_doors_of_their_room(path):
    room = room_of(module_name(path))
    imported = imports_of_file(path)
    inside = {room_of(module) for module in imported if module.split(".")[0] == "r1jax"}
    assert not any(module.split(".")[0] == "experiments" for module in imported)
    assert room in DOORS or not room, "a new room needs a line in DOORS"
    assert inside <= DOORS.get(room, set()) | {room, ""}


@pytest.mark.parametrize("path", LIBRARY, ids=identify)
def test_packages_are_imported_by_their_keepers_only(path):
    room, packages = room_of(module_name(path)), {module.split(".")[0] for module in imports_of_file(path)}
    for package, keepers in KEEPERS.items():
        assert package not in packages or room in keepers
    for package, closed in CLOSED.items():
        assert package not in packages or room not in closed


@pytest.mark.parametrize("path", EXPERIMENTS, ids=identify)
def test_experiments_do_not_import_each_other(path):
    imported = imports_of_file(path)
    others = {module for module in imported if module.split(".")[0] == "experiments"} - {module_name(path)}
    if path.parent.name == "ablations":  # it varies one experiment
        assert len(others) <= 1 and not any(module.startswith("experiments.ablations") for module in others)
    elif "benchmarks" in path.parts:  # they share how sides of a comparison take turns
        assert all(module.startswith("experiments.benchmarks.sides.") for module in others)
    else:
        assert not others
    if path.stem not in ("tunix_side", "torch_side"):  # which run in the environments of others
        assert not {module.split(".")[0] for module in imported} & KEEPERS.keys()


def run_python(code: str, folder: Path) -> str:
    environment = os.environ | {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    environment["TMPDIR"] = str(folder)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_everything_has_no_effect(tmp_path):
    code = f"""
import importlib, signal, sys
argv, handlers = list(sys.argv), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
for name in {sorted(MODULES)}:
    importlib.import_module(name)
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", {{}})
    assert not backends, f"importing {{name}} initialised a jax backend"
assert sys.argv == argv and handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
"""
    assert run_python(code, tmp_path) == ""
    assert list(tmp_path.rglob("*")) == []


def test_rewards_tasks_and_data_run_without_jax(tmp_path):
    names = {module for module in MODULES if room_of(module) in CLOSED["jax"] and module.startswith("r1jax")}
    names = sorted(names - {"r1jax.data.streams"})  # grain imports jax where it is installed
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint('jax' in sys.modules)"
    assert len(names) > 8 and run_python(code, tmp_path) == "False"
