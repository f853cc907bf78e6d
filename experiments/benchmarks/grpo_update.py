"""Gradients of the GRPO loss beside the naive form, Tunix and TRL: time and temporary memory, same weights and rollouts.

`logprobs.py` measures the head alone, at the sizes where its logits matter most.
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

    shapes: tuple[str, ...] = ("16x128x4096", "8x512x32768")
    """Completions x tokens x vocabulary."""
    prompt_tokens: int = 64
    """Tokens of each prompt."""
    layers: int = 4
    """Layers of the Qwen2."""
    width: int = 256
    """Its embedding; the SwiGLU is four times as wide. With a vocabulary of 4096 it has 6.03M parameters."""
    tunix_python: str = ""
    """Interpreter of an environment with google-tunix; without it Tunix is left out."""
    trl_python: str = ""
    """Interpreter of an environment with trl; without it TRL is left out."""


def write_rollouts(path: Path, config: Config, batch: int, length: int, vocab: int) -> Path:
    """Random completions of random lengths from half to full, with log-probabilities near those of random weights."""
    rng = np.random.default_rng(1)
    mask = np.arange(length) < rng.integers(length // 2, length + 1, (batch, 1))
    mask[0] = True
    near = lambda: (-np.log(vocab) + 0.1 * rng.standard_normal((batch, length))).astype(np.float32)
    arrays = {
        "prompts": draw_tokens(rng, vocab, batch, config.prompt_tokens),
        "tokens": np.where(mask, draw_tokens(rng, vocab, batch, length), PAD),
        "old_logprobs": near(),
        "ref_logprobs": near(),
    }
    np.savez(path, **arrays, mask=mask, advantages=rng.standard_normal(batch).astype(np.float32))
    return path


def compare(config: Config, shape: str, peers: list[Peer]) -> dict:
    """Figures of one shape."""
    batch, length, vocab = read_sizes(shape, "8x512x32768")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_weights(folder / "model", qwen2(vocab, config.layers, config.width))
        rollouts = write_rollouts(folder / "rollouts.npz", config, batch, length, vocab)
        settings = {"folder": str(model), "rollouts": str(rollouts), "clip_epsilon": 0.2, "kl_coef": 0.04}
        settings |= {"pad_id": PAD, "eos_id": EOS}
        sides = take_turns(peers, settings, folder, rounds=config.rounds, tune_peers=config.tune_peers)
    logits = 4 * batch * length * vocab
    for side in sides.values():
        side["temporary_bytes"] = side.get("temporary_bytes", side["facts"].get("temporary_bytes"))
        side["temporary_of_logits"] = side["temporary_bytes"] / logits
    return {"shape": shape, "logits_bytes": logits, "sides": sides}


def main(config: Config) -> None:
    peers = [
        ours("update"),
        ours("naive", "naive"),
        Peer("Tunix", "tunix_side", "update", config.tunix_python, "--tunix-python", TUNIX),
        Peer("TRL", "torch_side", "update", config.trl_python, "--trl-python", TORCH),
    ]
    records = []
    for shape in config.shapes:
        records.append(record := compare(config, shape, peers))
        table = Table("", "seconds", "time", "processor time", "temporary memory", "of the logits", "loss")
        for name, side in record["sides"].items():
            table.add_row(
                name, f"{side['seconds']:.3f}", f"{side['ratio']:.2f}x", f"{side['work_ratio']:.2f}x",
                f"{side['temporary_bytes'] / 2**20:.0f} MiB", f"{side['temporary_of_logits']:.2f}x",
                f"{side['loss']:.6f}",
            )  # fmt: skip
        show(f"{shape}: times as a multiple of ours", table, peers)
    launch.console.print("memory: what the compiler reserves beside arguments and results; TRL: growth of the process")
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "shapes": records})


if __name__ == "__main__":
    launch.run(main, Config)
