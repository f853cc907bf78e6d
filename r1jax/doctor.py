"""What in the first rollouts would keep the reward flat, said in words."""

from collections import Counter
from collections.abc import Sequence

from r1jax.evaluation import Response
from r1jax.rewards.format import format_problem
from r1jax.rewards.judgement import TEACHING_OUTCOMES, Judgement


def diagnose(
    prompts: Sequence[str], groups: Sequence[Sequence[Response]], metrics: dict, *, max_new_tokens: int
) -> list[str]:
    """Findings on one iteration, the most damaging first; empty where nothing stands in the way of learning.

    Args:
      prompts: P texts as the model saw them.
      groups: P groups of G judged responses.
      metrics: of the iteration, from `make_grpo_iteration`.
      max_new_tokens: limit of a response.
    """
    flat = [response for group in groups for response in group]
    share = lambda predicate: sum(map(bool, map(predicate, flat))) / len(flat)
    percent = lambda value: f"{100 * value:.0f}%"
    outcomes = metrics["outcomes"]["accuracy"]
    findings = []

    if metrics["sampler_mismatch"] > 1e-2:
        routing = metrics.get("routing_difference")
        routed = "" if routing is None else f"; {percent(routing)} of the routing decisions differ"
        findings.append(
            f"sampler and trainer disagree by {metrics['sampler_mismatch']:.2g} nats a token "
            f"(largest {metrics['sampler_mismatch_max']:.2g}{routed}): they do not compute the same policy. Look at "
            "temperature, precision and expert routing before anything else."
        )
    findings += [_undecided(name, rates, flat) for name, rates in metrics["outcomes"].items() if _failed(name, flat)]
    truncated = metrics["truncated_share"]
    if truncated > 0.2:
        findings.append(
            f"{percent(truncated)} of the responses were cut at {max_new_tokens} tokens and cannot score; raise "
            "max_new_tokens, or check that the base model emits end-of-sequence"
        )
    if share(lambda r: r.finished) == 0:
        findings.append("no response ended by itself: end-of-sequence is never sampled; is it the tokenizer's?")
    if outcomes["no_answer"] > 0.5:
        findings.append(
            f"no answer could be read from {percent(outcomes['no_answer'])} of the responses{_why_unread(flat)}"
        )
    if metrics["format_share"] < 0.5:
        problems = Counter(format_problem(r.text) for r in flat)
        problems.pop(None, None)
        most = ", ".join(f"{what} ({percent(n / len(flat))})" for what, n in problems.most_common(3))
        findings.append(f"only {percent(metrics['format_share'])} of the responses keep the format; the rest: {most}")
    if any(prompt.rstrip().endswith("<think>") for prompt in prompts) and share(lambda r: "<think>" in r.text) < 0.5:
        findings.append(
            "the prompt already opens <think>, so responses lack it and the format reward stays 0: drop one of the two"
        )
    flat_groups = metrics["zero_variance_groups"]
    if flat_groups > 0.5:
        why = "always right" if metrics["accuracy"] > 0.5 else "never right"
        findings.append(
            f"{percent(flat_groups)} of the groups have one reward throughout and give no gradient (mostly {why}): "
            f"{'harder' if metrics['accuracy'] > 0.5 else 'easier'} problems or a larger group_size would help"
        )
    if metrics["accuracy"] == 0:
        findings.append(
            "not one response is right: outcome reward has nothing to amplify; check an answer by hand, or start easier"
        )
    return findings


def _failed(name: str, flat: Sequence[Response]) -> list[Judgement]:
    return [r.judgements[name] for r in flat if not r.judgements[name].teaches]


def _undecided(name: str, rates: dict[str, float], flat: Sequence[Response]) -> str:
    failed = _failed(name, flat)
    shares = [f"{o} {100 * rate:.0f}%" for o, rate in rates.items() if rate and o not in TEACHING_OUTCOMES]
    reasons = Counter(judgement.reason for judgement in failed if judgement.reason).most_common(1)
    example = f". Most often: {reasons[0][0][:200]}" if reasons else ""
    return (
        f"the judge of {name} could not decide on {100 * len(failed) / len(flat):.0f}% of the responses "
        f"({', '.join(shares)}); where it enters the reward they teach nothing{example}"
    )


def _why_unread(flat: Sequence[Response]) -> str:
    unread = [r for r in flat if r.judgements["accuracy"].outcome == "no_answer"]
    cut = sum(not r.finished for r in unread)
    problems = Counter(format_problem(r.text) for r in unread if r.finished)
    parts = [f"{cut} were cut off"] * bool(cut) + [f"{n} {what}" for what, n in problems.most_common(2) if what]
    return f" ({'; '.join(parts)}). Example: {unread[0].text[:120]!r}"
