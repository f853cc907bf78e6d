"""The statistics of evaluation against brute force."""

import itertools
import math
from collections import Counter
from functools import partial

import numpy as np
import pytest

from r1jax.evaluation import (
    Response,
    accuracy_ci95,
    describe_responses,
    evaluation_batches,
    judge_outcomes,
    judged_groups,
    majority_vote,
    pass_at_k,
    sample_record,
    summarize,
    summarize_answers,
)
from r1jax.evaluation.measures import reflection_counts
from r1jax.evaluation.statistics import (
    Ratio,
    bootstrap_intervals,
    each,
    resampled_vote_scores,
    vote_scores,
)
from r1jax.evaluation.tables import comparison_table, evaluation_markdown
from r1jax.evaluation.votes import ballots
from r1jax.generation.rollout import Rollout
from r1jax.generation.sampler import SamplingConfig
from r1jax.rewards.format import extract_answer, format_reward
from r1jax.rewards.judgement import OUTCOMES, Judgement
from r1jax.rewards.verdict import Judged, judge_inline
from r1jax.tasks.countdown import countdown_reward

RECORD = {"numbers": [3, 4, 5], "target": 12, "level": 1}
JUDGES = {"accuracy": countdown_reward, "format": format_reward}


def respond(thought, answer, tokens=10, finished=True, record=RECORD):
    text = f"<think> {thought} </think> <answer> {answer} </answer>"
    return Response(text, tokens, finished, {name: judge(record, text) for name, judge in JUDGES.items()})


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_subsets(k):
    correct = np.random.default_rng(0).integers(0, 2, (7, 5))
    subsets = [[max(row[list(chosen)]) for chosen in itertools.combinations(range(5), k)] for row in correct]
    assert math.isclose(pass_at_k(correct, k), np.mean(subsets), rel_tol=1e-12)


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="pass@6 needs at least 6 samples a problem, and there are 5"):
        pass_at_k(np.ones((2, 5)), 6)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Problems differ in difficulty, so samples of one problem are not independent; problems are."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(1000):
        difficulty = rng.beta(0.5, 0.5, 200)
        correct = rng.random((200, 8)) < difficulty[:, None]
        covered += abs(correct.mean() - 0.5) < accuracy_ci95(correct)
    assert 0.93 < covered / 1000 < 0.97


@pytest.mark.parametrize(
    ("answers", "correct", "score"),
    [
        ([["a", "a", "b"]], [[1, 1, 0]], 1.0),
        ([["a", "b", "b"]], [[1, 0, 0]], 0.0),
        ([["a", "b", None]], [[1, 0, 0]], 0.5),
        ([[None, None, "a"]], [[0, 0, 1]], 1.0),
        ([[None, None, None]], [[0, 0, 0]], 0.0),
        ([["a", "a", "b"], ["c", "d", "d"]], [[1, 1, 0], [1, 0, 0]], 0.5),
    ],
)
def test_majority_vote(answers, correct, score):
    assert majority_vote(answers, correct) == score


def test_equal_answers_that_were_judged_differently_share_their_win():
    assert majority_vote([["a", "a", "a", "b"]], [[1, 0, 0, 1]]) == pytest.approx(1 / 3)


def vote_of(row, right):
    """cons@k of one list of answers, counted by hand: equal answers are equally right here."""
    votes = Counter(answer for answer in row if answer is not None)
    if not votes:
        return 0.0
    winners = [answer for answer in votes if votes[answer] == max(votes.values())]
    return sum(right[row.index(answer)] for answer in winners) / len(winners)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_votes_of_fewer_are_the_mean_over_all_subsets(k):
    """Against brute force over every subset; answer 0 is right, 3 is no answer."""
    drawn = np.random.default_rng(2).integers(0, 4, (6, 7))
    answers = [[None if a == 3 else int(a) for a in row] for row in drawn]
    correct = (drawn == 0).astype(int)
    expected = [
        np.mean([vote_of([row[i] for i in s], [right[i] for i in s]) for s in itertools.combinations(range(7), k)])
        for row, right in zip(answers, correct.tolist(), strict=True)
    ]
    found = resampled_vote_scores(answers, correct, k, seed=0, resamples=20_000)
    np.testing.assert_allclose(found, expected, atol=0.015)
    np.testing.assert_array_equal(found, resampled_vote_scores(answers, correct, k, seed=0, resamples=20_000))
    whole = resampled_vote_scores(answers, correct, 7, seed=1, resamples=3)
    np.testing.assert_allclose(whole, vote_scores(answers, correct), rtol=1e-12)
    with pytest.raises(ValueError, match="a vote of 8 needs at least 8 samples"):
        resampled_vote_scores(answers, correct, 8, seed=0)


def test_bootstrap_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    ratio = Ratio(rng.integers(0, 5, 40).astype(float), rng.integers(0, 3, 40) + 2.0)
    draws = np.random.default_rng(5)
    weights = np.concatenate([draws.multinomial(40, np.full(40, 1 / 40), size=n) for n in (64, 64, 22)])
    total = lambda row, values: sum(weight * value for weight, value in zip(row, values, strict=True))
    means = [total(row, ratio.parts) / total(row, ratio.wholes) for row in weights]
    found = bootstrap_intervals({"a": ratio, "b": each(ratio.parts)}, seed=5, resamples=150)
    np.testing.assert_allclose(found["a"], np.percentile(means, [2.5, 97.5]), rtol=1e-12)


def test_bootstrap_covers_the_truth():
    """Over all problems, and over a family that has about half of them."""
    rng, covered = np.random.default_rng(5), np.zeros(2)
    for trial in range(200):
        difficulty, part = rng.beta(0.5, 0.5, 200), rng.random(200) < 0.5
        correct = (rng.random((200, 8)) < difficulty[:, None]).mean(axis=1)
        ratios = {"all": each(correct), "part": Ratio(correct * part, part.astype(float))}
        intervals = bootstrap_intervals(ratios, seed=trial, resamples=500)
        covered += [low < 0.5 < high for low, high in intervals.values()]
    assert (covered / 200 > 0.92).all() and (covered / 200 < 0.98).all()


def test_bootstrap_says_nothing_of_one_problem():
    one = Ratio(np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    assert bootstrap_intervals({"one": one, "two": each([1.0, 0.0])}, seed=0) == {"one": None, "two": [0.0, 1.0]}
    assert bootstrap_intervals({"one": one}, seed=0) == {"one": None} and one.value == 1.0


def test_reflection_words_in_both_languages():
    counts = reflection_counts("Wait, WAIT. Waiter! but等等，不对 wait等等 check_ recheck error.")
    assert counts == {"wait": 3, "but": 1, "等等": 2, "不对": 1, "error": 1}


def answered(text, outcome, **more):
    judgements = {"accuracy": Judgement(outcome, float(outcome == "correct")), **more}
    return Response(text, len(text), True, judgements)


def test_families_levels_and_scores_of_any_kind():
    """Three families, one without levels; a further judge that fails once; no judge of the format."""
    records = [
        {"family": "chains", "level": 1}, {"family": "chains", "level": 2}, {"family": "math", "level": "Level 5"},
        {"family": "requests"}, {"family": "math", "level": "Level 5", "benchmark": "aime"},
    ]  # fmt: skip
    outcomes = ["correct", "wrong", "correct", "wrong", "error"]
    groups = [
        [
            answered("ab", outcome, language=Judgement(outcome, 0.5 * (outcome == "correct"))),
            answered("abcd", "wrong", language=Judgement("correct", 1.0)),
        ]
        for outcome in outcomes
    ]
    found = describe_responses(records, groups)
    assert found["accuracy"] == 0.2 and "format_share" not in found and "verify_share" not in found
    assert found["accuracy_chains"] == 0.25 and found["accuracy_chains_level_1"] == 0.5
    assert found["accuracy_chains_level_2"] == 0.0 and found["accuracy_math_level_5"] == 0.5
    assert found["accuracy_requests"] == 0.0 and found["accuracy_aime"] == 0.0 and "accuracy_level_1" not in found
    assert found["language_score"] == pytest.approx(6 / 9)
    assert found["mean_response_tokens"] == 3.0 and found["mean_response_tokens_correct"] == 2.0
    result = summarize_answers(records, groups, [[1, 2], [1, 1], [1, 1], None, [None, 1]])
    assert list(result["breakdown"]) == ["aime", "chains", "math", "requests"]
    assert result["breakdown"]["chains"]["levels"]["1"]["accuracy"] == 0.5
    assert result["breakdown"]["chains"]["interval95"]["accuracy"] == [0.0, 0.5]
    assert result["breakdown"]["math"]["interval95"]["accuracy"] is None
    assert "majority_at_2" not in result["breakdown"]["requests"]
    assert result["breakdown"]["chains"]["majority_at_2"] == 0.25
    # ties: half right; two equal answers of which one is right; none right; no answer never wins
    assert result["majority_at_2"] == (0.5 + 0.0 + 0.5 + 0.0) / 4 and result["problems_with_a_vote"] == 4
    assert result["lengths"]["correct"] == {"responses": 2, "mean": 2.0, "median": 2.0, "p90": 2.0, "max": 2.0}
    page = evaluation_markdown("T", ["How."], result)
    assert "| chains | 1 | 1 | 0.500 | – | 3.0 |" in page and "| mean score, language | 0.667 |" in page
    assert sample_record(0, "x", 0, "p", records[0], groups[0][0])["checks"] == []


def test_unknown_lengths_are_left_out():
    response = respond("", "3 * 4")._replace(tokens=None, finished=None)
    result = summarize([RECORD], [[response, response]], extract_answer)
    assert not [name for name in result if "tokens" in name or "truncated" in name]
    assert result["lengths"]["unit"] == "characters" and result["lengths"]["all"]["mean"] == len(response.text)
    assert "in characters" in evaluation_markdown("T", [], result)


def test_the_table_shows_what_all_columns_have():
    groups = [[respond("3 * 4 = 12 yes", "3 * 4")] * 8] * 2
    one, two = (summarize([RECORD] * 2, groups[:2], extract_answer) for _ in range(2))
    two.pop("pass_at_8")
    labels = list(comparison_table({"a": one, "b": two}).columns[0].cells)
    assert labels[:3] == ["accuracy (pass@1)", "pass@4", "majority vote of 8"] and "pass@1" not in labels


def test_ballots_of_mathematics_are_values():
    record = {"family": "math", "answer": "1/2"}
    texts = [r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"so \boxed{ 1 / 2 }", r"\boxed{\dfrac12}", r"\boxed{0.25}"]
    texts += ["none", r"\boxed{1/4}", r"\boxed{x+1}", r"\boxed{1+x}", r"\boxed{(1,2)}", r"\boxed{(2,1)}", r"\boxed{{}"]
    found = ballots(record, texts)
    half, quarter, none, line = found[0], found[4], found[5], found[7]
    assert found[:4] == [half] * 4 and found[6] == quarter != half and none is None and found[11] is None
    assert found[8] == line and found[9] != found[10]
    assert ballots({"family": "math", "answer": "anything"}, texts) == found, "the gold answer is not looked at"


def test_ballots_of_other_families_are_texts():
    texts = ["<think> </think> <answer> 3 * 4 </answer>", "<think></think><answer>3*4</answer>", r"\boxed{4 * 3}", "no"]
    assert ballots(RECORD, texts) == ["3*4", "3*4", "4*3", None]
    assert ballots({"family": "code", "tests": ["assert True"]}, texts) is None
    assert ballots({"family": "requests"}, texts) is None


def test_behaviour_of_responses():
    groups = [
        [
            respond("3 * 4", "3 * 4", tokens=8),
            respond("3 + 4 = 7 no wait 3 * 4 = 12 yes", "3 * 4", tokens=20),
            respond("3 + 4 = 8 no 3 + 4 = 7 yes", "3 + 4", tokens=20),
            respond("3 + 4 = 7 no", "3 + 4", tokens=12, finished=False),
        ]
    ]
    found = describe_responses([RECORD], groups)
    assert found["accuracy"] == 0.5 and found["format_share"] == 1.0
    assert found["mean_response_tokens"] == found["mean_response_tokens_level_1"] == 15.0
    assert found["truncated_share"] == 0.25 and found["reflect_share"] == 0.25
    assert found["verify_share"] == 0.75 and found["retry_share"] == 0.5
    # Five checks: a wrong value and a wrong mark among them, and one expression twice.
    assert math.isclose(found["verdict_fidelity"], 3 / 5) and math.isclose(found["repeat_share"], 1 / 5)
    assert judge_outcomes(groups) == {
        "accuracy": dict.fromkeys(OUTCOMES, 0.0) | {"correct": 0.5, "wrong": 0.5},
        "format": dict.fromkeys(OUTCOMES, 0.0) | {"correct": 1.0},
    }


def test_summary_of_several_problems():
    other = {"numbers": [2, 5, 9], "target": 7, "level": 2}
    groups = [
        [respond("", "3 * 4")] * 4,
        [respond("", "2 + 5", record=other)] + [respond("", "2 + 9", record=other)] * 3,
    ]
    result = summarize([RECORD, other], groups, extract_answer)
    assert result["accuracy"] == result["pass_at_1"] == 0.625 and result["pass_at_4"] == 1.0
    assert result["majority_at_4"] == 0.5
    assert result["accuracy_level_1"] == 1.0 and result["accuracy_level_2"] == 0.25
    assert result["outcomes"]["accuracy"]["wrong"] == 0.375
    assert result["problems"] == 2 and result["samples_per_problem"] == 4 and "pass_at_8" not in result


class Letters:
    """A tokenizer of which every token is one letter."""

    def encode_prompt(self, text):
        return [ord(letter) for letter in text]

    def decode(self, tokens):
        return "".join(chr(token) for token in tokens)


def test_a_batch_is_judged_while_the_next_is_sampled():
    """Five problems in batches of two: verdicts join their own responses, and are not waited for before sampling."""
    events, prompts = [], ["a", "b", "c", "d", "e"]
    config = SamplingConfig(prompts=2, group_size=3, prompt_slots=4, max_new_tokens=4)

    def sample(tokens, lengths, *, key):
        """Each completion is the prompt's letter, as often as its place in the group says."""
        events.append("sample")
        mask = np.tile(np.arange(4)[None] < np.arange(1, 4)[:, None], (2, 1, 1))
        letters = np.where(mask, tokens[:, -1][:, None, None], 0)
        return Rollout(letters, mask, np.zeros(mask.shape), mask[..., -2])

    class Waited(Judged):
        def result(self):
            events.append("wait")
            return super().result()

    judge = lambda record, text: Judgement("correct" if record["letter"] in text else "wrong", 1.0, text)

    def submit(records, completions):
        events.append(f"submit {len(completions)}")
        return Waited(*judge_inline({"accuracy": judge, "format": judge}, records, completions))

    options = {"seed": 0, "submit": submit, "records": [{"letter": p} for p in prompts], "prompts": prompts}
    groups = sum(evaluation_batches(sample, Letters(), config, **options), [])
    assert [[r.text for r in group] for group in groups] == [[p, 2 * p, 3 * p] for p in prompts]
    assert all(r.judgements["accuracy"] == ("correct", 1.0, r.text) for group in groups for r in group)
    assert [[r.tokens for r in group] for group in groups] == [[1, 2, 3]] * 5 and groups[0][2].finished
    assert events == ["sample", "submit 6", "sample", "submit 6", "wait", "sample", "submit 3", "wait", "wait"]


def test_verdicts_must_be_as_many_as_responses():
    rollout = Rollout(np.zeros((1, 2, 3)), np.ones((1, 2, 3), bool), None, np.ones((1, 2), bool))
    judging = partial(judge_inline, JUDGES)([RECORD] * 3, ["a", "b", "c"])
    with pytest.raises(ValueError):
        judged_groups(judging, rollout, [["a", "b"]])
