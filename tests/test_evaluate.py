"""experiments/evaluate.py as a process: one that is killed or stopped ends with the bits of one that is not."""

import signal
import time
from pathlib import Path

import pytest

from r1jax.metrics import read_json, read_json_lines

SMALL = (
    "--families countdown:1 sequences:1 --problems 10 --votes 2 --language --sampling.prompts 2 "
    "--sampling.group-size 3 --sampling.max-new-tokens 16 --sampling.halvings 1 --sampling.prompt-slots 120"
).split()


def lines(workdir: Path) -> int:
    path = workdir / "responses.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def finish(process) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


def wait_for_lines(process, workdir: Path, number: int) -> None:
    deadline = time.monotonic() + 300
    while lines(workdir) < number and process.poll() is None:
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory) -> Path:
    """The workdir of an evaluation that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "w"
    output = finish(experiment("evaluate", "--workdir", workdir, *SMALL))
    assert "accuracy (pass@1)" in output and "evaluation.json" in output
    return workdir


def assert_same(workdir: Path, whole: Path) -> None:
    assert (workdir / "responses.jsonl").read_bytes() == (whole / "responses.jsonl").read_bytes()
    assert (workdir / "evaluation.md").read_bytes() == (whole / "evaluation.md").read_bytes()
    assert read_json(workdir / "evaluation.json")["result"] == read_json(whole / "evaluation.json")["result"]


def test_what_an_evaluation_leaves(whole):
    found = read_json(whole / "evaluation.json")
    result, responses = found["result"], read_json_lines(whole / "responses.jsonl")
    assert [line["step"] for line in responses] == list(range(10))
    assert all(len(line["responses"]) == 3 for line in responses)
    right = [r["judgements"]["accuracy"][0] == "correct" for line in responses for r in line["responses"]]
    assert result["accuracy"] == pytest.approx(sum(right) / 30)
    assert {"majority_at_2", "majority_at_3", "pass_at_1", "language_score"} <= result.keys()
    assert "accuracy_countdown_level_1" in result
    assert list(result["breakdown"]) == ["countdown", "sequences"]
    assert found["config"]["sampling"]["temperature"] == 0.6 and found["config"]["sampling"]["top_p"] == 0.95
    assert found["policy"]["folder"] == "base" and "jax" in found["protocol"]["versions"]
    page = (whole / "evaluation.md").read_text()
    for text in ("k = 3 samples each", "Temperature 0.6, top-p 0.95, at most 16 tokens", "base at step", "sympy"):
        assert text in page


def test_killed_and_damaged(experiment, whole, tmp_path):
    """Killed after the second of five batches, then the file cut in the middle of a line, then gone on."""
    workdir = tmp_path / "w"
    process = experiment("evaluate", "--workdir", workdir, *SMALL)
    wait_for_lines(process, workdir, 4)
    process.kill()
    process.wait()
    assert 4 <= lines(workdir) <= 10 and not (workdir / "evaluation.json").exists()
    path = workdir / "responses.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:4])[:-50])
    output = finish(experiment("evaluate", "--workdir", workdir, *SMALL))
    assert_same(workdir, whole)
    assert "10/10" in output
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    process = experiment("evaluate", "--workdir", workdir, *SMALL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "line 4 is of another evaluation" in " ".join(errors.split())


@pytest.mark.slow
def test_stopped_on_request(experiment, whole, tmp_path):
    workdir, options = tmp_path / "w", [*SMALL, "--sampling.prompts", 1]
    process = experiment("evaluate", "--workdir", workdir, *options)
    wait_for_lines(process, workdir, 1)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    done = lines(workdir)
    assert "to resume" in output and f"--workdir {workdir}" in output and 1 <= done < 10
    first = (workdir / "responses.jsonl").read_bytes()
    finish(experiment("evaluate", "--workdir", workdir, *options))
    assert (workdir / "responses.jsonl").read_bytes().startswith(first) and lines(workdir) == 10
    process = experiment("evaluate", "--workdir", workdir, *SMALL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "prompts: 1 -> 2" in errors


def test_a_prompt_that_does_not_fit_costs_nothing(experiment, tmp_path):
    process = experiment("evaluate", "--workdir", tmp_path / "w", *SMALL, "--sampling.prompt-slots", 12)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in errors
    assert "the prompt of sequences:1:" in errors and "use --sampling.prompt-slots" in errors
    assert not (tmp_path / "w").exists()
