"""The contract between stages across meshes and precisions: what one hands on, any other takes up on any devices.

Stages run in child processes of one device and of eight forced ones. In every training stage the first update has a
learning rate of 0, so that its checkpoint must hold the parent's weights, bit for bit, while its metrics are those of
a full forward and backward pass.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK_COMPILE, ROOT
from test_resume import final_arrays

from r1jax.checkpoint import open_parent
from r1jax.collect import conversation
from r1jax.data.sources import write_json_lines
from r1jax.metrics import read_json, read_json_lines
from r1jax.tasks import WORLD_MODEL
from r1jax.tasks.families import draw_records, read_parts
from r1jax.tasks.solutions import SOLVERS, Author

RUN = """
import importlib, json, sys, tyro
for name, options in json.loads(sys.argv[1]):
    module = importlib.import_module(f"experiments.{name}")
    default = next(iter(module.PRESETS.values())) if hasattr(module, "PRESETS") else module.Config()
    module.main(tyro.cli(module.Config, args=options, default=default))
"""
"""Experiments with options, one after the other in one process, as from the command line."""

EIGHT = "--mesh.fsdp 2 --mesh.expert 2 --mesh.tensor 2"
SFT = "--sft.batch-size 4 --sft.sequence-length 64 --sft.save-every 1 --sft.optimizer.warmup-updates 1 --sft.epochs 1"
RL = (
    "--grpo.iterations 2 --grpo.sampling.prompts 4 --grpo.sampling.group-size 4 --grpo.sampling.max-new-tokens 16 "
    "--grpo.sampling.halvings 0 --grpo.mini-batches 1 --grpo.micro-batches 2 --grpo.reference-every 1 "
    "--grpo.optimizer.warmup-updates 1 --evaluation-problems 4 --training-problems 4 --save-every 1"
)
SCORES = (
    "--batch-size 32 --epochs 2 --sequence-length 64 --held-out-share 0.4 --evaluate-every 1 --save-every 1 "
    "--optimizer.warmup-updates 1"
)
WEIGHTS = ("params", "router_bias")


def run_stages(environment, *stages, devices: int) -> None:
    """Run (experiment, options...) in one process of so many devices."""
    plan = [(name, [word for option in options for word in str(option).split()]) for name, *options in stages]
    flags = f"{QUICK_COMPILE} --xla_force_host_platform_device_count={devices}"
    environment = environment | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, json.dumps(plan)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_handed_on(parent: str | Path, child: Path, dtype: str = "float32") -> None:
    """The child's first checkpoint has the parent's decoder, bit for bit, in float32; later ones have not."""
    before, first, last = final_arrays(parent, WEIGHTS), final_arrays(child, WEIGHTS, 1), final_arrays(child, WEIGHTS)
    shared = [name for name in before if "'head'" not in name or name in first]
    assert len(shared) > 15 and set(first) <= {*before, *(name for name in first if "'score'" in name)}
    for name in shared:
        assert first[name].dtype == np.float32
        np.testing.assert_array_equal(first[name], before[name], err_msg=name)
    assert any(np.any(last[name] != first[name]) for name in first)
    assert open_parent(child).model["dtype"] == dtype


def numbers(record: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """All numbers of a record that do not depend on the clock, by path."""
    found = {}
    for name, value in record.items():
        if name == "seconds" or name.startswith(("sampler_mismatch", "mismatch")):  # rounding itself
            continue
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}.")
        elif not isinstance(value, str) and name != "doctor":
            found[prefix + name] = np.asarray(value, float)
    return found


def assert_same_metrics(ours: Path, theirs: Path, step: int, rtol: float = 1e-5) -> None:
    """Every number of a step's metrics agrees."""
    ours, theirs = (numbers(read_json_lines(w / "metrics.jsonl")[step - 1]) for w in (ours, theirs))
    assert ours.keys() == theirs.keys() >= {"loss", "grad_norm", "step"} and ours["step"] == step
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=1e-6, err_msg=name)


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Weights agree by norm to 2% of how far the update has moved them.

    Not entry by entry: where a gradient is all rounding, Adam makes a full step of its sign.
    """
    first = min(int(path.name) for path in (theirs / "checkpoints").glob("[0-9]*"))
    before, ours = final_arrays(theirs, WEIGHTS, first), final_arrays(ours, WEIGHTS)
    theirs = final_arrays(theirs, WEIGHTS)
    norm = lambda a, b: np.sqrt(sum(np.square(a[name] - b[name], dtype=np.float64).sum() for name in theirs))
    assert ours.keys() == theirs.keys()
    assert norm(ours, theirs) <= 0.02 * norm(before, theirs)


def cut_back(workdir: Path, copy: Path) -> Path:
    """A copy of a finished run as if it had been killed after its first update."""
    shutil.copytree(workdir, copy)
    for path in [*(copy / "checkpoints").glob("2"), copy / "summary.json"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copy


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Conversations that fill two updates."""
    rng = np.random.default_rng(0)
    drawn = draw_records(read_parts(["requests:1", "chains:1"]), "train", 16, rng)
    author = Author(rng, careful=True, mixes=False, slip=0.0)
    path = tmp_path_factory.mktemp("data") / "sft.jsonl"
    write_json_lines([conversation(r, f"{n}", *SOLVERS[r["family"]](author, r)) for n, r in enumerate(drawn)], path)
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Preferences that fit into one update."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"What is {n} + 2?", "chosen": f"{n + 2}", "rejected": f"{n + 3} or so"} for n in range(26)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def runs(environment, records, tmp_path_factory):
    """Stages on one device, then on eight from what those left, then on one again, one of them resumed."""
    root = tmp_path_factory.mktemp("contract")
    at = lambda name: ("--workdir", root / name)
    sft, rl = ("sft", "--data", records, SFT), ("r1_zero", "--levels 1 --init", root / "sft_1", RL)
    run_stages(environment, (*sft, *at("sft_1")), devices=1)
    half = (*sft, EIGHT, "--dtype bfloat16", *at("half_8"))
    run_stages(environment, (*sft, EIGHT, *at("sft_8")), half, (*rl, EIGHT, *at("rl_8")), devices=8)
    cut_back(root / "rl_8", root / "rl_8_1")
    back = (*sft, "--dtype float32 --init", root / "half_8", *at("back_1"))
    run_stages(environment, (*rl, *at("rl_8_1")), back, devices=1)
    return root


@pytest.mark.slow
def test_weights_are_handed_on_bit_for_bit(runs):
    assert_handed_on(WORLD_MODEL, runs / "sft_1")
    assert_handed_on(WORLD_MODEL, runs / "sft_8")
    assert_handed_on(WORLD_MODEL, runs / "half_8", "bfloat16")
    assert_handed_on(runs / "sft_1", runs / "rl_8")  # made on one, taken up on eight
    assert_handed_on(runs / "half_8", runs / "back_1")  # made on eight, taken up on one


@pytest.mark.slow
def test_eight_devices_compute_what_one_does(runs):
    assert_same_metrics(runs / "sft_8", runs / "sft_1", 1)
    assert_same_weights(runs / "sft_8", runs / "sft_1")


@pytest.mark.slow
def test_a_resumed_run_may_change_its_mesh(runs):
    """Begun on eight devices and ended on one: the numbers, samples and weights of a run that stayed on eight."""
    whole, resumed = runs / "rl_8", runs / "rl_8_1"
    assert "mesh" not in read_json(resumed / "config.json")
    assert_same_metrics(resumed, whole, 2)
    assert_same_weights(resumed, whole)
    assert read_json_lines(resumed / "samples.jsonl") == read_json_lines(whole / "samples.jsonl")
    after = [numbers(read_json(workdir / "summary.json")["after"]) for workdir in (resumed, whole)]
    assert after[0].keys() == after[1].keys() >= {"accuracy"}
    assert all(np.array_equal(value, after[1][name], equal_nan=True) for name, value in after[0].items())


@pytest.mark.slow
def test_bfloat16_computes_otherwise_and_keeps_float32(runs):
    """One model, one batch, two precisions: losses that agree to bfloat16's three digits and not to float32's seven."""
    half, full = (read_json_lines(runs / name / "metrics.jsonl")[0]["loss"] for name in ("half_8", "sft_8"))
    assert 1e-5 * full < abs(half - full) < 1e-2 * full
    arrays = final_arrays(runs / "half_8", ("params", "router_bias", "opt_state"))
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32"), np.dtype("int32")}


SAMPLES = "sampling.prompts 4 --{0}sampling.group-size 4 --{0}sampling.max-new-tokens 48 --{0}sampling.halvings 0"
COLLECT = f"--data.{SAMPLES.format('data.')} --data.problems 8"
ASK = f"--{SAMPLES.format('')}"


def every_stage(at, records, pairs, labels):
    """(name, experiment, options): all stages, each from those before it as `at(name)` finds them."""
    general = f"{RL} --preferences-from 1 --scored-length 64"
    judge = f"--prompt chat --language --problems 8 --sampling.prompt-slots 24 --families chains requests {ASK}"
    return [
        ("zero", "r1_zero", f"{RL} --init {WORLD_MODEL}"),
        ("cold", "cold_start", f"--teacher {at('zero')} {COLLECT} {SFT} --data.parts chains:1 functions:1"),
        ("rl", "reasoning_rl", f"--init {at('cold')} {RL}"),
        ("rejection", "rejection_sampling", f"--init {at('rl')} {COLLECT} --data.parts chains:1 --general 8"),
        ("sft", "sft", f"--data {at('rejection')}/records {SFT}"),
        ("preferences", "preference_data", f"--init {at('sft')} --prompts 16 {ASK}"),
        ("helpful", "reward_model", f"--init {at('sft')} --pairs {pairs} {SCORES}"),
        ("safe", "reward_model", f"--kind safety --init {at('sft')} --pairs {labels} {SCORES}"),
        ("general", "general_rl", f"--init {at('sft')} --helpful {at('helpful')} --safe {at('safe')} {general}"),
        ("distill", "distill", f"--data {records} --teacher {at('general')} {SFT}"),
        ("judged", "evaluate", f"--init {at('general')} {judge}"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 8])
def test_every_stage_takes_up_what_every_mesh_has_left(environment, records, pairs, tmp_path, first):
    """The chain twice: each stage runs on one device and on eight from the same parents, which one and eight devices
    made in turn; samples are the same, numbers agree."""
    labels = tmp_path / "labels.jsonl"
    rows = [{"id": str(n), "prompt": f"May I {n}?", "response": f"It is {n}.", "safe": n % 2 == 0} for n in range(26)]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [name for name, *_ in every_stage(lambda name: name, records, pairs, labels)]
    made_by = {name: (first, 9 - first)[place % 2] for place, name in enumerate(names)}
    at = lambda name: tmp_path / f"{name}_{made_by[name]}"
    for name, stage, options in every_stage(at, records, pairs, labels):
        for devices, mesh in ((1, ""), (8, EIGHT)):
            where = f"--workdir {tmp_path}/{name}_{devices}"
            run_stages(environment, (stage, options, mesh, where), devices=devices)
        eight, one = tmp_path / f"{name}_8", tmp_path / f"{name}_1"
        for path in one.glob("*.jsonl"):
            if path.name not in ("metrics.jsonl", "samples.jsonl"):
                assert read_json_lines(path) == read_json_lines(eight / path.name), path
        if (one / "metrics.jsonl").exists():
            assert_same_metrics(eight, one, 1)
            assert_same_weights(eight, one)


@pytest.mark.slow
def test_every_stage_starts_from_a_hugging_face_folder(environment, records, pairs, tmp_path):
    """The world's base model in the form of Hugging Face, in the place of every parent's workdir."""
    folder, labels = tmp_path / "hf", tmp_path / "labels.jsonl"
    rows = [{"id": str(n), "prompt": f"May I {n}?", "response": f"It is {n}.", "safe": n % 2 == 0} for n in range(26)]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    export = ("export", f"--init {WORLD_MODEL} --target {folder} --dtype float32")
    at = lambda name: tmp_path / name if name in ("rejection", "helpful", "safe") else folder
    stages = [export, ("zero", "r1_zero", f"{RL} --init {folder}"), *every_stage(at, records, pairs, labels)[1:]]
    named = [(stage[1], f"{stage[2]} --workdir {tmp_path / stage[0]}") for stage in stages[1:]]
    begins = ("cold_start", "sft", "distill")
    named = [(name, options + f" --init {folder}" * (name in begins)) for name, options in named]
    run_stages(environment, export, *named, devices=1)
    for stage in stages[1:]:
        config = read_json(tmp_path / stage[0] / "config.json")
        assert str(folder) in map(str, config.values()) or "--data" in stage[2], stage
