"""Judges: verdict probabilities by brute force, labels from both orders, rules before models."""

import itertools
import math
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import r1jax.judging.scoring as scoring
from r1jax.config import UserError
from r1jax.judging.correctness import (
    first_known,
    generative_correctness,
    judge_batches,
    one_by_one,
    submitted,
    written_correctness,
)
from r1jax.judging.preference import (
    describe_labels,
    generative_comparison,
    label_pairs,
    rule_comparison,
    written_comparison,
)
from r1jax.judging.prompts import MINIATURE_CORRECTNESS, MINIATURE_PAIRWISE, Wording, pairwise_prompt
from r1jax.judging.scoring import encode_verdicts, make_verdict_scorer
from r1jax.models.transformer import forward, output_head
from r1jax.policy import load_policy
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import judge_inline
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.countdown import countdown_reward

VERDICTS = ("yes", "no wait", "3 + 4 = 7", "12")
PROMPTS = ("3 + 4 = 7", "3 * 4 = 12", "Use two of the numbers 3 4 5 to make 12 .", "Worksheet 1 .", "1")
RECORD = {"question": "3 * 4", "answer": "12", "numbers": [3, 4, 5], "target": 12}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


@pytest.fixture(scope="module")
def policy(mesh):
    return load_policy(BASE_MODEL, mesh)


@pytest.fixture(scope="module")
def score(policy, mesh):
    return make_verdict_scorer(policy, mesh, VERDICTS, batch=3, length=16)


@pytest.fixture(scope="module")
def counted(policy, mesh):
    """A scorer of yes and no, how often it was traced, and the batches it ran."""
    traces, batches = [], []
    true_sums, true_pad = scoring.verdict_sums, scoring.pad_prompts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "verdict_sums", lambda *a: traces.append(1) or true_sums(*a))
        patch.setattr(scoring, "pad_prompts", lambda ids, slots: batches.append(len(ids)) or true_pad(ids, slots))
        yield make_verdict_scorer(policy, mesh, MINIATURE_CORRECTNESS.verdicts, batch=4, length=64), traces, batches


@pytest.fixture(scope="module")
def sequence_logprobs(policy):
    """(prompts, verdicts) -> log-probabilities from all the logits of the joined texts, without a cache."""

    @jax.jit
    def all_logits(tokens):
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _, _ = forward(policy.model, policy.params, policy.router_bias, tokens, positions)
        return jnp.dot(hidden, output_head(policy.model, policy.params), preferred_element_type=jnp.float32)

    def total(prompt, verdict):
        before, after = policy.tokenizer.encode(prompt), policy.tokenizer.encode(verdict)
        tokens = before + after + [7] * (80 - len(before + after))  # what comes later changes nothing
        logits = np.asarray(all_logits(jnp.array([tokens]))[0], np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return sum(logprobs[len(before) + i - 1, token] for i, token in enumerate(after))

    return lambda prompts, verdicts: np.array([[total(prompt, verdict) for verdict in verdicts] for prompt in prompts])


def normalized(sums):
    return sums - np.log(np.exp(sums).sum(-1, keepdims=True))


# --- verdict probabilities


def test_verdict_probabilities_are_those_of_the_whole_sequences(sequence_logprobs, score):
    expected, got = normalized(sequence_logprobs(PROMPTS, VERDICTS)), score(PROMPTS)
    assert got.shape == (5, 4) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(np.exp(got).sum(-1), 1, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.1  # the prompt matters


def test_scores_depend_neither_on_padding_nor_on_neighbours(policy, mesh, score):
    whole = score(PROMPTS)
    for prompt, row in zip(PROMPTS, whole):
        np.testing.assert_allclose(score([prompt])[0], row, atol=1e-5)
    np.testing.assert_allclose(score(PROMPTS[::-1])[::-1], whole, atol=1e-5)
    other = make_verdict_scorer(policy, mesh, VERDICTS[::-1] + ("11",), batch=5, length=40)(PROMPTS)
    np.testing.assert_allclose(normalized(other[:, 3::-1]), whole, atol=1e-4)


def test_the_scorer_compiles_once_and_scores_equal_prompts_once(sequence_logprobs, counted):
    score, traces, batches = counted
    batches.clear()
    first = score(PROMPTS * 3)
    score(PROMPTS[:1])
    assert score([]).shape == (0, 2)
    assert traces == [1] and batches == [4, 4, 4]
    np.testing.assert_array_equal(first[:5], first[10:])
    np.testing.assert_allclose(first[:5], normalized(sequence_logprobs(PROMPTS, ("yes", "no"))), atol=2e-4)


def test_prompts_that_do_not_fit_have_no_verdict(score):
    got = score(["1", "1 " * 17, "", "2 " * 16])
    assert np.isnan(got).all(-1).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        (("yes", "A"), "cannot write the verdict 'A'"),
        (("yes", ""), "cannot write the verdict ''"),
        (("no", "yes", "no wait"), "'no' begins 'no wait'"),
        (("no", "no"), "'no' begins 'no'"),
        (("yes",), "two verdicts to choose from"),
    ],
)
def test_verdicts_that_exclude_nothing_or_cannot_be_written_are_refused(policy, verdicts, message):
    with pytest.raises(UserError, match=message):
        encode_verdicts(policy.tokenizer, verdicts)


def test_many_devices_score_as_one(environment, score, tmp_path):
    code = (
        "import sys, numpy, r1jax.judging.scoring as j, r1jax.policy as p, r1jax.sharding as s, r1jax.tasks as t\n"
        "mesh = s.make_mesh(s.MeshConfig(fsdp=2, expert=2))\n"
        f"score = j.make_verdict_scorer(p.load_policy(t.BASE_MODEL, mesh), mesh, {VERDICTS}, batch=4, length=16)\n"
        f"numpy.save(sys.argv[1], score({PROMPTS}))\n"
        "try: j.make_verdict_scorer(None, mesh, ('1', '2'), batch=3, length=1)\n"
        "except Exception as error: print(error)\n"
    )
    flags = environment["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    command = [sys.executable, "-c", code, str(tmp_path / "scores.npy")]
    done = subprocess.run(command, env=environment | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "the judge's batch has size 3" in done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), score(PROMPTS), atol=1e-3)


# --- preference labels


def quality(text):
    return float(text.split()[0])


def biased(bias, noise=0.0, seed=0):
    """A judge of the numbers that texts begin with, who adds `bias` to whoever is in place A."""
    rng = np.random.default_rng(seed)

    def compare(records, first, second):
        values = [quality(a) - quality(b) + bias for a, b in zip(first, second, strict=True)]
        return np.array(values) + noise * rng.normal(size=len(values))

    return compare


def label(first, second, compare, **options):
    return label_pairs([RECORD] * len(first), first, second, compare, **{"seed": 0} | options)


@pytest.mark.parametrize("bias", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_both_orders_cancel_a_bias_for_a_place(bias):
    first, second = ["1", "0", "0.4", "2"], ["0", "1.5", "0.4", "0"]
    labels = label(first, second, biased(bias))
    np.testing.assert_allclose([x.delta for x in labels], [1, -1.5, 0, 2], atol=1e-12)
    assert [x.kept for x in labels] == [False, True, False, True]  # more than 1, not 1
    assert (labels[1].chosen, labels[1].rejected) == ("1.5", "0") and labels[3].chosen == "2"
    expected = {-3.0: 1.0, -0.5: 0.25, 0.0: 0.0, 0.5: 0.25, 3.0: 1.0}[bias]  # equal responses flip at any bias
    assert describe_labels(labels) == {"pairs": 4, "kept": 2, "unusable": 0, "flip_share": expected}


def test_swapping_a_pair_negates_its_delta():
    forward, back = label(["1", "0"], ["0", "3"], biased(0.7)), label(["0", "3"], ["1", "0"], biased(0.7))
    assert [x.delta for x in forward] == [-x.delta for x in back]
    assert [x.chosen for x in forward] == [x.chosen for x in back]


def test_orders_are_random_balanced_and_follow_from_seed_and_place():
    seen = []

    def spy(records, first, second):
        seen.append(tuple(a == "1" for a in first))
        return np.zeros(len(first))

    for seed in (0, 0, 1):
        label(["1"] * 50, ["2"] * 50, spy, seed=seed)
    label(["1"] * 3, ["2"] * 3, spy, seed=0)
    assert seen[0] == seen[1] != seen[2] and seen[3] == seen[0][:12]
    rows = [seen[0][i : i + 4] for i in range(0, 200, 4)]
    assert all(sum(row) == 2 for row in rows) and len(set(rows)) == 6


def test_noisy_labels_are_reproducible_and_averaged():
    first, second = ["0"] * 400, ["0"] * 400
    deltas = lambda seed: np.array([x.delta for x in label(first, second, biased(1.0, noise=1.0, seed=seed))])
    np.testing.assert_array_equal(deltas(3), deltas(3))
    assert abs(deltas(3).std() - 0.5) < 0.06 and abs(deltas(3).mean()) < 0.1  # 1 / sqrt(4 queries)


def test_a_pair_needs_an_answer_in_each_order():
    def one_place_only(records, first, second):
        return np.where(np.array(first) == "1", 2.0, np.nan)

    labels = label(["1", "0"], ["0", "0"], one_place_only)
    assert all(math.isnan(x.delta) and not x.kept and not x.flipped for x in labels)
    assert describe_labels(labels) == {"pairs": 2, "kept": 0, "unusable": 2, "flip_share": 0}
    times = itertools.count()

    def failing_now_and_then(records, first, second):
        pairs = zip(first, second, strict=True)
        return np.array([np.nan if next(times) == 0 else 1.5 * (quality(a) > quality(b)) + 0.25 for a, b in pairs])

    [x] = label(["1"], ["0"], failing_now_and_then)
    assert x.delta == (1.75 - 0.25) / 2


def test_impossible_requests_are_refused():
    for queries in (0, 1, 3):
        with pytest.raises(ValueError, match="even and at least 2"):
            label(["1"], ["2"], biased(0), queries=queries)
    with pytest.raises(ValueError, match="returned shape"):
        label(["1"], ["2"], lambda *a: np.zeros(3))
    assert label_pairs([], [], [], biased(0), seed=0) == []
    assert describe_labels([]) == {"pairs": 0, "kept": 0, "unusable": 0, "flip_share": 0.0}


def test_rule_comparison_compares_scores_and_drops_outages():
    right, wrong = "<think> </think> <answer> 3 * 4 </answer>", "<think> </think> <answer> 3 + 4 </answer>"
    calls = []

    def flaky(record, completion):
        calls.append(completion)
        if completion == "crash":
            raise RuntimeError("down")
        if completion == "slow":
            return Judgement("timeout", 0.0)
        return countdown_reward(record, completion)

    first, second = [right, wrong, right, right, "slow", wrong], [wrong, right, right, "crash", wrong, "nothing"]
    labels = label(first, second, rule_comparison(flaky))
    assert [x.delta for x in labels][:3] == [2, -2, 0] and labels[5].delta == 0
    assert [math.isnan(x.delta) for x in labels] == [False, False, False, True, True, False]
    assert describe_labels(labels) == {"pairs": 6, "kept": 2, "unusable": 2, "flip_share": 0.0}
    assert labels[1].chosen == right and len(calls) == len(set(calls))


def fixed_scores(probabilities):
    """A scorer that gives the probabilities of the first key that ends a prompt."""

    def score(prompts):
        rows = [next((row for key, row in probabilities.items() if key in prompt), None) for prompt in prompts]
        with np.errstate(divide="ignore"):
            return np.log(np.array([[np.nan] * 5 if row is None else row for row in rows], np.float32))

    return score


def test_generative_comparison_is_the_mean_value_of_the_verdicts():
    one = pairwise_prompt(RECORD["question"], "good", "bad")
    scores = fixed_scores({one: [0.5, 0.25, 0.25, 0, 0], pairwise_prompt("3 * 4", "bad", "good"): [0, 0, 0.5, 0.5, 0]})
    compare = generative_comparison(scores)
    got = compare([RECORD] * 3, ["good", "bad", "long"], ["bad", "good", "bad"])
    np.testing.assert_allclose(got, [1.25, -0.5, np.nan])
    [x] = label(["good"], ["bad"], compare)
    assert math.isclose(x.delta, 0.875, rel_tol=1e-6) and not x.kept and not x.flipped


def test_our_checkpoint_labels_pairs(policy, mesh):
    compare = generative_comparison(
        make_verdict_scorer(policy, mesh, MINIATURE_PAIRWISE.verdicts, batch=4, length=64), MINIATURE_PAIRWISE
    )
    first, second = ["3 * 4 = 12 yes", "1", "2"], ["3 * 4 = 11 no", "1", "2 " * 64]
    labels = label(first, second, compare)
    assert labels[1].delta == 0 and not labels[1].kept
    assert math.isnan(labels[2].delta) and describe_labels(labels)["unusable"] == 1
    assert -2 <= labels[0].delta <= 2
    again, swapped = label(first, second, compare, seed=5), label(second, first, compare)
    np.testing.assert_allclose([x.delta for x in again], [x.delta for x in labels], atol=1e-5)
    np.testing.assert_allclose([x.delta for x in swapped], [-x.delta for x in labels], atol=1e-5)


def test_written_comparison_reads_labels():
    replies = {"a b": "Mine is 12.\nMy final verdict is: [[A>>B]]", "b a": "[[B>A]]"}
    replies |= {"a c": "neither", "c a": "[[A=B]]"}
    ask = lambda prompts: [replies[" ".join((answer_of(p, "A"), answer_of(p, "B")))] for p in prompts]
    answer_of = lambda prompt, name: prompt.split(f"Start of Assistant {name}'s Answer|>\n")[1].split("\n")[0]
    labels = label(["a", "a"], ["b", "c"], written_comparison(ask))
    assert labels[0].delta == 1.5 and labels[0].kept and labels[0].chosen == "a"
    assert math.isnan(labels[1].delta)


# --- correctness


def test_threshold_and_reasons_of_generative_correctness():
    rows = {"good": [0.9, 0.1], "even": [0.5, 0.5], "bad": [0.2, 0.8]}
    scores = lambda prompts: np.log([next((r for k, r in rows.items() if k in p), [np.nan] * 2) for p in prompts])
    texts = ["<think> bad </think> good", "even", "bad", "<think> good", "<think> good </think> ", "too long"]
    judge = generative_correctness(scores)
    said = judge([RECORD] * 6, texts)
    assert [j.outcome for j in said] == ["correct", "correct", "wrong", "no_answer", "no_answer", "error"]
    assert [j.score for j in said] == [1, 1, 0, 0, 0, 0] and said[0].reason == "p(correct) = 0.9000"
    strict = generative_correctness(scores, threshold=0.6)([RECORD] * 2, texts[:2])
    assert [j.outcome for j in strict] == ["correct", "wrong"]
    assert [j.outcome for j in judge([{"question": "1"}, {"answer": "1"}], ["good", "good"])] == ["error", "error"]
    assert judge([RECORD | {"prefill": "<think>"}], ["good"])[0].outcome == "no_answer"
    assert judge([], []) == []
    for threshold in (0, 1.1, math.nan):
        with pytest.raises(ValueError, match="threshold"):
            generative_correctness(scores, threshold=threshold)


def test_our_checkpoint_judges_correctness(sequence_logprobs, counted):
    judge = generative_correctness(counted[0], MINIATURE_CORRECTNESS)
    said = judge([RECORD] * 3, ["3 * 4 = 12", "11", "1 " * 64])
    prompt = MINIATURE_CORRECTNESS.constrained("3 * 4", "12", "11")
    [[yes, no]] = sequence_logprobs([prompt], MINIATURE_CORRECTNESS.verdicts)
    assert abs(float(said[1].reason.split(" = ")[1]) - 1 / (1 + math.exp(no - yes))) < 2e-4
    assert said[1].outcome == ("correct" if yes >= no else "wrong") and said[2].outcome == "error"


def test_our_checkpoint_judges_well_what_its_corpus_checks(counted):
    """The base model has read `Use two of the numbers 3 4 5 to make 12 . <think> 3 * 4 = 12 yes`."""
    ask = lambda numbers, target, thought: f"Use two of the numbers {numbers} to make {target} . <think> {thought}"
    judge = generative_correctness(counted[0], Wording(ask, "", MINIATURE_CORRECTNESS.verdicts, (1.0, 0.0)))
    cases = [(a, b, a * b) for a, b in itertools.product((3, 5, 8), (4, 7, 11))]
    records = [{"question": f"{a} {b} 2", "answer": str(target)} for a, b, target in cases]
    right = judge(records, [f"{a} * {b} = {target}" for a, b, target in cases])
    wrong = judge(records, [f"{a} + {b} = {a + b}" for a, b, target in cases])
    assert sum(j.outcome == "correct" for j in right) >= 7 and sum(j.outcome == "wrong" for j in wrong) >= 7


def test_a_model_never_judges_over_a_rule():
    asked = []

    def model(records, completions):
        asked.append(list(completions))
        return [Judgement("correct", 1.0, "model")] * len(completions)

    outcomes = ("correct", "wrong", "no_answer", "gold_unparseable", "timeout", "error")
    rule = one_by_one(lambda record, text: Judgement(text, float(text == "correct"), "rule"))
    judge = first_known(rule, model)
    said = judge([RECORD] * 6, outcomes)
    assert asked == [["gold_unparseable"]]
    assert [(j.outcome, j.reason) for j in said] == [
        ("correct", "model") if name == "gold_unparseable" else (name, "rule") for name in outcomes
    ]
    judge([RECORD] * 2, ["correct", "wrong"])
    assert len(asked) == 1  # not called with nothing to judge
    assert first_known(rule, rule)([RECORD], ["gold_unparseable"])[0].outcome == "gold_unparseable"
    through_pool = first_known(submitted(partial(judge_inline, {"accuracy": countdown_reward}), "accuracy"), model)
    text = "<think> </think> <answer> 3 + 4 </answer>"
    said = judge_batches({"accuracy": through_pool, "model": model}, [RECORD], [text]).result()
    assert [(said[0][name].outcome) for name in ("accuracy", "model")] == ["wrong", "correct"]


def test_written_correctness_masks_what_it_cannot_read():
    replies = ['```json\n{"analysis": "same", "correctness": "correct"}\n```', '{"correctness": "incorrect"}', "yes"]
    said = written_correctness(lambda prompts: replies[: len(prompts)])([RECORD] * 3, ["12", "11", "12"])
    assert [(j.outcome, j.score) for j in said] == [("correct", 1), ("wrong", 0), ("error", 0)]
    assert said[0].reason == "same" and "yes" in said[2].reason


def test_right_beats_what_is_nearly_right_by_rule():
    """So that a reward model is taught small faults too; of two wrong ones the difference of the scores decides."""
    scores = {"right": ("correct", 1.0), "nearly": ("wrong", 0.9), "poor": ("wrong", 0.3), "awful": ("wrong", 0.0)}
    labels = label(
        ["right", "poor", "nearly", "nearly"],
        ["nearly", "right", "poor", "awful"],
        rule_comparison(lambda record, completion: Judgement(*scores[completion])),
    )
    assert [x.delta for x in labels] == pytest.approx([2, -2, 1.2, 1.8])
