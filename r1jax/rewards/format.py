"""The output format of DeepSeek-R1-Zero: <think> reasoning </think> <answer> answer </answer>, and nothing else."""

from r1jax.rewards.judgement import Judgement

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_problem(completion: str) -> str | None:
    """What first breaks the format, in words; None where the whole string obeys it.

    The grammar covers the whole completion: each tag exactly once, in order, only white space outside the two blocks,
    and a non-empty answer. Unlike a regular expression it cannot match part of a longer text.
    """
    for tag in TAGS:
        count = completion.count(tag)
        if count == 0:
            return f"missing {tag}"
        if count > 1:
            return f"{tag} more than once"
    places = [completion.index(tag) for tag in TAGS]
    if places != sorted(places):
        return "tags out of order"
    before, rest = completion.split("<think>")
    between, rest = rest.split("</think>")[1].split("<answer>")
    answer, after = rest.split("</answer>")
    if before.strip():
        return "text before <think>"
    if between.strip():
        return "text between </think> and <answer>"
    if after.strip():
        return "text after </answer>"
    if not answer.strip():
        return "empty answer"
    return None


def format_reward(record: dict, completion: str) -> Judgement:
    """1 where the completion obeys the format of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2), else 0.

    `record` is not read; it is there because every reward is called the same way.
    """
    ok = format_problem(completion) is None
    return Judgement("correct" if ok else "wrong", float(ok))


def extract_answer(completion: str) -> str | None:
    """The text of the answer block after the reasoning has ended, stripped; None where there is none.

    Only what follows the last </think> counts, so an answer inside the reasoning is never read. Of several answer
    blocks none is taken: the completion has not committed itself.
    """
    _, closed, conclusion = completion.rpartition("</think>")
    if not closed or conclusion.count("<answer>") != 1 or conclusion.count("</answer>") != 1:
        return None
    answer = conclusion.partition("<answer>")[2].partition("</answer>")
    return answer[0].strip() or None if answer[1] else None
