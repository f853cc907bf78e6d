"""Stored completions judged against benchmark files, with pass@1 and cons@k counted independently."""

import json
import os
import re
from collections import Counter
from functools import partial
from pathlib import Path

import pool_judges
import pytest

from experiments.evaluate import Config, main
from r1jax.config import UserError
from r1jax.data.prompts import R1_ZERO_SUFFIX
from r1jax.data.tokenizer import load_tokenizer, train_tokenizer
from r1jax.evaluation import Response, summarize_answers
from r1jax.evaluation.files import ResponseLog, Stored, read_completions, stored_batches
from r1jax.evaluation.judges import judges_of, needs_processes, open_judges
from r1jax.evaluation.problems import INSTRUCTION, ask, draw_family_problems, question_text, read_benchmarks
from r1jax.evaluation.votes import ballots
from r1jax.metrics import read_json, read_json_lines
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.sandbox import SandboxUnavailable, probe
from r1jax.rewards.verdict import judge_inline
from r1jax.tasks import BASE_MODEL, functions
from r1jax.tasks.families import FAMILIES, family_reward, read_parts

ASSETS = os.environ.get("R1JAX_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder of published data sets")
SUBMIT = partial(judge_inline, judges_of("r1_zero", language=False))
K = 5


def write_lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def completions_of(records, right, wrong):
    """K completions a problem: problem i has i mod (K + 1) right ones; the others are wrong in two ways, or no answer.

    Returns:
      lines of a completions file, and by hand: whether each is right, and a token for its answer, None for none.
    """
    lines, correct, answers = [], [], []
    for place, record in enumerate(records):
        kinds = ["right"] * (place % (K + 1)) + ["wrong", "wrong", "other", "none", "wrong"]
        kinds = kinds[:K] if place % 2 else kinds[:K][::-1]
        say = {"right": right(record), "wrong": wrong(record, 1), "other": wrong(record, 2), "none": "I do not know."}
        lines.append({"id": record["id"], "completions": [say[kind] for kind in kinds]})
        correct.append([kind == "right" for kind in kinds])
        answers.append([None if kind == "none" else kind for kind in kinds])
    return lines, correct, answers


def count_by_hand(correct, answers):
    """pass@1 and cons@K, counted without anything of r1jax."""
    votes = []
    for row, kinds in zip(correct, answers, strict=True):
        found = Counter(kind for kind in kinds if kind is not None).most_common()
        best = [kind for kind, count in found if count == found[0][1]]
        votes.append(sum(kind == "right" for kind in best) / len(best))
        assert sum(row) == kinds.count("right")
    return sum(map(sum, correct)) / sum(map(len, correct)), sum(votes) / len(votes)


def judge_file(tmp_path, benchmark, right, wrong, count=None):
    """The summary of stored completions beside what was counted by hand."""
    records = read_benchmarks([str(benchmark)], count)
    lines, correct, answers = completions_of(records, right, wrong)
    stored = read_completions(write_lines(tmp_path / "completions.jsonl", lines), records)
    groups = sum(stored_batches(SUBMIT, records, stored, size=7), [])
    assert [[response.correct for response in group] for group in groups] == correct
    votes = [ballots(record, [r.text for r in group]) for record, group in zip(records, groups, strict=True)]
    return summarize_answers(records, groups, votes), count_by_hand(correct, answers)


def boxed(record):
    return f"<think> so </think> The answer is \\boxed{{{record['answer']}}}."


def other_integer(record, step):
    return f"It is \\boxed{{{int(record['answer']) + step}}}."


GRADE_SCHOOL = [
    {"question": f"{a} + {b}?", "answer": f"It is <<{a}+{b}={a + b}>>{a + b:,}.\n#### {a + b:,}"}
    for a, b in zip(range(990, 1014), range(7, 31), strict=True)
]


def solution_of(record):
    """The published solution itself, which ends in a line `#### answer`."""
    return record["solution"]


def other_solution(record, step):
    return record["solution"].rpartition("#### ")[0] + f"#### {int(record['answer']) + step}"


def test_grade_school_from_a_file(tmp_path):
    path = write_lines(tmp_path / "small.jsonl", GRADE_SCHOOL)
    result, (accuracy, consensus) = judge_file(tmp_path, path, solution_of, other_solution)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result[f"majority_at_{K}"] == pytest.approx(consensus, abs=1e-12)
    assert result["problems"] == 24 and list(result["breakdown"]) == ["small"]


@needs_assets
def test_gsm8k(tmp_path):
    path = Path(ASSETS) / "gsm8k" / "test.jsonl"
    result, (accuracy, consensus) = judge_file(tmp_path, path, solution_of, other_solution)
    assert result["problems"] == 1319 and result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result[f"majority_at_{K}"] == pytest.approx(consensus, abs=1e-12)


@needs_assets
@pytest.mark.parametrize("name", ["aime/aime24.json", "aime/aime25.jsonl", "amc/amc23.jsonl"])
def test_competitions(tmp_path, name):
    result, (accuracy, consensus) = judge_file(tmp_path, Path(ASSETS) / name, boxed, other_integer)
    assert result["problems"] in (30, 40) and result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result[f"majority_at_{K}"] == pytest.approx(consensus, abs=1e-12)


@needs_assets
def test_math(tmp_path):
    """Gold answers in LaTeX, and the same values in another spelling; wrong ones are numbers no problem asks for."""

    def spelled(record):
        return boxed(record | {"answer": re.sub(r"\\frac(?=\{)", r"\\dfrac", record["answer"])})

    wrong = lambda record, step: f"\\boxed{{{918273645 + step}}}"
    result, (accuracy, consensus) = judge_file(tmp_path, Path(ASSETS) / "math" / "train.json", spelled, wrong, 500)
    assert result["problems"] == 500 and result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result[f"majority_at_{K}"] == pytest.approx(consensus, abs=1e-12)


def test_levels_of_math_and_multiple_choice(tmp_path):
    row = lambda n: {"problem": f"{n}+1?", "solution": f"\\boxed{{{n + 1}}}", "level": f"Level {n}", "type": "Algebra"}
    rows = [row(4), row(5)]
    choices = [{"family": "math", "id": "q1", "question": "Which is odd?", "answer": "B", "choices": ["2", "3"]}]
    paths = [str(write_lines(tmp_path / "math500.jsonl", rows)), f"quiz={write_lines(tmp_path / 'c.jsonl', choices)}"]
    records = read_benchmarks(paths, None)
    texts = ["\\boxed{5}", "\\boxed{5}", "<think></think> <answer> 3 </answer>"]
    groups = sum(stored_batches(SUBMIT, records, [[Stored(text, 7, True)] for text in texts], size=2), [])
    result = summarize_answers(records, groups, [ballots(r, [g[0].text]) for r, g in zip(records, groups, strict=True)])
    levels = result["breakdown"]["math500"]["levels"]
    assert {level: part["accuracy"] for level, part in levels.items()} == {"4": 1, "5": 0}
    assert result["breakdown"]["quiz"]["accuracy"] == 1 and result["mean_response_tokens"] == 7
    assert question_text(records[2]).endswith(f"Which is odd?\nA) 2\nB) 3\n{INSTRUCTION}")


RECORDS = [{"id": f"s:{n}", "family": "math", "question": "?", "answer": "1"} for n in (1, 2)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": "s:9", "completion": "a"}], "line 1: no problem has the id 's:9'; the first has 's:1'"),
        ([{"index": 2, "completion": "a"}], "index is 2; the problems are 0 to 1"),
        ([{"id": "s:1", "index": 0, "completion": "a"}], "either 'id' or 'index'"),
        ([{"id": "s:1"}], "either 'completion' or 'completions'"),
        ([{"id": "s:1", "completion": ["a"]}], "must be text"),
        ([{"id": "s:1", "completion": "a", "tokens": "3"}], "'tokens' must be int"),
        ([{"id": "s:1", "completions": ["a", "b"], "finished": [True]}], "'finished' must be bool, one for every"),
        ([{"id": "s:1", "completion": "a"}], "1 of 2 problems have no completion, the first of them s:2"),
        ([{"index": 0, "completions": ["a", "b"]}, {"index": 1, "completion": "a"}], "s:1 has 2 completions and s:2 1"),
        (["text"], "line 1: not a JSON object"),
    ],
)
def test_faulty_completions_are_refused(tmp_path, rows, says):
    with pytest.raises(UserError, match=re.escape(says)):
        read_completions(write_lines(tmp_path / "c.jsonl", rows), RECORDS)


def test_completions_come_in_one_line_or_several(tmp_path):
    rows = [
        {"index": 1, "completions": ["c", "d"], "tokens": [3, 4], "finished": [True, False]},
        {"id": "s:1", "completion": "a", "tokens": 1}, {"id": "s:1", "completion": "b", "finished": False},
    ]  # fmt: skip
    found = read_completions(write_lines(tmp_path / "c.jsonl", rows), RECORDS)
    assert found == [[("a", 1, None), ("b", None, False)], [("c", 3, True), ("d", 4, False)]]


def test_a_log_of_another_evaluation_is_refused(tmp_path):
    path = tmp_path / "responses.jsonl"
    groups = [[Response("text", 3, True, {"accuracy": Judgement("wrong", 0.0, "why")})]]
    ResponseLog(path, RECORDS, ["p", "q"], 1, 1).write(groups)
    again = ResponseLog(path, RECORDS, ["p", "q"], 1, 1)
    assert again.groups == groups and type(again.groups[0][0].judgements["accuracy"]) is Judgement
    assert ResponseLog(path, RECORDS, ["p", "q"], 1, 2).groups == [], "half of a batch is sampled again"
    again = ResponseLog(path, RECORDS, ["p", "q"], 1, 1)
    again.write(groups)
    for prompts, samples in ((["other", "q"], 1), (["p", "q"], 2)):
        with pytest.raises(UserError, match="line 1 is of another evaluation"):
            ResponseLog(path, RECORDS, prompts, samples, 1)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_can_be_asked_and_summarised(family):
    """Drawn, put into a prompt, judged by its own judge, summarised."""
    levels = len(read_parts([family.name]))
    records = draw_family_problems([family.name], "held_out", 2 * levels)
    assert len({record["id"] for record in records}) == len(records)
    asked = ask("chat", records, load_tokenizer(BASE_MODEL), 10_000)
    assert all(prompt.endswith(R1_ZERO_SUFFIX) for prompt in asked.prompts)
    assert asked.encode_prompt(asked.prompts[0]) == asked.tokenizer.encode(asked.prompts[0])
    if needs_processes(records[0]):
        judgement = Judgement("wrong", 0.0)
    else:
        judgement = family_reward(records[0], "<think> </think> <answer> strange </answer>")
        assert judgement.outcome == "wrong"
    groups = [[Response("strange", 1, True, {"accuracy": judgement})] * 2 for _ in records]
    result = summarize_answers(records, groups, [ballots(record, ["strange"] * 2) for record in records])
    assert result["accuracy"] == 0 and len(result["breakdown"][family.name]["levels"]) == levels


@pytest.mark.parametrize(
    ("names", "says"),
    [(["nothing:1"], "'nothing:1'"), (["countdown:9"], "the levels of countdown"), (["chess"], "'chess'")],
)
def test_unknown_families_are_refused(names, says):
    with pytest.raises(UserError, match=says):
        draw_family_problems(names, "held_out", 4)


def test_benchmarks_that_cannot_be_told_apart_or_judged(tmp_path):
    path = write_lines(tmp_path / "small.jsonl", GRADE_SCHOOL)
    with pytest.raises(UserError, match="two benchmarks are called 'small'"):
        read_benchmarks([str(path), str(path)], None)
    assert [len(read_benchmarks([str(path), f"b={path}"], n)) for n in (None, 10, 30)] == [48, 10, 30]
    with pytest.raises(UserError, match="no judge is known for records of family 'text'"):
        read_benchmarks([str(write_lines(tmp_path / "t.jsonl", [{"text": "hello"}]))], None)


def test_a_prompt_that_is_too_long_is_named():
    records = draw_family_problems(["countdown:1"], "held_out", 4)
    records[2] = records[2] | {"question": "to make 12 " * 40, "id": "the long one"}
    with pytest.raises(UserError, match=r"the prompt of the long one has \d+ tokens and 12 fit .*prompt-slots \d+"):
        ask("r1_zero", records, load_tokenizer(BASE_MODEL), 12)


def test_the_released_template_needs_its_control_tokens():
    records = draw_family_problems(["countdown:1"], "held_out", 2)
    with pytest.raises(UserError, match="the tokenizer has no piece for <｜User｜>"):
        ask("r1", records, load_tokenizer(BASE_MODEL), 50)
    symbols = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
    texts = [record["question"] + " yes no 0123456789" for record in records] * 20
    tokenizer = train_tokenizer(texts, vocab_size=400, symbols=symbols, byte_fallback=True)
    asked = ask("r1", records, tokenizer, 200)
    ids, (user, assistant) = asked.encode_prompt(asked.prompts[0]), (tokenizer.encode(s)[0] for s in symbols[:2])
    assert ids[:2] == [tokenizer.bos_id, user] and ids.count(assistant) == 1
    assert tokenizer.decode(ids[2 : ids.index(assistant)]) == records[0]["question"] and asked.unreadable == 0
    assert tokenizer.decode(ids[ids.index(assistant) + 1 :]) == "<think>\n" == asked.records[0]["prefill"]
    thought = f" 1 </think> \\boxed{{{'+'.join(map(str, records[0]['numbers']))}}}"
    assert judges_of("r1", language=False)["format"](asked.records[0], thought).outcome == "correct"


def test_the_experiment_judges_a_file(tmp_path):
    """The command itself, with worker processes, and once more when it is done."""
    path = write_lines(tmp_path / "small.jsonl", GRADE_SCHOOL)
    records = read_benchmarks([str(path)], None)
    lines, correct, answers = completions_of(records, solution_of, other_solution)
    stored = write_lines(tmp_path / "c.jsonl", lines)
    config = Config(workdir=str(tmp_path / "w"), benchmark=(str(path),), completions=str(stored), votes=(3,))
    main(config)
    found, workdir = read_json(tmp_path / "w" / "evaluation.json"), tmp_path / "w"
    accuracy, consensus = count_by_hand(correct, answers)
    assert found["result"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert found["result"][f"majority_at_{K}"] == pytest.approx(consensus, abs=1e-12)
    assert 0 < found["result"]["majority_at_3"] < 1 and found["policy"] is None
    assert [fact["name"] for fact in found["protocol"]["files"]] == ["small.jsonl", "c.jsonl"]
    assert "k = 5 samples each" in (workdir / "evaluation.md").read_text()
    assert len(read_json_lines(workdir / "responses.jsonl")) == 24
    before = (workdir / "evaluation.json").read_bytes()
    main(config)
    assert (workdir / "evaluation.json").read_bytes() == before
    write_lines(stored, [*lines[:-1], lines[-1] | {"completions": ["changed"] * K}])
    with pytest.raises(UserError, match=r"was begun with something else"):
        main(config)


def test_contradictions_are_refused(tmp_path):
    with pytest.raises(UserError, match="--completions are judged against a benchmark"):
        main(Config(workdir=str(tmp_path / "w"), completions="c.jsonl"))
    with pytest.raises(UserError, match="--problems must be 1 or more"):
        main(Config(workdir=str(tmp_path / "w"), problems=0))
    with pytest.raises(UserError, match="--votes must be from 1"):
        main(Config(workdir=str(tmp_path / "w"), votes=(17,)))
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(probe().level == "none", reason=f"no sandbox on this host: {probe().description}")
def test_programs_are_judged_in_processes(tmp_path):
    """MBPP's and HumanEval's forms, by the command itself: a right program, a wrong one, none; nothing to vote on."""
    mbpp = {"task_id": 7, "text": "Double n.", "code": "def f(n):\n    return 2 * n", "test_list": ["assert f(4) == 8"]}
    human = {"task_id": "H/0", "prompt": 'def g(n):\n    """n + 1"""\n', "canonical_solution": "    return n + 1\n"}
    human |= {"test": "def check(candidate):\n    assert candidate(1) == 2\n", "entry_point": "g"}
    paths = [str(write_lines(tmp_path / f"{n}.jsonl", [row])) for n, row in (("mbpp", mbpp), ("human", human))]
    block = "<think> x </think>\n```python\n{}\n```"
    rows = [
        {"id": "mbpp:7", "completions": [block.format(mbpp["code"]), block.format("def f(n):\n    return n"), "no"]},
        {"id": "human:H/0", "completions": [block.format(f"def g(n):\n    return n + {step}") for step in (1, 1, 2)]},
    ]
    stored = write_lines(tmp_path / "c.jsonl", rows)
    main(Config(workdir=str(tmp_path / "w"), benchmark=tuple(paths), completions=str(stored), prompt="chat"))
    result = read_json(tmp_path / "w" / "evaluation.json")["result"]
    assert result["breakdown"]["mbpp"]["accuracy"] == pytest.approx(1 / 3)
    assert result["breakdown"]["human"]["accuracy"] == pytest.approx(2 / 3)
    assert result["problems_with_a_vote"] == 0 and "majority_at_3" not in result
    assert result["outcomes"]["accuracy"]["no_answer"] == pytest.approx(1 / 6)
    assert result["outcomes"]["accuracy"]["error"] == 0


def test_programs_are_refused_where_the_host_cannot_isolate_them(monkeypatch):
    """The host of this test can, so what says that it cannot is put in its place."""

    def none(*, allow_unsafe):
        if not allow_unsafe:
            raise SandboxUnavailable("accept the risk with --allow-unsafe-exec")

    monkeypatch.setattr("r1jax.evaluation.judges.require_isolation", none)
    programs = draw_family_problems(["functions:1"], "held_out", 1)
    with pytest.raises(UserError, match="--allow-unsafe-exec"), open_judges(judges_of("chat", language=False), programs, workers=1):
        pass
    with open_judges(judges_of("chat", language=False), RECORDS, workers=1) as submit:
        assert submit(RECORDS, ["<think> </think> \\boxed{1}"] * len(RECORDS)).result()
    judges = judges_of("chat", language=False, allow_unsafe=True)
    with open_judges(judges, programs, workers=1, allow_unsafe=True) as submit:
        text = f"<think> </think> {functions.program(programs[0]['expression'])}"
        assert submit(programs, [text]).result()[0]["accuracy"].outcome == "correct"


def test_a_completion_of_a_problem_is_judged_once(tmp_path):
    record = {"family": "functions", "log": str(tmp_path / "log")}
    with open_judges({"accuracy": pool_judges.logged}, [record], workers=1) as submit:
        given = [record, record, record | {"level": 2}, record]
        verdicts = submit(given, ["ab", "cd", "ab", "ab"]).result()
    assert [verdict["accuracy"].score for verdict in verdicts] == [0.5] * 4
    calls = [line.split()[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert calls == ["\\boxed{1}", "ab", "cd", "ab"]  # the warm-up, and no "ab" twice for the first record
