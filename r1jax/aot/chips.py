"""Published figures of TPU chips, and the least time that work takes on them."""

import dataclasses
from typing import NamedTuple

import numpy as np

from r1jax.aot.costs import Collective, Cost
from r1jax.config import UserError


class Chip(NamedTuple):
    """One TPU chip, from the tables "System architecture" of cloud.google.com/tpu/docs (v5e, v5p, v6e).

    The table gives the bandwidth between chips as a sum over links and both directions: v5e 400 GB/s over 4 links, v5p
    1200 GB/s over 6, v6e 800 GB/s over 4. `link` is one link, one direction.
    """

    flops: float
    """A second, of bfloat16 matrix products, dense."""
    hbm: float
    """Bytes of main memory."""
    hbm_bandwidth: float
    """Bytes a second."""
    link: float
    """Bytes a second."""
    wraps: int
    """A side of a slice is closed to a ring where its length is a multiple of this."""


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 50e9, 16),
    "v5p": Chip(459e12, 95e9, 2765e9, 100e9, 4),
    "v6e": Chip(918e12, 32e9, 1638e9, 100e9, 16),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as v5p:8x8x8.

    Raises:
      UserError: its figures are not known here.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise UserError(f"--topology={topology}: figures are known of {', '.join(CHIPS)}, not of {name}")
    return CHIPS[name]


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The least seconds that a program's work takes, by what it waits for; overlapped, the largest is the least."""

    compute: float
    hbm: float
    ici: float

    @property
    def binding(self) -> str:
        return max(dataclasses.asdict(self), key=dataclasses.asdict(self).get)

    @property
    def seconds(self) -> float:
        return max(self.compute, self.hbm, self.ici)


def roofline(chip: Chip, cost: Cost, coordinates: np.ndarray) -> Roofline:
    """The three times of a program's cost on one chip.

    Args:
      coordinates: [devices, 3] places in the slice, in the order of the program's devices.
    """
    ici = sum(collective_seconds(chip, collective, coordinates) for collective in cost.collectives)
    return Roofline(cost.flops / chip.flops, cost.hbm_bytes / chip.hbm_bandwidth, ici)


def collective_seconds(chip: Chip, collective: Collective, coordinates: np.ndarray) -> float:
    """The least time of a collective: its bytes over all links of a chip that lead to other members of its group.

    A side of the slice that closes to a ring has two links at each chip. On one that does not, the chips at its ends
    have one and hold up the others. An all-to-all on a ring of n sends each byte n / 4 links far.
    """
    group = coordinates[collective.groups[0]]
    sides = np.array([len(np.unique(axis)) for axis in group.T])
    if sides.max() == 1:
        return 0.0
    if collective.kind == "collective-permute":
        return collective.bytes / chip.link
    whole = np.array([len(np.unique(axis)) for axis in coordinates.T])
    rings = (sides == whole) & (whole % chip.wraps == 0)
    links = int(np.sum(np.where(rings, 2, 1)[sides > 1]))
    if "all-to-all" in collective.kind:
        longest = int(sides.max())
        each = 2 if rings[sides.argmax()] else 1
        return collective.count * collective.payload * longest / 4 / (each * chip.link)
    return collective.bytes / (links * chip.link)
