"""Programs compiled for slices that are not there, against the figures kept in tpu_scripts/budgets."""

import functools
import importlib.util
import json

import pytest
from conftest import ROOT

from r1jax.generation.sampler import SamplingConfig
from r1jax.grpo_config import GrpoConfig
from r1jax.models.config import read_model_config
from r1jax.optimizer import OptimizerConfig
from r1jax.sft_stage import SftConfig
from r1jax.sharding import MeshConfig

pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install -e '.[tpu]'")

BUDGETS = ROOT / "tpu_scripts" / "budgets"
FAST = [("qwen2_5_1_5b-v5e_2x2", "decode"), ("qwen2_5_1_5b-v5e_2x2", "relayout")]
ALL = [
    (path.stem, record["program"])
    for path in sorted(BUDGETS.glob("*.json"))
    for record in json.loads(path.read_text())["programs"]
]


@functools.cache
def tool():
    """tpu_scripts/aot_compile.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("aot_compile", ROOT / "tpu_scripts" / "aot_compile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_config(record: dict, program: str):
    """The configuration that a budget was made with, for one of its programs."""
    optimizer = lambda settings: settings | {"optimizer": OptimizerConfig(**settings["optimizer"])}
    grpo, mesh = record["grpo"], MeshConfig(**record["mesh"])
    sampling = SamplingConfig(**grpo["sampling"] | {"mesh": MeshConfig(**grpo["sampling"]["mesh"])})
    settings = {
        "model": read_model_config(record["model"]), "mesh": mesh, "sft": SftConfig(**optimizer(record["sft"])),
        "grpo": GrpoConfig(**optimizer(grpo) | {"sampling": sampling}),
    }  # fmt: skip
    return tool().Config(**record | settings | {"programs": (program,), "json": "", "hlo": ""})


def check(name: str, program: str) -> None:
    """The program needs no more than its budget says, and does what it did."""
    budget = json.loads((BUDGETS / f"{name}.json").read_text())
    (want,) = [record for record in budget["programs"] if record["program"] == program]
    (got,) = tool().compile_all(read_config(budget["config"], program))
    assert got["bytes"]["total"] <= 1.02 * want["bytes"]["total"] and got["headroom"] >= budget["config"]["headroom"]
    for figure in ("flops", "hbm_bytes", "collective_bytes"):
        assert got[figure] == pytest.approx(want[figure], rel=0.02), figure
    told = lambda record: {(c["kind"], *c["axes"], c["suspicion"]) for c in record["collectives"] if c["suspicion"]}
    assert told(got) == told(want) and not got["unknown"]


@pytest.mark.parametrize(("name", "program"), FAST, ids=["-".join(pair) for pair in FAST])
def test_a_program_is_within_its_budget(name, program):
    check(name, program)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "program"), ALL, ids=["-".join(pair) for pair in ALL])
def test_every_program_is_within_its_budget(name, program):
    check(name, program)
