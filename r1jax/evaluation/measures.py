"""What responses are like: shares, scores, lengths, reflection, by family and level."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from r1jax.evaluation.responses import Response
from r1jax.evaluation.statistics import Ratio
from r1jax.rewards.judgement import outcome_rates
from r1jax.tasks.behaviour import REFLECTION_WORDS, Check, read_checks

CHINESE_REFLECTION = ("等等", "不对")
"""How the miniature's authors say "wait" and "no" in Chinese; beside the paper's ten English words."""

_ENGLISH = re.compile(r"\b(" + "|".join(REFLECTION_WORDS) + r")\b", re.IGNORECASE | re.ASCII)

Groups = Sequence[Sequence[Response]]


def family_name(record: dict) -> str:
    """What a record is counted under: the benchmark it is read from, or its family."""
    return record.get("benchmark") or record.get("family") or "problems"


def level_name(record: dict) -> str | None:
    """The level of a record as text: 5 of both 5 and MATH's "Level 5"; None where it has none."""
    level = record.get("level")
    return None if level is None else str(level).removeprefix("Level").strip()


def is_countdown(record: dict) -> bool:
    """Whether checks like `3 * 4 = 12 yes` in a response can be marked."""
    return type(record.get("target")) is int and "numbers" in record


def response_line(record: dict, response: Response) -> dict:
    """A response as JSON, its checks marked where it answers a countdown problem."""
    checks = read_checks(response.text, record["target"]) if is_countdown(record) else []
    return response._asdict() | {"checks": [check._asdict() for check in checks]}


def reflection_counts(text: str) -> Counter:
    """How often a text has each reflection word, in whatever language it is written; upper case is lower case."""
    counts = Counter(word.lower() for word in _ENGLISH.findall(text))
    return counts + Counter({word: text.count(word) for word in CHINESE_REFLECTION})


def mean_over(groups: Groups, value_of: Callable[[Response], float | None]) -> Ratio:
    """The mean of a number over the responses of P groups; those of which it is None do not count."""
    values = [[v for response in group if (v := value_of(response)) is not None] for group in groups]
    return Ratio(np.array([float(sum(v)) for v in values]), np.array([float(len(v)) for v in values]))


def within(ratio: Ratio, chosen) -> Ratio:
    """A mean over some of the problems; `chosen` is [P] bool."""
    return Ratio(np.where(chosen, ratio.parts, 0.0), np.where(chosen, ratio.wholes, 0.0))


def selections(records: Sequence[dict]) -> dict[tuple[str, str | None], np.ndarray]:
    """[P] bool for every family, as (family, None), and for every level in it, as (family, level), in order."""
    keys = [(family_name(record), level_name(record)) for record in records]
    order = lambda key: (key[0], key[1] is not None, len(key[1] or ""), key[1] or "")
    found = sorted({(family, None) for family, _ in keys} | set(keys), key=order)
    return {
        (family, level): np.array([key[0] == family and level in (None, key[1]) for key in keys])
        for family, level in found
    }


def measure_responses(records: Sequence[dict], groups: Groups) -> dict[str, Ratio]:
    """Every mean over the responses to P problems, by problem; see `describe_responses`."""
    names = groups[0][0].judgements.keys() if groups and groups[0] else ()
    result = {"accuracy": mean_over(groups, lambda r: r.correct)}
    if "format" in names:
        result["format_share"] = mean_over(groups, lambda r: r.judgements["format"].outcome == "correct")
    result |= {f"{name}_score": _score(groups, name) for name in names if name not in ("accuracy", "format")}
    result |= _lengths(groups) | _behaviour(records, groups)
    chosen = selections(records)
    alone = len({family for family, _ in chosen}) == 1
    for (family, level), rows in chosen.items():
        if not (alone and level is None):
            place = "" if alone else f"_{family}"
            place += f"_level_{level}" if level is not None else ""
            for name in ("accuracy", "mean_response_tokens"):
                if name in result:
                    result[f"{name}{place}"] = within(result[name], rows)
    return result


def describe_responses(records: Sequence[dict], groups: Groups) -> dict[str, float]:
    """Shares and means over all responses, as flat numbers.

    accuracy, format_share; `<judge>_score`, the mean score of every other judge where it did not fail;
    mean_response_tokens, also of the right (`_correct`) and the wrong (`_wrong`) responses, and truncated_share, where
    lengths are known; reflect_share, responses with a reflection word, and reflection_words, how many a response has.
    By level accuracy_level_3; where there are several families or benchmarks accuracy_gsm8k, accuracy_chains_level_3.

    Of countdown problems: verify_share and retry_share, responses with one and with two checks or more;
    verdict_fidelity, checks whose value and mark are both right; repeat_share, checks of an expression tried before.
    These are 0 where nothing was checked.
    """
    return {name: ratio.value for name, ratio in measure_responses(records, groups).items()}


def judge_outcomes(groups: Groups) -> dict[str, dict[str, float]]:
    """Share of each of the six outcomes, for every judge."""
    flat = [response.judgements for group in groups for response in group]
    return {name: outcome_rates(judgements[name] for judgements in flat) for name in (flat[0] if flat else ())}


def lengths_known(groups: Groups) -> bool:
    """Whether every response says how many tokens it has."""
    return all(response.tokens is not None for group in groups for response in group)


def length_statistics(groups: Groups) -> dict:
    """Mean, median, 90th percentile and maximum of the lengths of all, of the right and of the wrong responses.

    In tokens, or in characters where some response does not say how many tokens it has; "unit" says which.
    """
    known = lengths_known(groups)
    length = lambda response: response.tokens if known else len(response.text)
    flat = [response for group in groups for response in group]
    kinds = {"all": flat, "correct": [r for r in flat if r.correct], "wrong": [r for r in flat if not r.correct]}
    result: dict = {"unit": "tokens" if known else "characters"}
    for kind, responses in kinds.items():
        lengths = np.array([length(response) for response in responses], float)
        if lengths.size:
            median, p90 = np.percentile(lengths, [50, 90])
            figures = {"mean": lengths.mean(), "median": median, "p90": p90, "max": lengths.max()}
            result[kind] = {"responses": lengths.size} | {name: float(value) for name, value in figures.items()}
    return result


def reflection_statistics(groups: Groups) -> dict[str, dict[str, float]]:
    """Of every reflection word: how often it stands in a response on average, and the share of responses with it."""
    counts = [reflection_counts(response.text) for group in groups for response in group]
    return {
        word: {
            "per_response": sum(c[word] for c in counts) / max(1, len(counts)),
            "share": sum(c[word] > 0 for c in counts) / max(1, len(counts)),
        }
        for word in (*REFLECTION_WORDS, *CHINESE_REFLECTION)
    }


def _score(groups: Groups, name: str) -> Ratio:
    return mean_over(groups, lambda r: r.judgements[name].score if r.judgements[name].teaches else None)


def _lengths(groups: Groups) -> dict[str, Ratio]:
    result = {}
    if lengths_known(groups):
        result["mean_response_tokens"] = mean_over(groups, lambda r: r.tokens)
        for kind, right in (("correct", True), ("wrong", False)):
            ratio = mean_over(groups, lambda r, right=right: r.tokens if r.correct == right else None)
            if ratio.wholes.any():
                result[f"mean_response_tokens_{kind}"] = ratio
    if all(response.finished is not None for group in groups for response in group):
        result["truncated_share"] = mean_over(groups, lambda r: not r.finished)
    return result


def _behaviour(records: Sequence[dict], groups: Groups) -> dict[str, Ratio]:
    result = {}
    if any(map(is_countdown, records)):
        checks = [
            [read_checks(response.text, record["target"]) for response in group] if is_countdown(record) else []
            for record, group in zip(records, groups, strict=True)
        ]
        result["verify_share"] = _mean_of([[len(c) >= 1 for c in group] for group in checks])
        result["retry_share"] = _mean_of([[len(c) >= 2 for c in group] for group in checks])
    words = [[reflection_counts(response.text).total() for response in group] for group in groups]
    result["reflect_share"] = _mean_of([[count > 0 for count in group] for group in words])
    result["reflection_words"] = _mean_of(words)
    if "verify_share" in result:
        flat: list[list[Check]] = [[check for c in group for check in c] for group in checks]
        result["verdict_fidelity"] = _mean_of([[check.right for check in group] for group in flat])
        result["repeat_share"] = _mean_of([[check.repeated for check in group] for group in flat])
    return result


def _mean_of(values: Sequence[Sequence[float]]) -> Ratio:
    return Ratio(np.array([float(sum(v)) for v in values]), np.array([float(len(v)) for v in values]))
