"""Whether the time of a function grows faster than its input."""

import time
from collections.abc import Callable


def growth(function: Callable[[str], object], make: Callable[[int], str], size: int) -> float:
    """Seconds for ten times the size over seconds for the size: about 10 for linear time, 100 for quadratic.

    Processor time, the best of three, so that a busy machine does not change it much.
    """

    def seconds(text: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            function(text)
            times.append(time.process_time() - start)
        return min(times)

    return seconds(make(10 * size)) / max(seconds(make(size)), 1e-4)
