"""A whole GRPO step (rollout, scoring, update) beside Tunix's GRPOLearner and TRL's GRPOTrainer.

The same weights, prompts and lengths, where nothing ends a completion; one update of all completions, AdamW, a k3
penalty towards a reference, and a reward that costs nothing. With one update a rollout nobody computes the policy's
log-probabilities before it: they are those of the update itself.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the sides

from experiments.benchmarks.sides.compare import TORCH, TUNIX, Comparison, Peer, ours, read_sizes, show, take_turns
from experiments.benchmarks.sides.weights import EOS, PAD, draw_tokens, qwen2, write_weights
from r1jax import launch
from r1jax.metrics import write_json


@dataclasses.dataclass(frozen=True)
class Config(Comparison):
    """A table of ratios, one for each shape."""

    shapes: tuple[str, ...] = ("4x4x64x128", "8x8x64x256")
    """Prompts x completions of each x tokens of a prompt x tokens of a completion."""
    vocab: int = 4096
    """Of the Qwen2; with 4096 it has 6.03M parameters."""
    layers: int = 4
    """Layers of the Qwen2."""
    width: int = 256
    """Its embedding; the SwiGLU is four times as wide."""
    tunix_python: str = ""
    """Interpreter of an environment with google-tunix; without it Tunix is left out."""
    trl_python: str = ""
    """Interpreter of an environment with trl; without it TRL is left out."""


def compare(config: Config, shape: str, peers: list[Peer]) -> dict[str, dict]:
    """Figures of one shape."""
    prompts, group, slots, length = read_sizes(shape, "4x4x64x128")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_weights(folder / "model", qwen2(config.vocab, config.layers, config.width))
        path = folder / "prompts.npy"
        np.save(path, draw_tokens(np.random.default_rng(1), config.vocab, prompts, slots))
        settings = {"folder": str(model), "prompts": str(path), "group_size": group, "new_tokens": length}
        settings |= {"clip_epsilon": 0.2, "kl_coef": 0.04, "pad_id": PAD, "eos_id": EOS}
        return take_turns(peers, settings, folder, rounds=config.rounds, warmups=2, tune_peers=config.tune_peers)


def main(config: Config) -> None:
    peers = [
        ours("step"),
        Peer("Tunix", "tunix_side", "step", config.tunix_python, "--tunix-python", TUNIX),
        Peer("TRL", "torch_side", "step", config.trl_python, "--trl-python", TORCH),
    ]
    records = []
    for shape in config.shapes:
        sides = compare(config, shape, peers)
        records.append({"shape": shape, "sides": sides})
        table = Table("", "seconds", "completion tokens/s", "time", "processor time")
        for name, side in sides.items():
            rate = side["tokens"] / side["seconds"]
            times = f"{side['ratio']:.2f}x", f"{side['work_ratio']:.2f}x"
            table.add_row(name, f"{side['seconds']:.3f}", f"{rate:.0f}", *times)
        show(f"{shape}: times as a multiple of ours", table, peers)
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "shapes": records})


if __name__ == "__main__":
    launch.run(main, Config)
