"""Windows of a stream of documents, each packed by itself: which documents, into which rows."""

from collections.abc import Sequence

from r1jax.config import UserError
from r1jax.data.mixture import Source
from r1jax.data.packing import TrainingRows, fill_concatenated, fill_separate, plan_best_fit, plan_concatenated


class Windows:
    """The windows of a stream of documents as plans of rows, and the arrays of some rows of a window."""

    def __init__(
        self,
        order: Sequence[tuple[int, int]],
        sources: Sequence[Source],
        length: int,
        packing: str,
        long: str,
        window: int,
    ):
        self._order, self._sources, self._row_length = order, sources, length
        self._packing, self._long, self._window = packing, long, window

    def plan(self, number: int) -> tuple[list[tuple[int, int]], list] | None:
        """Places of a window's documents and their rows; None where the stream has ended before it."""
        start, stop = number * self._window, min((number + 1) * self._window, len(self._order))
        if start >= stop:
            return None
        places = [self._order[position] for position in range(start, stop)]
        lengths = [int(self._sources[source].items.lengths[item]) for source, item in places]
        try:
            if self._packing == "concatenate":
                return places, plan_concatenated(lengths, self._row_length)
            return places, plan_best_fit(lengths, self._row_length, long=self._long)
        except ValueError as error:
            names = [f"{self._sources[source].name}[{item}]" for source, item in places]
            raise UserError(
                f"window {number} cannot be packed: {error}; its documents: {', '.join(names[:3])}, …"
            ) from error

    def fill(self, places: list[tuple[int, int]], rows: list) -> TrainingRows:
        """The arrays of some of the rows of a plan."""
        wanted = {piece.document for row in rows for piece in row}
        documents = {name: self._sources[places[name][0]].items[places[name][1]] for name in wanted}
        fill = fill_concatenated if self._packing == "concatenate" else fill_separate
        return fill(rows, documents, self._row_length)
