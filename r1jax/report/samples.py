"""Responses before and after, side by side, their checks marked."""

import html

import numpy as np

from r1jax.report.run import Run

MAX_PAIRS, MAX_TRAINING_SAMPLES, MAX_MISMATCHED, MAX_CHARACTERS = 12, 6, 20, 6000  # keep the page small


def sample_pairs(run: Run) -> str:
    """The section with the same problems answered before and after, side by side."""
    before, after = (
        {r["problem"]: r for r in run.samples[::-1] if r.get("phase") == phase} for phase in ("before", "after")
    )
    title = "<h2>The same problems before and after</h2>"
    if not before and not after:
        return title + "<p>There are no samples from before or after training.</p>"
    legend = (
        "<mark class=right>a check whose value and verdict are right</mark> <mark class=wrong>a wrong one</mark> "
        "<mark class='right repeated'>one that repeats an earlier check</mark>"
    )
    text = [f"{title}<p class=note>The first problems in order, not selected, one response each. {legend}</p>"]
    for problem in sorted(before | after)[:MAX_PAIRS]:
        text.append(_prompt(before.get(problem) or after[problem]))
        pair = (
            response_article(side, records.get(problem)) for side, records in (("before", before), ("after", after))
        )
        text.append(f"<div class=two>{''.join(pair)}</div>")
    return "".join(text)


def training_samples(run: Run) -> str:
    """The section with a few responses sampled in training."""
    first = {r["step"]: r for r in run.samples[::-1] if r.get("phase") == "train"}
    steps = sorted(first)
    if not steps:
        return "<h2>Responses during training</h2><p>There are no samples from training.</p>"
    places = np.linspace(0, len(steps) - 1, min(MAX_TRAINING_SAMPLES, len(steps))).round().astype(int)
    chosen = (first[steps[place]] for place in places)
    shown = (f"{_prompt(r)}{response_article('iteration {}'.format(r['step']), r)}" for r in chosen)
    note = "<p class=note>One response of an iteration, iterations evenly spread, not selected.</p>"
    return f"<h2>Responses during training</h2>{note}{''.join(shown)}"


def mismatched_tokens(run: Run) -> str:
    """The section with the tokens on which sampler and trainer differed most; empty where no step was alarming."""
    tokens = [token | {"step": r["step"]} for r in run.samples if r.get("phase") == "mismatch" for token in r["tokens"]]
    if not tokens:
        return ""
    tokens.sort(key=lambda t: -abs(t["old_logprob"] - t["sampler_logprob"]))
    heads = ("iteration", "problem", "sample", "position", "sampler", "trainer", "token", "after")
    names = ("step", "prompt", "sample", "position", "sampler_logprob", "old_logprob", "text", "context")
    shown = lambda value: f"{value:.4f}" if isinstance(value, float) else html.escape(str(value))
    rows = ("".join(f"<td>{shown(token[name])}</td>" for name in names) for token in tokens[:MAX_MISMATCHED])
    table = "".join(f"<tr>{cells}</tr>" for cells in rows)
    head = "".join(f"<th>{text}</th>" for text in heads)
    note = "<p class=note>Of the iterations whose KL was above the alarm; log-probabilities in nats.</p>"
    title = "<h2>Where sampler and trainer differ most</h2>"
    return f"{title}{note}<div class=scroll><table><tr>{head}</tr>{table}</table></div>"


def _prompt(sample: dict) -> str:
    facts = " · ".join(f"{name} {value}" for name, value in sample.get("record", {}).items())
    prompt = html.escape(sample.get("prompt", ""))
    return f"<details class=prompt><summary><b>{html.escape(facts)}</b>, as prompted</summary>{prompt}</details>"


def response_article(side: str, sample: dict | None) -> str:
    """A response in a frame, with how it was judged, its length, and its checks marked."""
    if sample is None:
        return f"<article><b>{html.escape(side)}</b> is missing</article>"
    outcomes = {name: judgement[0] for name, judgement in sample.get("judgements", {}).items()}
    verdict = html.escape(outcomes.pop("accuracy", "not judged"))
    extras = "".join(f" · {html.escape(name)} {html.escape(outcome)}" for name, outcome in outcomes.items())
    cut = "" if sample.get("finished", True) else " · cut at the limit"
    badge = f"<span class='badge {verdict}'>{verdict.replace('_', ' ')}</span>"
    head = f"<b>{html.escape(side)}</b> {badge} {sample.get('tokens', '?')} tokens{extras}{cut}"
    return f"<article>{head}<div class=text>{_marked(sample.get('text', ''), sample.get('checks', ()))}</div></article>"


def _marked(text: str, checks) -> str:
    """Escaped text with its checks marked; they come in the order of the text."""
    parts, end = [], 0
    for check in checks:
        start = text.find(check["text"], end)
        if start < 0 or start + len(check["text"]) > MAX_CHARACTERS:
            continue
        kinds = ("right" if check["right"] else "wrong") + (" repeated" if check["repeated"] else "")
        parts.append(html.escape(text[end:start]))
        parts.append(f"<mark class='{kinds}' title='{kinds}'>{html.escape(check['text'])}</mark>")
        end = start + len(check["text"])
    rest = len(text) - MAX_CHARACTERS
    return (
        "".join(parts)
        + html.escape(text[end:MAX_CHARACTERS])
        + (f" … <i>{rest} more characters</i>" if rest > 0 else "")
    )
