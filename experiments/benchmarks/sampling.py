"""Sampling beside Tunix's sampler and transformers' generate on the same weights: equal lengths, and a long tail.

With equal lengths nothing ends a completion. For the long tail every sampler is given the same set of token ids as
ends of a sequence, so many that random weights hit one after a geometric number of tokens; so each draws its own
lengths from the same distribution and stops rows in its own way. Tokens after an end are not counted.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the sides

from experiments.benchmarks.sides.compare import TORCH, TUNIX, Comparison, Peer, ours, show, take_turns
from experiments.benchmarks.sides.weights import EOS, PAD, draw_tokens, qwen2, write_weights
from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig

NEVER = [-1]
"""Ends of a sequence that no token is."""


@dataclasses.dataclass(frozen=True)
class Config(Comparison):
    """Tokens a second of three samplers, as ratios, and our share of what the machine could do."""

    vocab: int = 4096
    """Of the Qwen2; with 4096 it has 6.03M parameters."""
    layers: int = 4
    """Layers of the Qwen2."""
    width: int = 256
    """Its embedding; the SwiGLU is four times as wide."""
    prompt_tokens: int = 64
    """Tokens of each prompt."""
    rows: int = 16
    """Completions at a time: the batch of a static sampler, the slots of ours."""
    new_tokens: int = 128
    """Tokens of each completion where all are equally long."""
    requests: int = 64
    """Completions of the mix of lengths."""
    mean_tokens: int = 64
    """Mean of its geometric lengths, before they are cut."""
    longest: int = 256
    """They are cut after this many tokens."""
    halvings: int = 2
    """How often r1jax halves its slots when requests run out."""
    widths: int = 4
    """Into how many parts r1jax cuts its cache; a step reads only those that hold something."""
    tunix_python: str = ""
    """Interpreter of an environment with google-tunix; without it Tunix is left out."""
    transformers_python: str = ""
    """Interpreter of an environment with torch and transformers; without it transformers is left out."""


def floor(config: Config, model: ModelConfig, machine: dict) -> dict:
    """The least seconds of a decode step of `config.rows` rows in the mean of a rollout with equal lengths.

    Weights are read once, the embedding apart, of which a step reads some rows; so are the keys and values of what came
    before. Products of weights and of attention are counted.
    """
    width, keys = model.embed_dim, sum(model.cache_widths)
    attention = 2 * width * model.num_heads * model.head_dim + width * keys
    weights = model.num_layers * (attention + 3 * width * model.mlp_dim) + width * model.vocab_size
    before = config.prompt_tokens + config.new_tokens / 2
    size = 4 * (weights + config.rows * before * model.num_layers * keys)
    products = 2 * weights + 4 * before * model.num_layers * model.num_heads * model.head_dim
    by_memory = size / machine["bytes_per_second"]
    by_products = config.rows * products / machine["flops_per_second"]
    seconds = {"by_memory": by_memory, "by_products": by_products, "seconds": max(by_memory, by_products)}
    return {"bytes": size, "flops": config.rows * products} | seconds


def compare(config: Config, folder: Path, peers: list[Peer], settings: dict) -> dict[str, dict]:
    """Tokens a second of every side, and ours over theirs in the medians of rounds."""
    sides = take_turns(peers, settings, folder, rounds=config.rounds, tune_peers=config.tune_peers)
    rates = {name: np.array([r["tokens"] / r["seconds"] for r in side["repeats"]]) for name, side in sides.items()}
    work = {name: np.array([r["tokens"] / r["work"] for r in side["repeats"]]) for name, side in sides.items()}
    first = peers[0].name
    for name, side in sides.items():
        side["tokens_per_second"] = float(np.median(rates[name]))
        side["ours_over"] = float(np.median(rates[first] / rates[name]))
        side["ours_over_by_work"] = float(np.median(work[first] / work[name]))
    return sides


def measure(config: Config, folder: Path, model: ModelConfig, peers: list[Peer]) -> dict[str, dict]:
    """Both mixes of lengths, each printed as soon as it is known."""
    ends = np.arange(EOS + 1, EOS + 1 + config.vocab // config.mean_tokens).tolist()
    mixes = {
        "equal": (config.rows, {"eos_ids": NEVER, "new_tokens": config.new_tokens}),
        "long tail": (config.requests, {"eos_ids": ends, "new_tokens": config.longest}),
    }
    common = {"folder": str(write_weights(folder / "model", model)), "pad_id": PAD, "eos_id": EOS}
    common |= {"rows": config.rows, "halvings": config.halvings, "widths": config.widths}
    records, rng = {}, np.random.default_rng(1)
    for mix, (count, settings) in mixes.items():
        path = folder / f"{mix}.npy"
        np.save(path, draw_tokens(rng, config.vocab, count, config.prompt_tokens))
        records[mix] = compare(config, folder, peers, common | settings | {"prompts": str(path)})
        table = Table("", "tokens", "seconds", "tokens/s", "ours over it", "by processor time")
        for name, side in records[mix].items():
            figures = f"{side['tokens']:.0f}", f"{side['seconds']:.3f}", f"{side['tokens_per_second']:.0f}"
            table.add_row(name, *figures, f"{side['ours_over']:.2f}x", f"{side['ours_over_by_work']:.2f}x")
        show(f"{mix} lengths", table, peers)
    return records


def main(config: Config) -> None:
    if not 1 <= config.mean_tokens <= config.vocab // 2:
        raise UserError(f"--mean-tokens must be from 1 to half of --vocab, not {config.mean_tokens}")
    peers = [
        ours("sampling"),
        Peer("Tunix", "tunix_side", "sampling", config.tunix_python, "--tunix-python", TUNIX),
        Peer("transformers", "torch_side", "sampling", config.transformers_python, "--transformers-python", TORCH),
    ]
    model = qwen2(config.vocab, config.layers, config.width)
    with tempfile.TemporaryDirectory() as folder:
        records = measure(config, Path(folder), model, peers)
        machine = take_turns([ours("machine")], {}, Path(folder), rounds=3)["r1jax"]
    least, step = floor(config, model, machine), records["equal"]["r1jax"]["seconds"] / config.new_tokens
    least |= {"step": step, "share_of_memory": least["by_memory"] / step, "share": least["seconds"] / step}
    launch.console.print(
        f"floor of a decode step: {least['bytes'] / 2**20:.1f} MiB at {machine['bytes_per_second'] / 1e9:.1f} GB/s = "
        f"{1e3 * least['by_memory']:.2f} ms; {least['flops'] / 1e6:.0f} MFLOP at "
        f"{machine['flops_per_second'] / 1e9:.0f} GFLOP/s = {1e3 * least['by_products']:.2f} ms; ours, prefill and all "
        f"else included: {1e3 * step:.2f} ms, {least['share_of_memory']:.2f} of the floor of memory, "
        f"{least['share']:.2f} of both",
        soft_wrap=True,
    )
    if config.json:
        record = {"config": dataclasses.asdict(config), "mixes": records, "machine": machine, "floor": least}
        write_json(config.json, record)


if __name__ == "__main__":
    launch.run(main, Config)
