"""Context extension: the passkey problems, YaRN in each phase, and a small run that is cut off and resumed."""

import dataclasses
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import final_arrays
from transformers import DeepseekV3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import yarn_apply_mscale

from experiments import context_extension
from experiments.context_extension import PHASES, Config, extended, training_documents
from r1jax.config import UserError
from r1jax.data.tokenizer import load_tokenizer, train_tokenizer
from r1jax.metrics import read_json, read_json_lines
from r1jax.models.attention import latent_rotary
from r1jax.models.presets import passkey_model
from r1jax.optimizer import OptimizerConfig
from r1jax.policy import Policy
from r1jax.report.passkey import Grid, passkey_table
from r1jax.tasks.passkey import HIDDEN, STOP, SYMBOLS, WORDS, draw_passkey, is_held_out

ITEMS = ("params", "router_bias", "opt_state", "update")
TINY = Config(
    lengths=(16, 32, 64),
    updates=(2, 3, 2),
    batch_tokens=128,
    key_digits=2,
    optimizer=OptimizerConfig(learning_rate=5e-3, schedule="cosine", warmup_updates=1, final_fraction=0.2),
    save_every=1,
    depths=2,
    problems=2,
)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32), split=st.sampled_from(["train", "held_out"]), digits=st.integers(3, 5),
    extra=st.integers(0, 300), depth=st.none() | st.floats(0, 1),
)  # fmt: skip
def test_the_key_is_hidden_once_and_where_it_is_said(seed, split, digits, extra, depth):
    room = extra
    drawn = draw_passkey(
        np.random.default_rng(seed), split, length=2 * digits + 3 + room, key_digits=digits, depth=depth
    )
    assert len(drawn.document) == 2 * digits + 3 + room and set(drawn.document) <= set(SYMBOLS)
    at = drawn.prompt.index(HIDDEN)
    assert drawn.document.count(HIDDEN) == 2 and drawn.prompt[-1] == HIDDEN
    assert drawn.document[at + 1 : at + 2 + digits] == (*drawn.key, STOP) and drawn.document[-digits:] == drawn.key
    assert depth is None or abs(at - depth * room) <= 0.5
    filler = drawn.prompt[:at] + drawn.prompt[at + digits + 2 : -1]
    assert len(filler) == room and set(filler) <= set(WORDS) and len(set(drawn.loop)) == len(drawn.loop)
    assert all(word == drawn.loop[place % len(drawn.loop)] for place, word in enumerate(filler))
    assert is_held_out(drawn.key) == is_held_out(drawn.loop) == (split == "held_out")


def test_splits_share_no_key_and_no_filler():
    drawn = {
        split: [draw_passkey(np.random.default_rng((7, n)), split, length=20, key_digits=4) for n in range(400)]
        for split in ("train", "held_out")
    }
    for part in ("key", "loop"):
        train, held_out = ({getattr(problem, part) for problem in problems} for problems in drawn.values())
        assert len(train) > 300 and len(held_out) > 100 and not train & held_out
    depths = [problem.prompt.index(HIDDEN) for problem in drawn["train"]]
    assert set(depths) == set(range(20 - 2 * 4 - 3 + 1))  # by default the key is anywhere


@pytest.mark.parametrize(
    "change",
    [{"length": 10}, {"split": "test"}, {"depth": 1.5}, {"depth": -0.1}, {"key_digits": 1}, {"key_digits": 11}],
)
def test_impossible_problems_are_refused(change):
    settings = {"split": "train", "length": 11, "key_digits": 4} | change
    with pytest.raises(ValueError, match="a key has 2 to 10 digits"):
        draw_passkey(np.random.default_rng(0), settings.pop("split"), **settings)


@pytest.mark.parametrize(
    "change", [{"lengths": (10, 32, 64)}, {"lengths": (16, 64, 32)}, {"batch_tokens": 100}, {"key_digits": 1}]
)
def test_impossible_lengths_are_refused(change, tmp_path):
    with pytest.raises(UserError, match="--lengths .* --batch-tokens"):
        context_extension.main(
            dataclasses.replace(TINY, **{"key_digits": 4, "workdir": str(tmp_path / "run")} | change)
        )
    assert not (tmp_path / "run").exists()


def test_a_piece_is_a_token_and_the_key_is_what_is_learned():
    """Documents of every length up to the phase's, for as many tokens as its updates take."""
    tokenizer = train_tokenizer([" ".join(SYMBOLS)], vocab_size=1024, symbols=SYMBOLS)
    config = dataclasses.replace(TINY, updates=(20, 20, 20))
    for phase, lengths in enumerate(([16], [16, 32], [16, 32, 64])):
        documents = list(training_documents(config, tokenizer, phase))
        seen = [len(document.ids) - 1 for document in documents]
        assert set(seen) >= set(lengths) and 20 * 128 <= sum(seen) < 20 * 128 + 16
        for document in documents:
            words = tokenizer.decode(document.ids).removeprefix(" ")
            assert words.count(HIDDEN) == 2 and words.endswith(tokenizer.decode(document.ids[document.learned]).strip())
            assert document.learned.sum() == TINY.key_digits and document.learned[-TINY.key_digits :].all()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A small run from the beginning to the end."""
    folder = tmp_path_factory.mktemp("context") / "run"
    context_extension.main(dataclasses.replace(TINY, workdir=str(folder)))
    return folder


def test_each_phase_has_the_rotary_of_deepseek_v3():
    """Against transformers; the short model has no YaRN."""
    policy = Policy(passkey_model(len(SYMBOLS) + 4), None, {}, None, None)
    assert policy.model.yarn is None
    for length in TINY.lengths[1:]:
        model = extended(policy, TINY.lengths[0], length).model
        assert model.max_positions == length
        rope = {"rope_type": "yarn", "rope_theta": model.rope_theta, "factor": 40.0, "beta_fast": 32, "beta_slow": 1}
        rope |= {"original_max_position_embeddings": TINY.lengths[0], "mscale": 1.0, "mscale_all_dim": 1.0}
        theirs = DeepseekV3Config(
            hidden_size=model.num_heads * model.qk_rope_head_dim, num_attention_heads=model.num_heads,
            qk_rope_head_dim=model.qk_rope_head_dim, qk_nope_head_dim=model.qk_nope_head_dim, rope_parameters=rope,
            max_position_embeddings=40 * TINY.lengths[0],
        )  # fmt: skip
        expected, amplitude = ROPE_INIT_FUNCTIONS["yarn"](theirs)
        frequencies, ours, scale = latent_rotary(model)
        np.testing.assert_allclose(frequencies, expected.numpy(), rtol=1e-6)
        width = model.qk_rope_head_dim + model.qk_nope_head_dim
        assert ours == amplitude == 1.0
        assert scale == pytest.approx(yarn_apply_mscale(theirs.rope_parameters, width**-0.5), rel=1e-12)
        assert scale * width**0.5 == pytest.approx((0.1 * np.log(40) + 1) ** 2)  # both factors of sqrt(1/t)


def test_the_proportions_are_those_of_the_paper():
    short, middle, full = Config().lengths
    assert (middle // short, full // middle) == (32 // 4, 128 // 32) and Config().batch_tokens % full == 0


@pytest.mark.slow
def test_what_a_run_leaves(workdir):
    grids = [Grid(**read_json(path)) for path in sorted(workdir.glob("passkeys_*.json"))]
    assert sorted(path.name for path in workdir.glob("passkeys_*")) == [
        "passkeys_phase_1_yarn.json", "passkeys_phase_2_yarn.json", "passkeys_short.json", "passkeys_short_yarn.json",
    ]  # fmt: skip
    for grid in grids:
        assert grid.lengths == [16, 32, 64] and grid.depths == [0.0, 1.0] and grid.problems == 2
        assert np.shape(grid.correct) == (3, 2) and 0 <= np.min(grid.correct) <= np.max(grid.correct) <= 2
    for phase, updates in zip(PHASES, TINY.updates):
        records = read_json_lines(workdir / phase / "metrics.jsonl")
        assert [record["step"] for record in records] == list(range(1, updates + 1))
        assert all(abs(r["loss"] - r["key_nll"] - r["filler_nll"]) < 1e-4 for r in records)  # the weight is 1
    svg = ElementTree.parse(workdir / "heat_map.svg").getroot()
    assert svg.tag.endswith("svg") and (workdir / "heat_map.svg").stat().st_size > 5000
    assert "<svg" in (workdir / "report.html").read_text() and "keys retrieved" in (workdir / "table.md").read_text()
    assert load_tokenizer(workdir / "phase_2").vocab_size == len(SYMBOLS) + 4


def test_the_table_counts_right_answers():
    grid = Grid("some", 16, [16, 32], [0.0, 0.5, 1.0], [[10, 10, 10], [0, 5, 10]], 10)
    mean, low, high = grid.retrieved(1)
    assert mean == 50.0
    p, n, z = 0.5, 30, 1.959964  # Wilson's interval, written out
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert (low, high) == (pytest.approx(50 - 100 * half, rel=1e-5), pytest.approx(50 + 100 * half, rel=1e-5))
    assert "| some | 100 (89–100) | 50 (33–67) |" in passkey_table([grid])


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_one_that_was_not(workdir, tmp_path):
    """Killed after the first of three updates of phase 1, started again."""
    copy = tmp_path / "run"
    shutil.copytree(
        workdir, copy, ignore=shutil.ignore_patterns("phase_2", "passkeys_phase*", "*.svg", "*.md", "*.html")
    )
    for name in ("phase_1/summary.json", "summary.json"):
        (copy / name).unlink()
    steps = sorted((copy / "phase_1/checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    assert [path.name for path in steps] == ["2", "3"]
    shutil.rmtree(steps[-1])
    context_extension.main(dataclasses.replace(TINY, workdir=str(copy)))
    for phase in PHASES:
        ours, theirs = (final_arrays(root / phase, ITEMS) for root in (copy, workdir))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value, err_msg=f"{phase} {name}")
    for name in (
        "table.md",
        "heat_map.svg",
        "passkeys_phase_1_yarn.json",
        "passkeys_phase_2_yarn.json",
        "summary.json",
    ):
        assert (copy / name).read_bytes() == (workdir / name).read_bytes(), name
