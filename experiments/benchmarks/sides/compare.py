"""The parent's part of a comparison: sides are started, take turns, and are summed up as medians and ratios."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from r1jax import launch
from r1jax.config import UserError

ROOT = Path(__file__).resolve().parents[3]
MODULE = "experiments.benchmarks.sides."
TUNIX = 'python3.11 -m venv ENV && ENV/bin/pip install google-tunix==0.1.7 "jax<0.11"'
TORCH = "python3.11 -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==5.24.0 trl==1.16.0"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What every comparison can be told."""

    rounds: int = 5
    """Timed repeats of every side, in turn."""
    tune_peers: bool = False
    """Give the peers the allocator setting that r1jax has for itself."""
    json: str = ""
    """The same figures are written here."""


def read_sizes(shape: str, example: str) -> list[int]:
    """Sizes such as 4x4x64x128, as many as the example has.

    Raises:
      UserError: they are not.
    """
    try:
        sizes = [int(size) for size in shape.split("x")]
    except ValueError:
        sizes = []
    if len(sizes) != len(example.split("x")):
        raise UserError(f"--shapes must be like {example}, not {shape}")
    return sizes


@dataclasses.dataclass(frozen=True)
class Peer:
    """Who is compared with ours."""

    name: str
    module: str
    """Below `experiments.benchmarks.sides`."""
    workload: str
    python: str = sys.executable
    """Interpreter of its environment; empty where it is not there."""
    option: str = ""
    """Of the command line, that gives the interpreter."""
    recipe: str = ""
    """How its environment is made."""

    @property
    def note(self) -> str:
        return (
            f"{self.name} is left out: no {self.option} PATH, the interpreter of an environment made by {self.recipe}"
        )


def ours(workload: str, name: str = "r1jax") -> Peer:
    """This project's side, in this environment."""
    return Peer(name, "r1jax_side", workload)


class Side:
    """A running side."""

    def __init__(self, peer: Peer, settings: dict, folder: Path, *, tune_peers: bool):
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        if peer.module == "r1jax_side":
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        elif not tune_peers:  # what `r1jax.launch` sets for itself is no part of other projects
            environment.pop("GLIBC_TUNABLES", None)
        self.peer, self._log = peer, folder / f"{peer.name.replace(' ', '_')}.log"
        self._process = subprocess.Popen(
            [peer.python, "-m", MODULE + peer.module], cwd=folder, env=environment, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log.open("w"),
        )  # fmt: skip
        self.facts = self._ask(settings | {"workload": peer.workload})

    def _ask(self, request: dict) -> dict:
        try:
            print(json.dumps(request), file=self._process.stdin)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            tail = "\n".join(self._log.read_text().splitlines()[-12:])
            raise UserError(f"{self.peer.name} failed with exit code {self._process.wait()}:\n{tail}")
        return json.loads(answer)

    def run(self) -> dict:
        """One timed repeat."""
        return self._ask({})

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def take_turns(
    peers: list[Peer], settings: dict, folder: Path, *, rounds: int, warmups: int = 1, tune_peers: bool = False
) -> dict[str, dict]:
    """Run all sides that are there, `rounds` times, one after the other in each round, every other round backwards.

    Args:
      peers: the first is ours.
      settings: given to every side.
      folder: for what the sides print.
      warmups: rounds before, which are not counted.

    Returns:
      name -> medians of every figure of the repeats, "facts", all "repeats", and "ratio" and "work_ratio": the median
      over rounds of its seconds divided by ours of the same round.
    """
    if rounds < 1:
        raise UserError(f"--rounds must be 1 or more, not {rounds}")
    sides = []
    try:
        for peer in peers:
            if peer.python:
                sides.append(Side(peer, settings, folder, tune_peers=tune_peers))
        repeats = {side.peer.name: [] for side in sides}
        for number in range(warmups + rounds):
            for side in sides if number % 2 else sides[::-1]:
                repeats[side.peer.name].append(side.run())
    finally:
        for side in sides:
            side.close()
    first = repeats[peers[0].name][warmups:]
    return {side.peer.name: _summary(side.facts, repeats[side.peer.name][warmups:], first) for side in sides}


def _summary(facts: dict, repeats: list[dict], first: list[dict]) -> dict:
    median = lambda name: statistics.median(repeat[name] for repeat in repeats)
    over = lambda name: statistics.median(theirs[name] / mine[name] for theirs, mine in zip(repeats, first))
    figures = {name: median(name) for name in repeats[0]}
    return {"facts": facts, "repeats": repeats, "ratio": over("seconds"), "work_ratio": over("work")} | figures


def show(title: str, table: Table, peers: list[Peer]) -> None:
    """Print a table, and how the sides that are missing can be had."""
    launch.console.print(title, style="bold")
    launch.console.print(table)
    for peer in peers:
        if not peer.python:
            launch.console.print(peer.note, markup=False, soft_wrap=True)
