"""A whole GRPO step (rollout, scoring, update) beside Tunix's GRPOLearner and TRL's GRPOTrainer.

The same weights and prompts; one update of all completions, AdamW, a k3 penalty towards a reference, and a reward that
costs nothing. With one update a rollout nobody computes the policy's log-probabilities before it: they are those of the
update itself. With equal lengths nothing ends a completion. For a long tail the weights sample their end of sequence
with about the same probability everywhere, so that every side draws its own lengths from one distribution.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Literal

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
    """Prompts x completions of each x tokens of a prompt x tokens of a completion, all equally long."""
    long_tails: tuple[str, ...] = ("8x8x64x256", "8x8x64x512")
    """The same where lengths are geometric and cut at the last number."""
    mean_tokens: int = 64
    """Mean of the geometric lengths, before they are cut."""
    slots: int = 16
    """Completions of a long tail that r1jax decodes at a time; peers decode all together."""
    halvings: int = 2
    """How often r1jax halves these slots when prompts run out."""
    widths: int = 4
    """Into how many parts r1jax cuts its cache there; a step reads only those that hold something."""
    micro_batches: int = 8
    """Parts into which r1jax cuts a long tail for scoring and update, by length."""
    packing: Literal["none", "rows", "shared_prompts"] = "none"
    """How it lays rows of a long tail out for them; see `--grpo.packing` of the stages."""
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


def compare(config: Config, shape: str, peers: list[Peer], mean_tokens: int) -> dict[str, dict]:
    """Figures of one shape; without `mean_tokens` lengths are equal."""
    prompts, group, slots, length = read_sizes(shape, "4x4x64x128")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_weights(folder / "model", qwen2(config.vocab, config.layers, config.width), mean_tokens)
        path = folder / "prompts.npy"
        np.save(path, draw_tokens(np.random.default_rng(1), config.vocab, prompts, slots))
        settings = {"folder": str(model), "prompts": str(path), "group_size": group, "new_tokens": length}
        settings |= {"clip_epsilon": 0.2, "kl_coef": 0.04, "pad_id": PAD, "eos_id": EOS, "mean_tokens": mean_tokens}
        settings |= {"slots": 0, "halvings": 0, "widths": 1, "micro_batches": 1, "packing": "none"}
        if mean_tokens:
            settings |= {
                name: getattr(config, name) for name in ("slots", "halvings", "widths", "micro_batches", "packing")
            }
        return take_turns(peers, settings, folder, rounds=config.rounds, warmups=2, tune_peers=config.tune_peers)


def main(config: Config) -> None:
    peers = [
        ours("step"),
        Peer("Tunix", "tunix_side", "step", config.tunix_python, "--tunix-python", TUNIX),
        Peer("TRL", "torch_side", "step", config.trl_python, "--trl-python", TORCH),
    ]
    records = []
    mixes = [(shape, 0) for shape in config.shapes] + [(shape, config.mean_tokens) for shape in config.long_tails]
    for shape, mean_tokens in mixes:
        sides = compare(config, shape, peers, mean_tokens)
        records.append({"shape": shape, "mean_tokens": mean_tokens, "sides": sides})
        table = Table("", "seconds", "completion tokens/s", "time", "processor time")
        for name, side in sides.items():
            rate = side["tokens"] / side["seconds"]
            times = f"{side['ratio']:.2f}x", f"{side['work_ratio']:.2f}x"
            table.add_row(name, f"{side['seconds']:.3f}", f"{rate:.0f}", *times)
        lengths = f"long tail, {mean_tokens} in the mean" if mean_tokens else "equal lengths"
        show(f"{shape}, {lengths}: times as a multiple of ours", table, peers)
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "shapes": records})


if __name__ == "__main__":
    launch.run(main, Config)
