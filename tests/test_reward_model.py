"""Reward models (Nature 645:633, Methods): losses, what is scored, training, resuming, handing on."""

import dataclasses
import json
import shutil
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_resume import final_arrays, wait_for

from experiments.reward_model import Config, main
from r1jax.config import UserError
from r1jax.data.chat import EOS
from r1jax.data.preferences import prompt_text, read_comparisons, read_safety_labels, split_by_prompt
from r1jax.data.scored_rows import encode_examples, example_batch, pad_rows, scored_row, scored_texts, updates_per_epoch
from r1jax.data.tokenizer import load_tokenizer
from r1jax.metrics import read_json, read_json_lines
from r1jax.models.presets import miniature
from r1jax.models.reward_model import adopt_decoder, init_reward_params, reward_outputs, reward_scores
from r1jax.models.transformer import init_params
from r1jax.objectives import pairwise_sums, pointwise_sums
from r1jax.policy import load_policy
from r1jax.reward_model import agreement, load_reward_model, make_row_scorer, make_scorer, wilson_interval
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL

VOCAB = 29


# Losses.


def naive_cross_entropy(logits, labels):
    """-log of the probability of the labels under sigmoid(logits), in float64, from the definition."""
    chance = 1 / (1 + np.exp(-np.asarray(logits, np.longdouble)))
    return -np.where(labels, np.log(chance), np.log1p(-chance))


def test_pairwise_loss_is_bradley_terry():
    rng = np.random.default_rng(0)
    chosen, rejected, mask = rng.normal(0, 3, 40), rng.normal(0, 3, 40), rng.random(40) < 0.7
    expected = naive_cross_entropy(chosen - rejected, 1)[mask]
    loss, count = jax.jit(pairwise_sums)(chosen, rejected, mask)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-6)
    assert count == mask.sum()
    slope = jax.grad(lambda s: pairwise_sums(s, jnp.float32(rejected), mask)[0])(jnp.float32(chosen))
    np.testing.assert_allclose(slope, np.where(mask, -1 / (1 + np.exp(chosen - rejected)), 0), rtol=1e-5, atol=1e-7)


def test_pointwise_loss_is_binary_cross_entropy():
    rng = np.random.default_rng(1)
    scores, labels, mask = rng.normal(0, 3, 40), rng.random(40) < 0.5, rng.random(40) < 0.7
    loss, count = jax.jit(pointwise_sums)(scores, jnp.float32(labels), mask)
    np.testing.assert_allclose(loss, naive_cross_entropy(scores, labels)[mask].sum(), rtol=1e-6)
    assert count == mask.sum()
    slope = jax.grad(lambda s: pointwise_sums(s, jnp.float32(labels), mask)[0])(jnp.float32(scores))
    np.testing.assert_allclose(slope, np.where(mask, 1 / (1 + np.exp(-scores)) - labels, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [30.0, 80.0, 1e4])
def test_losses_of_extreme_scores(size):
    """Right by far: exp(-size), not lost in rounding; wrong by far: size. What is masked may be NaN."""
    scores, mask = jnp.array([size, -size, jnp.nan]), jnp.array([1, 1, 0])
    for right in (True, False):
        labels = jnp.array([right, not right, True], jnp.float32)
        for sums in (
            lambda s: pointwise_sums(s, labels, mask),
            lambda s: pairwise_sums(jnp.where(labels > 0, s, 0.0), jnp.where(labels > 0, 0.0, s), mask),
        ):
            (loss, count), slope = sums(scores), jax.grad(lambda s: sums(s)[0])(scores)
            np.testing.assert_allclose(loss, 2 * np.exp(-size) if right else 2 * size, rtol=1e-5)
            assert count == 2 and np.all(np.isfinite(slope)) and slope[2] == 0


# The model.


@pytest.fixture(scope="module")
def small():
    """A small reward model with a head that is not zero: config, params, router bias."""
    config = dataclasses.replace(miniature(VOCAB), embed_dim=32, mlp_dim=48, init_stddev=0.3)
    params, bias = nn.meta.unbox(init_reward_params(config, jax.random.key(0)))
    assert not params["score"].any()
    return config, params | {"score": jax.random.normal(jax.random.key(1), (32,))}, bias


ROWS = [np.random.default_rng(n).integers(0, VOCAB, length) for n, length in enumerate((5, 9, 1, 7))]


@pytest.mark.slow
def test_scores_are_the_head_on_the_last_hidden_state(small):
    from r1jax.models.transformer import forward

    config, params, bias = small
    policy = nn.meta.unbox(init_params(config, jax.random.key(2)))[0]
    params = adopt_decoder(params, policy)
    assert "head" not in params and params.keys() - policy.keys() == {"score"}
    for ids in ROWS:
        hidden = forward(config, policy, bias, ids[None], np.arange(len(ids))[None])[0]
        expected = np.float64(hidden[0, -1]) @ np.float64(params["score"])
        scores = reward_scores(config, params, bias, *pad_rows([ids], 1, 12))
        assert scores.dtype == jnp.float32 and abs(expected) > 0.1
        np.testing.assert_allclose(scores, [expected], rtol=1e-4)


def test_scores_do_not_depend_on_padding_or_neighbours(small):
    config, params, bias = small
    compiled = jax.jit(partial(reward_scores, config))
    tokens, positions = pad_rows(ROWS, 4, 12)
    together = compiled(params, bias, tokens, positions)
    for number, ids in enumerate(ROWS):
        alone = compiled(params, bias, *pad_rows([ids], 4, 12))
        np.testing.assert_allclose(alone[0], together[number], rtol=1e-5)
    shift = 12 - np.array([len(ids) for ids in ROWS])
    left = [np.stack([np.roll(row, by) for row, by in zip(x, shift)]) for x in (tokens, positions)]
    np.testing.assert_allclose(compiled(params, bias, *left), together, rtol=1e-5)
    noise = np.where(positions < 0, 17, tokens)
    np.testing.assert_array_equal(compiled(params, bias, noise, positions), together)
    longer = jax.jit(partial(reward_scores, config))(params, bias, *pad_rows(ROWS, 7, 31))
    np.testing.assert_allclose(longer[:4], together, rtol=1e-5)
    assert np.all(np.isfinite(longer))


def test_padding_counts_for_no_expert(small):
    config, params, bias = small
    load = reward_outputs(config, params, bias, *pad_rows(ROWS, 6, 20))[1]
    np.testing.assert_array_equal(load.sum(-1), config.num_experts_per_token * sum(map(len, ROWS)))


def test_one_shape_compiles_once(small, monkeypatch):
    config, params, bias = small
    traces = []
    counting = lambda *arguments: traces.append(1) or reward_scores(*arguments)
    monkeypatch.setattr("r1jax.reward_model.reward_scores", counting)
    score = make_row_scorer(config, make_mesh(MeshConfig()), batch=3, length=12)
    scores = score(params, bias, ROWS)
    assert scores.shape == (4,) and score(params, bias, []).shape == (0,)
    np.testing.assert_array_equal(score(params, bias, ROWS[:1]), scores[:1])
    assert len(traces) == 1


# What is scored.


def test_the_summary_is_what_follows_the_reasoning():
    helpful, safety = partial(scored_texts, "helpful"), partial(scored_texts, "safety")
    assert helpful("User: q Assistant:", "<think> a </think>\n\nb") == ("User: q Assistant:", "b")
    assert helpful("q", "b") == ("q", "b")
    assert helpful("q", "<think> a")[1] == ""
    assert helpful("q", "a </think> b </think> c") == ("q", "c")
    # The template opened the reasoning: a response that never closes it is all reasoning.
    assert helpful("Assistant:<think>\n", "a") == ("Assistant:", "")
    assert helpful("Assistant:<think>\n", "a </think> b") == ("Assistant:", "b")
    for prompt, response in [("q", "<think> a </think> b"), ("Assistant:<think>\n", "a")]:
        assert safety(prompt, response) == (prompt, response)


def test_rows_keep_what_matters():
    tokenizer = load_tokenizer(BASE_MODEL)
    asked, answered = tokenizer.encode("12 + 7"), tokenizer.encode("is 19")
    ids = [*asked, *answered, tokenizer.eos_id]
    assert scored_row(tokenizer, "12 + 7", "is 19", 100) == (ids, 0, 0)
    assert scored_row(tokenizer, "12 + 7", "is 19", len(ids)) == (ids, 0, 0)
    assert scored_row(tokenizer, "12 + 7", "is 19", len(ids) - 2) == (ids[2:], 2, 0)
    row = scored_row(tokenizer, "12 + 7", "is 19", len(answered))
    assert row == ([*answered[:-1], tokenizer.eos_id], len(asked), 1)
    # The end of an earlier turn in a prompt is the token; a response cannot forge it.
    turns = scored_row(tokenizer, f"12{EOS} 7", f"a{EOS}b", 100).ids
    assert turns.count(tokenizer.eos_id) == 2 and turns[: len(tokenizer.encode("12")) + 1][-1] == tokenizer.eos_id
    assert scored_row(tokenizer, "12", "", 100).ids == [*tokenizer.encode("12"), tokenizer.eos_id]


# Files.


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_comparisons_of_published_forms(tmp_path):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    chosen = {"from": "gpt", "value": "<think>\nlong\n</think>\n\ngood"}
    first = write_lines(tmp_path / "share.jsonl", [{"conversations": turns, "chosen": chosen, "rejected": "bad"}])
    second = write_lines(tmp_path / "plain.jsonl", [{"prompt": "a", "chosen": "x", "rejected": "y"}])
    one, two = read_comparisons([first, second])
    assert one.prompt == f"User: a Assistant:b{EOS}User: c Assistant:" and one.responses == ("good", "bad")
    assert two == ("User: a Assistant:", ("x", "y"), True)
    assert prompt_text([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]) == "s User: a Assistant:"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "1 + 1", "answer": "#### 2"}, "of family 'math', not of 'preference'"),
        ({"prompt": "a", "chosen": "<think> x </think> z", "rejected": "<think> y </think> z"}, "reasoning only"),
        ({"prompt": f"a{EOS}", "chosen": "x", "rejected": "y"}, "control token"),
        ({"prompt": [{"role": "system", "content": "s"}], "chosen": "x", "rejected": "y"}, "not the user's"),
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "line 2"),
        ({"family": "preference", "id": "1", "messages": "a", "chosen": "x", "rejected": {"role": "user"}}, "record '1'"),
    ],
)
def test_what_is_no_comparison(tmp_path, row, says):
    form = {"prompt": "a", "chosen": "x", "rejected": "y"}
    rows = [row] if "family" in row or "question" in row else [form, row]
    with pytest.raises(UserError, match=says):
        read_comparisons([write_lines(tmp_path / "pairs.jsonl", rows)])


def test_safety_labels_are_checked(tmp_path):
    good = {"id": "1", "prompt": "a", "response": "<think> b </think> c", "safe": False}
    (example,) = read_safety_labels([write_lines(tmp_path / "labels.jsonl", [good])])
    assert example == ("User: a Assistant:", ("<think> b </think> c",), False)
    for change in ({"safe": 1}, {"safe": "true"}, {"prompt": ""}, {"response": None}, {"id": "1"}):
        rows = [good, good | {"id": "2"} | change]
        with pytest.raises(UserError, match=r"labels\.jsonl, line 2"):
            read_safety_labels([write_lines(tmp_path / "labels.jsonl", rows)])


# Training data.


def test_no_prompt_is_on_both_sides(tmp_path):
    rows = [{"prompt": f"p{n % 50}", "chosen": f"x{n}", "rejected": "y"} for n in range(200)]
    examples = read_comparisons([write_lines(tmp_path / "pairs.jsonl", rows)])
    training, held_out = split_by_prompt(examples, 0.3, 0)
    assert len(training) + len(held_out) == 200 and 20 < len(held_out) < 100
    assert not {e.prompt for e in training} & {e.prompt for e in held_out}
    assert split_by_prompt(examples[::-1], 0.3, 0)[1] == held_out[::-1]
    assert split_by_prompt(examples, 0.3, 1)[1] != held_out


def test_every_epoch_shows_every_example_once(tmp_path):
    rows = [{"prompt": f"{n}", "chosen": "1" * (1 + n % 4), "rejected": "2"} for n in range(11)]
    rows.append({"prompt": "12", "chosen": "3" * 40, "rejected": "2"})
    examples = read_comparisons([write_lines(tmp_path / "pairs.jsonl", rows)])
    encoded, counts = encode_examples(examples, load_tokenizer(BASE_MODEL), 20)
    assert counts == {"examples": 11, "too_long": 1, "prompts_cut": 0} and updates_per_epoch(11, 4) == 3
    draw = partial(example_batch, encoded, seed=5, batch=4, length=20)
    key = lambda batch: [batch.tokens[i].tobytes() for i in range(4) if batch.mask[i]]
    epochs = [sum((key(draw(update)) for update in range(first, first + 3)), []) for first in (1, 4)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and len(set(epochs[0])) == 11 and epochs[0] != epochs[1]
    last = draw(3)
    assert last.mask.tolist() == [True] * 3 + [False] and last.tokens.shape == (4, 2, 20)
    assert np.all(last.positions[3] == -1) and np.all(last.positions[:3, :, 0] == 0)
    np.testing.assert_array_equal(draw(5).tokens, draw(5).tokens)


# The stage.


SETTINGS = (
    "--batch-size 32 --micro-batches 2 --sequence-length 40 --epochs 4 --optimizer.learning-rate 1e-3 "
    "--evaluate-every 8 --save-every 8"
).split()


def separable(number: int, rng) -> dict:
    """A pair that one word tells apart, whatever the numbers; in the reasoning there is nothing to learn."""
    first, second, third = rng.integers(1, 99, 3)
    thought = f"<think> {first} + {second} </think> "
    pair = [f"so the answer is {third}", f"so the answer not {third}"]
    prompt = f"{first} and {second} number {number}"
    return {"prompt": prompt, "chosen": thought + pair[0], "rejected": thought + pair[1]}


def run(experiment, *options) -> str:
    process = experiment("reward_model", *options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    return write_lines(path, [separable(number, rng) for number in range(300)])


@pytest.fixture(scope="module")
def trained(experiment, pairs, tmp_path_factory):
    """The workdir of a helpful reward model that began as the shipped base model, and what was printed."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, run(experiment, "--pairs", pairs, "--workdir", workdir, *SETTINGS)


def test_it_learns_what_can_be_learned(trained):
    workdir, output = trained
    summary, records = read_json(workdir / "summary.json"), read_json_lines(workdir / "metrics.jsonl")
    assert summary["held_out"]["accuracy"] >= 0.95 and summary["held_out"]["examples"] >= 20
    assert summary["training"]["accuracy"] >= 0.95
    assert [r["step"] for r in records] == list(range(1, summary["updates"] + 1))
    np.testing.assert_allclose(records[0]["loss"], np.log(2), rtol=1e-6)  # the head begins at zero
    assert records[0]["accuracy"] == 0.5 and records[-1]["loss"] < 0.3
    assert records[-1]["held_out_accuracy"] == summary["held_out"]["accuracy"]
    assert abs(summary["mean_characters"]["chosen"] - summary["mean_characters"]["rejected"]) < 3
    assert "longer wins" in output and "held-out accuracy" in output


def test_wilson_interval():
    """Its ends are the chances p from which the accuracy is 1.96 standard deviations of p away."""
    for accuracy, count in [(0.5, 30), (0.9, 30), (0.61, 300)]:
        for end in wilson_interval(accuracy, count):
            np.testing.assert_allclose(abs(accuracy - end), 1.96 * np.sqrt(end * (1 - end) / count), rtol=1e-9)
    low, high = wilson_interval(1.0, 20)
    assert 0.8 < low < 0.9 and 1 - 1e-9 < high <= 1


def test_agreement():
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(agreement(np.array([[2], [-1], [-3], [0]]), labels), [1, 1, 0, 0.5])
    np.testing.assert_array_equal(agreement(np.array([[2, 1], [1, 2], [4, 4]]), None), [1, 0, 0.5])


@pytest.mark.slow
def test_killed_and_resumed(experiment, pairs, trained, tmp_path):
    workdir, options = tmp_path / "run", ["--pairs", pairs, *SETTINGS]
    process = experiment("reward_model", "--workdir", workdir, *options)
    wait_for(lambda: (workdir / "checkpoints" / "16").exists(), process)
    process.kill()
    process.wait()
    assert not (workdir / "summary.json").exists()
    run(experiment, "--workdir", workdir, *options)
    names = ("params", "router_bias", "opt_state", "update")
    ours, theirs = final_arrays(workdir, names), final_arrays(trained[0], names)
    assert ours.keys() == theirs.keys() and any("score" in name for name in ours)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert read_json(workdir / "summary.json") == read_json(trained[0] / "summary.json")
    timeless = lambda w: [{k: v for k, v in r.items() if k != "seconds"} for r in read_json_lines(w / "metrics.jsonl")]
    assert timeless(workdir) == timeless(trained[0])


def test_scoring_texts(trained):
    mesh = make_mesh(MeshConfig())
    reward_model = load_reward_model(trained[0], mesh)
    assert reward_model.kind == "helpful" and reward_model.parent.provenance["run"]["parent"]["folder"] == "base"
    prompt = prompt_text([{"role": "user", "content": "5 and 6 number 7"}])
    good, bad = "so the answer is 7", "so the answer not 7"
    responses = [good, bad, f"<think> 1 + 2 </think>\n\n{good}", f"<think> 3 so not </think>{good}", "<think> 1", ""]
    score = make_scorer(reward_model, mesh, batch=4, length=40)
    scores = score([prompt] * 6, responses)
    assert scores.shape == (6,) and scores.dtype == np.float32 and scores[0] > scores[1] + 1
    np.testing.assert_allclose(scores[2:4], scores[0], rtol=1e-5)  # reasoning changes nothing
    np.testing.assert_allclose(scores[4], scores[5], rtol=1e-5)  # reasoning without end: an empty summary
    safety = make_scorer(reward_model._replace(kind="safety"), mesh, batch=4, length=40)([prompt] * 6, responses)
    np.testing.assert_allclose(safety[:2], scores[:2], rtol=1e-5)
    assert np.all(np.abs(np.diff(safety[[0, 2, 3]])) > 1e-3) and abs(safety[4] - safety[5]) > 1e-3
    assert not sum(score.cut.values())
    fits = len(reward_model.tokenizer.encode(good)) + 4
    short = make_scorer(reward_model, mesh, batch=4, length=fits)
    assert np.all(np.isfinite(short([prompt] * 2, [good, good * 20]))) and short.cut == {"prompt": 2, "response": 1}


def test_policies_and_reward_models_are_not_mistaken_for_each_other(trained):
    mesh = make_mesh(MeshConfig())
    with pytest.raises(UserError, match="holds a policy, made by pretrain, and not a reward model"):
        load_reward_model(BASE_MODEL, mesh)
    with pytest.raises(UserError, match="holds a reward model, not a policy"):
        load_policy(trained[0], mesh)


@pytest.mark.slow
def test_safety_from_scratch(experiment, tmp_path):
    """Labels that only the reasoning tells apart."""
    rng, rows = np.random.default_rng(0), []
    for number in range(160):
        safe = bool(rng.random() < 0.6)
        response = f"<think> it is {'so' if safe else 'not'} </think> the answer is {rng.integers(99)}"
        rows.append({"id": str(number), "prompt": f"number {number}", "response": response, "safe": safe})
    labels = write_lines(tmp_path / "labels.jsonl", rows)
    shutil.copy(f"{BASE_MODEL}/tokenizer.model", tmp_path)
    options = ["--kind", "safety", "--scratch", tmp_path, "--held-out-share", 0.2, "--epochs", 12]
    run(experiment, "--pairs", labels, "--workdir", tmp_path / "run", *SETTINGS, *options)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["held_out"]["accuracy"] >= 0.95 > summary["majority_label"] + 0.1
    reward_model = load_reward_model(tmp_path / "run", make_mesh(MeshConfig()))
    assert reward_model.kind == "safety" and reward_model.parent.provenance["run"]["parent"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pairs": ()}, "--pairs is missing"),
        ({"held_out_share": 0.0}, "--held-out-share must be above 0"),
        ({"batch_size": 9, "micro_batches": 2}, "not a multiple"),
        ({"epochs": 0}, "must be 1 or more"),
        ({"init": "a", "scratch": "b"}, "exclude each other"),
        ({"scratch": "nowhere"}, "tokenizer.model is missing"),
        ({"sequence_length": 2}, "both need examples"),
        ({"kind": "safety"}, "line 1"),
    ],
)
def test_mistakes_are_said_before_anything_is_made(pairs, tmp_path, options, says):
    with pytest.raises(UserError, match=says):
        main(Config(**{"pairs": (str(pairs),), "workdir": str(tmp_path / "w")} | options))
    assert not (tmp_path / "w").exists()
