"""The report of context extension: how many passkeys each model retrieves, by context length and depth."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.stats import binomtest

from r1jax.config import write_whole
from r1jax.metrics import read_json_lines, write_json
from r1jax.report.figures import Panel, curve_figure, saved_figure
from r1jax.report.page import CSS, PAGE


class Grid(NamedTuple):
    """Keys that one model retrieved."""

    title: str
    trained: int
    """Context that its weights have been trained on, in tokens."""
    lengths: Sequence[int]
    """Contexts that it was asked about, ascending."""
    depths: Sequence[float]
    """Where in them the key was, from 0 to 1."""
    correct: Sequence[Sequence[int]]
    """[lengths, depths]."""
    problems: int
    """Problems a cell."""

    def retrieved(self, place: int) -> tuple[float, float, float]:
        """Percentage at one of the lengths, over all depths, and its 95% interval (Wilson)."""
        found = binomtest(int(sum(self.correct[place])), self.problems * len(self.depths))
        low, high = found.proportion_ci(method="wilson")
        return 100 * found.statistic, 100 * low, 100 * high


def write_passkey_report(workdir: Path, grids: Sequence[Grid], phases: Mapping[str, Path]) -> str:
    """Write heat_map.svg, table.md, summary.json and report.html.

    Args:
      workdir: where.
      grids: of models that were asked the same problems.
      phases: title -> folder with the metrics of its training.

    Returns:
      The table.
    """
    svg = saved_figure("passkey retrieval", lambda figure: _draw(figure, grids), size=(9.0, 3.1 * -(-len(grids) // 2)))
    write_whole(workdir / "heat_map.svg", svg)
    table = passkey_table(grids)
    write_whole(workdir / "table.md", table)
    rows = {grid.title: {str(n): grid.retrieved(i) for i, n in enumerate(grid.lengths)} for grid in grids}
    write_json(workdir / "summary.json", {"retrieved_percent_ci95": rows})
    panel = Panel("", "Negative log-likelihood of the key and of the filler.", ("key_nll", "filler_nll"), scale="log")
    curves = [
        curve_figure(read_json_lines(folder / "metrics.jsonl"), panel._replace(title=title))
        for title, folder in phases.items()
    ]
    body = f"{svg[svg.index('<svg') :]}<pre>{html.escape(table)}</pre><div class=grid>{''.join(curves)}</div>"
    page = PAGE.format(title="Passkey retrieval over the extended context", css=CSS, body=body)
    write_whole(workdir / "report.html", page)
    return table


def passkey_table(grids: Sequence[Grid]) -> str:
    """Percentages by model and length as Markdown, and a line that says how many problems they are of."""
    lengths, depths, problems = grids[0].lengths, len(grids[0].depths), grids[0].problems
    lines = ["| keys retrieved, % | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for grid in grids:
        cells = ["{:.0f} ({:.0f}–{:.0f})".format(*grid.retrieved(place)) for place in range(len(lengths))]
        lines.append(f"| {grid.title} | " + " | ".join(cells) + " |")
    counts = f"{problems * depths} held-out problems for each length, {problems} at each of {depths} depths"
    return "\n".join([*lines, "", f"{counts}; 95% intervals (Wilson).", ""])


def _draw(figure, grids: Sequence[Grid]) -> None:
    columns = min(len(grids), 2)
    places = figure.subplots(-(-len(grids) // columns), columns, squeeze=False, sharex=True, sharey=True).flat
    for axes, grid in zip(places, grids):
        image = _draw_map(axes, grid)
    figure.supxlabel("context length, tokens; the line is where training ended", fontsize=10.5)
    figure.supylabel("depth of the key", fontsize=10.5)
    figure.colorbar(image, ax=figure.axes, label="keys retrieved", format="{x:.0%}")


def _draw_map(axes, grid: Grid):
    """One map: a cell for each length and depth with its percentage in it."""
    shares = [[correct / grid.problems for correct in by_depth] for by_depth in zip(*grid.correct, strict=True)]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    for row, by_length in enumerate(shares):
        for column, share in enumerate(by_length):
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5)
    axes.axvline(sum(length <= grid.trained for length in grid.lengths) - 0.5, color="black", linewidth=2)
    axes.set_title(grid.title, fontsize=10.5, loc="left")
    axes.set_xticks(range(len(grid.lengths)), map(str, grid.lengths))
    axes.set_yticks(range(len(grid.depths)), [f"{100 * depth:.0f}%" for depth in grid.depths])
    axes.grid(False)
    return image
