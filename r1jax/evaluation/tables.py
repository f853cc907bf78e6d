"""Summaries for people: on the terminal and as Markdown."""

from collections.abc import Iterable, Sequence

from rich.table import Table

LABELS = {
    "accuracy": "accuracy (pass@1)",
    "pass_at_": "pass@{}",
    "majority_at_": "majority vote of {}",
    "mean_response_tokens": "response length, tokens",
    "verify_share": "responses that check their work",
    "retry_share": "responses that try again",
    "reflect_share": "responses with a reflection word",
    "reflection_words": "reflection words a response",
    "verdict_fidelity": "checks that are right",
    "repeat_share": "checks of an expression tried before",
    "format_share": "responses in the format",
    "truncated_share": "responses cut off",
}
"""By name, or by the beginning of names that end in a number; also the order of the rows."""


def rows_of(summary: dict) -> dict[str, str]:
    """The names of a summary that have a label, or are the score of a judge, in order, with their labels."""
    found = {}
    for name, label in LABELS.items():
        if name in summary and name != "pass_at_1":
            found[name] = label
        elif name.endswith("_"):
            numbers = sorted(int(n.removeprefix(name)) for n in summary if n.startswith(name))
            found |= {f"{name}{k}": label.format(k) for k in numbers if f"{name}{k}" != "pass_at_1"}
    scores = [name for name in summary if name.endswith("_score")]
    return found | {name: f"mean score, {name.removesuffix('_score')}" for name in scores}


def figure(name: str, value: float) -> str:
    """A number as it is shown: lengths with one decimal, shares with three."""
    return f"{value:.1f}" if "tokens" in name else f"{value:.3f}"


def comparison_table(columns: dict[str, dict]) -> Table:
    """Summaries side by side, a column each, for the terminal."""
    table = Table(title=None, header_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name, label in rows_of(next(iter(columns.values()))).items():
        if all(name in summary for summary in columns.values()):
            cells = [figure(name, summary[name]) for summary in columns.values()]
            if name == "accuracy":
                cells = [f"{cell} ±{s['accuracy_ci95']:.3f}" for cell, s in zip(cells, columns.values(), strict=True)]
            table.add_row(label, *cells)
    return table


def evaluation_markdown(title: str, protocol: Sequence[str], result: dict) -> str:
    """A summary as a Markdown page, with how it was measured above the figures.

    Args:
      title: the heading.
      protocol: sentences.
      result: from `summarize_answers`.
    """
    parts = [f"# {title}", *protocol, _means(result), "## By family and level", _families(result["breakdown"])]
    parts += [f"## Lengths, in {result['lengths']['unit']}", _lengths(result["lengths"])]
    parts += ["## Reflection words", _words(result["reflection"]), "## Outcomes of the judges"]
    return "\n\n".join([*parts, _outcomes(result["outcomes"])]) + "\n"


def _means(result: dict) -> str:
    rows = [
        [label, figure(name, result[name]), _interval(name, result["interval95"][name])]
        for name, label in rows_of(result).items()
    ]
    return _table(["", f"{result['problems']} problems, {result['samples_per_problem']} samples", "95% interval"], rows)


def _families(breakdown: dict) -> str:
    rows = []
    for family, entry in breakdown.items():
        rows.append([family, "all", *_entry(entry)])
        rows += [[family, level, *_entry(part)] for level, part in entry["levels"].items()]
    return _table(["", "level", "problems", "accuracy", "95% interval", "tokens"], rows)


def _entry(entry: dict) -> list[str]:
    tokens = entry.get("mean_response_tokens")
    interval = _interval("accuracy", entry["interval95"]["accuracy"])
    shown = "–" if tokens is None else figure("tokens", tokens)
    return [str(entry["problems"]), figure("accuracy", entry["accuracy"]), interval, shown]


def _lengths(lengths: dict) -> str:
    kinds = [kind for kind in ("all", "correct", "wrong") if kind in lengths]
    names = ("mean", "median", "p90", "max")
    rows = [[kind, str(lengths[kind]["responses"]), *(f"{lengths[kind][n]:.1f}" for n in names)] for kind in kinds]
    return _table(["responses", "number", *names], rows)


def _words(reflection: dict) -> str:
    rows = [[word, f"{v['per_response']:.3f}", f"{v['share']:.3f}"] for word, v in reflection.items() if v["share"]]
    return _table(["word", "times a response", "share of responses"], rows) if rows else "None."


def _outcomes(outcomes: dict) -> str:
    names = list(next(iter(outcomes.values()), {}))
    rows = [[judge, *(f"{rates[name]:.3f}" for name in names)] for judge, rates in outcomes.items()]
    return _table(["judge", *names], rows)


def _interval(name: str, interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{figure(name, interval[0])} to {figure(name, interval[1])}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    line = lambda cells: f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    return "\n".join([line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)])
