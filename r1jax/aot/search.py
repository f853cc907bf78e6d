"""Which mesh, remat and micro-batches to take: candidates compiled one after the other."""

import dataclasses
import itertools
from typing import NamedTuple

from r1jax.aot.measure import compile_case, record_measures
from r1jax.config import UserError
from r1jax.models.config import ModelConfig
from r1jax.sharding import MeshConfig, make_mesh

WIDEST = {"expert": 16, "tensor": 8}
"""Of these axes wider ones are not tried: both move activations in every layer."""


class Tried(NamedTuple):
    """A candidate, compiled."""

    mesh: MeshConfig
    remat: bool
    micro_batches: int
    record: dict

    @property
    def seconds(self) -> float:
        """The least that the program can take; infinite where the compiler found no room."""
        return max(self.record["seconds"].values()) if "seconds" in self.record else float("inf")

    def options(self, program: str) -> str:
        """As they are given to the tool."""
        axes = " ".join(f"--mesh.{axis}={size}" for axis, size in vars(self.mesh).items() if size != 1)
        remat = "--model.remat" if self.remat else "--model.no-remat"
        return f"{axes} {remat} --{program}.micro-batches={self.micro_batches}"

    def cells(self) -> tuple[str, ...]:
        """For a table."""
        room = f"{self.record['headroom']:.0%}" if "headroom" in self.record else "none"
        mesh = " x ".join(f"{axis}={size}" for axis, size in vars(self.mesh).items() if size != 1)
        seconds = f"{self.record['compile_seconds']:.0f}"
        return mesh, str(self.remat), str(self.micro_batches), room, f"{self.seconds:.3g}", seconds


def candidate_meshes(model: ModelConfig, chips: int) -> list[MeshConfig]:
    """Powers of two that multiply to the chips, along axes that heads and experts divide by."""
    powers = [1 << shift for shift in range(chips.bit_length())]
    heads, experts = model.num_kv_heads or model.num_heads, max(model.num_experts, 1)
    fits = lambda axis, size, total: size <= WIDEST[axis] and total % size == 0
    return [
        MeshConfig(fsdp=chips // (expert * tensor), expert=expert, tensor=tensor)
        for expert, tensor in itertools.product(powers, powers)
        if chips % (expert * tensor) == 0 and fits("expert", expert, experts) and fits("tensor", tensor, heads)
    ]


def propose(config, program: str, make_case, chip, devices) -> tuple[list[Tried], Tried | None]:
    """Compile candidates, and return all of them and the fastest that fits with the headroom asked for.

    On every mesh, with and without remat, the fewest micro-batches that fit are sought by bisection over powers of two:
    fewer are faster, for each gathers the weights anew.

    Args:
      config: of tpu_scripts/aot_compile.py.
      program: sft or grpo.
      make_case: (config, program, mesh) -> Case.
      chip, devices: of the slice.

    Raises:
      UserError: the program is another one.
    """
    if program not in ("sft", "grpo"):
        raise UserError(f"--search is for sft and grpo, not for {program}; name one of them first in --programs")
    tried = []

    def attempt(layout: MeshConfig, remat: bool, parts: int) -> Tried | None:
        model = dataclasses.replace(config.model, remat=remat)
        settings = dataclasses.replace(getattr(config, program), micro_batches=parts)
        changed = dataclasses.replace(config, model=model, **{program: settings})
        try:
            case = make_case(changed, program, make_mesh(layout, devices))
        except UserError:  # does not divide over this mesh
            return None
        tried.append(Tried(layout, remat, parts, record_measures(program, model, chip, case, compile_case(case))))
        return tried[-1]

    def fits(found: Tried | None) -> bool:
        return found is not None and found.record.get("headroom", -1.0) >= config.headroom

    for layout, remat in itertools.product(candidate_meshes(config.model, len(devices)), (False, True)):
        rows = rows_of(config, program)
        most = max((rows // (layout.data * layout.fsdp * layout.expert)).bit_length() - 1, 0)
        low, high = 0, most  # exponents
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(attempt(layout, remat, 1 << middle)) else (middle + 1, high)
        if not any(one[:3] == (layout, remat, 1 << low) for one in tried):
            attempt(layout, remat, 1 << low)
    return tried, min(filter(fits, tried), key=lambda one: one.seconds, default=None)


def rows_of(config, program: str) -> int:
    """Rows of one update."""
    if program == "sft":
        return config.sft.batch_size
    return config.grpo.rows_at_a_time * config.grpo.micro_batches
