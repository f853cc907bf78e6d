"""The comparisons: sides take turns, ratios are of the same round, and every command runs without the peers."""

import dataclasses
import json
import statistics
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import QUICK_COMPILE, ROOT

from experiments.benchmarks import grpo_step, grpo_update, packing, sampling, train_step
from experiments.benchmarks.sides import compare
from experiments.benchmarks.sides.compare import Peer, take_turns
from experiments.benchmarks.sides.protocol import FirstToken, in_turns
from experiments.benchmarks.sides.r1jax_side import load
from experiments.benchmarks.sides.torch_side import load_tokenizer
from experiments.benchmarks.sides.weights import EOS, PAD, draw_tokens, qwen2, write_weights
from r1jax.config import UserError
from r1jax.interop.saving import checkpoint_specs
from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, output_head

SIDE = """
import sys
from experiments.benchmarks.sides.protocol import serve
def workload(settings):
    numbers = iter(range(100))
    def run():
        with open(settings["order"], "a") as file:
            file.write(settings["workload"])
        print("noise of a library")
        if settings["workload"] == "c":
            raise RuntimeError("no such thing as a c")
        return {"number": next(numbers)}
    return run, {"doubled": 2 * settings["given"]}
serve(dict.fromkeys("abc", workload))
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Sides a, b and c whose work is to write down that it was their turn; c fails."""
    package = tmp_path / "toys"
    package.mkdir()
    (package / "toy_side.py").write_text(SIDE)
    monkeypatch.setattr(compare, "MODULE", "")
    monkeypatch.setattr(compare, "ROOT", f"{ROOT}:{package}")
    settings = {"order": str(tmp_path / "order"), "given": 21}
    return lambda names, **more: take_turns(
        [Peer(name, "toy_side", name) for name in names], settings, tmp_path, **more
    )


def test_sides_take_turns_and_ratios_are_of_the_same_round(toys, tmp_path):
    sides = toys("ab", rounds=3)
    assert (tmp_path / "order").read_text() == "baabbaab"  # the warm-up first, every other round backwards
    assert [repeat["number"] for repeat in sides["b"]["repeats"]] == [1, 2, 3] and sides["a"]["number"] == 2
    assert sides["a"]["facts"] == {"doubled": 42} and sides["a"]["ratio"] == 1.0
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(sides["a"]["repeats"], sides["b"]["repeats"])]
    assert sides["b"]["ratio"] == statistics.median(ratios)


def test_a_side_that_fails_is_quoted(toys):
    with pytest.raises(UserError, match="no such thing as a c"):
        toys("ac", rounds=1)


def test_a_loop_is_made_to_wait_for_its_turn():
    steps = []

    def loop(wait):
        for number in range(3):
            wait()
            steps.append(number)
            if number == 2:
                raise ValueError("third")

    turn = in_turns(loop)
    assert steps == []
    turn()
    assert steps == [0]
    turn()
    assert steps == [0, 1]
    with pytest.raises(ValueError, match="third"):
        turn()


def test_the_floor_counts_every_weight_that_a_step_reads():
    config = sampling.Config(vocab=64, layers=2, width=32, prompt_tokens=6, rows=3, new_tokens=4)
    model = qwen2(64, 2, 32)
    matrices = {
        spec.name: int(np.prod(spec.shape)) for spec in checkpoint_specs(model, "float32") if len(spec.shape) == 2
    }
    read = sum(matrices.values()) - matrices["model.embed_tokens.weight"]
    least = sampling.floor(config, model, {"bytes_per_second": 1.0, "flops_per_second": 1.0})
    cached = 3 * 8 * 2 * (2 * 4 * 4)  # rows, tokens in the mean, layers, keys and values of 4 heads of 4
    assert least["by_memory"] == 4 * (read + cached)
    assert least["by_products"] == 3 * (2 * read + 2 * 2 * 8 * 2 * 8 * 4)  # scores and values of 8 heads of 4


def test_prompts_are_read_by_transformers_as_they_were_drawn(tmp_path):
    pytest.importorskip("transformers")
    tokenizer = load_tokenizer(str(write_weights(tmp_path / "model", qwen2(64, 1, 32))))
    assert tokenizer("17 4 63")["input_ids"] == [17, 4, 63] and tokenizer.eos_token_id == EOS
    assert tokenizer.pad_token_id == PAD and tokenizer.batch_decode([[5, 9]]) == ["5 9"]


@pytest.mark.parametrize("mean_tokens", [8, 64])
def test_weights_end_a_sequence_as_often_as_they_are_told(tmp_path, mean_tokens):
    model, params, router_bias, _ = load(str(write_weights(tmp_path / "model", qwen2(512), mean_tokens)))
    tokens = draw_tokens(np.random.default_rng(0), 512, 4, 32)
    hidden, _, _ = forward(model, params, router_bias, tokens, np.broadcast_to(np.arange(32), (4, 32)))
    chances = jax.nn.softmax(hidden @ output_head(model, params))[..., EOS]
    np.testing.assert_allclose(chances, 1 / mean_tokens, rtol=0.2)


def test_the_reward_of_comparisons_counts_the_tokens_it_is_given():
    reward = FirstToken({"new_tokens": 3})
    assert reward(["2", "2"], ["7 4 9", "4"]) == [1.0, 0.0]
    assert reward(["2"], [""]) == [0.0]
    assert reward.take_count() == 3 + 2 + 1 and reward.take_count() == 0  # what was not cut had an end


QUICK = {"rounds": 1, "width": 32, "layers": 2}


def measure(monkeypatch, capsys, tmp_path, module, **options):
    """Run a command on tiny sizes; returns what it wrote and what it printed."""
    monkeypatch.setenv("XLA_FLAGS", QUICK_COMPILE)
    path = tmp_path / "figures.json"
    config = module.Config(**QUICK, **options, json=str(path))
    module.main(config)
    record = json.loads(path.read_text())
    assert record["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
    return record, " ".join(capsys.readouterr().out.split())


def test_the_update_is_measured_without_peers(monkeypatch, capsys, tmp_path):
    record, printed = measure(monkeypatch, capsys, tmp_path, grpo_update, shapes=("4x16x512",), prompt_tokens=4)
    assert "Tunix is left out: no --tunix-python PATH" in printed and "pip install google-tunix" in printed
    assert "TRL is left out" in printed
    sides = record["shapes"][0]["sides"]
    assert set(sides) == {"r1jax", "naive"}
    np.testing.assert_allclose(sides["r1jax"]["loss"], sides["naive"]["loss"], rtol=1e-5)
    assert all(side["seconds"] > 0 and side["temporary_bytes"] > 0 for side in sides.values())


@pytest.mark.slow
def test_samplers_are_measured_without_peers(monkeypatch, capsys, tmp_path):
    options = {
        "vocab": 64,
        "prompt_tokens": 4,
        "rows": 4,
        "new_tokens": 8,
        "requests": 12,
        "mean_tokens": 4,
        "longest": 16,
    }
    record, printed = measure(monkeypatch, capsys, tmp_path, sampling, **options, halvings=1, widths=2)
    equal, tail = (record["mixes"][mix]["r1jax"] for mix in ("equal", "long tail"))
    assert equal["tokens"] == 4 * 8 and 12 <= tail["tokens"] < 12 * 16
    assert record["floor"]["share"] > 0 and "of the floor" in printed and "transformers is left out" in printed


@pytest.mark.slow
def test_a_grpo_step_is_measured_without_peers(monkeypatch, capsys, tmp_path):
    options = {"shapes": ("2x2x4x8",), "long_tails": ("4x4x4x32",), "mean_tokens": 4, "slots": 4, "micro_batches": 4}
    record, _ = measure(monkeypatch, capsys, tmp_path, grpo_step, **options, vocab=64)
    equal, tail = (shape["sides"]["r1jax"]["tokens"] for shape in record["shapes"])
    assert equal == 2 * 2 * 8 and 16 <= tail < 16 * 32 // 2


@pytest.mark.slow
def test_a_train_step_is_that_of_transformers(monkeypatch, capsys, tmp_path):
    """Losses after two updates agree, so both sides do the same work."""
    pytest.importorskip("transformers")
    options = {"vocab": 64, "rows": 2, "tokens": 16, "transformers_python": sys.executable}
    record, _ = measure(monkeypatch, capsys, tmp_path, train_step, **options)
    first, second = (record["sides"][name] for name in ("r1jax", "transformers"))
    assert first["facts"] == second["facts"]
    np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-5)


@pytest.mark.slow
def test_layouts_are_measured_on_the_same_rows(monkeypatch, capsys, tmp_path):
    tiny = packing.Workload(miniature(32), 4, 2, 4, 8, 4.0, 2, 1, 4, 4)
    monkeypatch.setattr(packing, "WORKLOADS", {"tiny": tiny})
    packing.main(packing.Config(rounds=1, json=str(tmp_path / "figures.json")))
    rows = json.loads((tmp_path / "figures.json").read_text())["tiny"]
    assert rows["padded"]["ratio"] == 1 and rows["rows"]["padding"] <= rows["padded"]["padding"]
    assert rows["shared prompts"]["places"] > 0 and "shared" in capsys.readouterr().out


def test_a_benchmark_starts_as_a_file(environment, tmp_path):
    path = ROOT / "experiments" / "benchmarks" / "train_step.py"
    done = subprocess.run(
        [sys.executable, str(path), "--rounds", "0"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "--rounds must be 1 or more" in done.stderr
