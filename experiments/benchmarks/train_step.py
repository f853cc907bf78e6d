"""A train step of a model of DeepSeek-V3's architecture beside transformers' DeepseekV3ForCausalLM in PyTorch.

The same weights and tokens in float32, next-token loss, clipping by global norm, AdamW on both sides.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the sides

from experiments.benchmarks.sides.compare import TORCH, Comparison, Peer, ours, show, take_turns
from experiments.benchmarks.sides.weights import draw_tokens, write_weights
from r1jax import launch
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Config(Comparison):
    """Tokens a second as ratios; by default of about 20M parameters, of which a token uses 10M."""

    vocab: int = 8192
    """Of the model."""
    layers: int = 9
    """Layers; the first is dense."""
    width: int = 256
    """Of the residual stream; a dense SwiGLU is four times as wide, and an expert half as wide."""
    experts: int = 16
    """Routed experts, four of which a token uses, beside a shared one."""
    rows: int = 8
    """Sequences a step."""
    tokens: int = 256
    """Tokens of each."""
    dispatch: Literal["blocks", "dense", "ragged"] = "blocks"
    """How r1jax runs experts: padded blocks of rows, all on every token, or sorted grouped products."""
    transformers_python: str = ""
    """Interpreter of an environment with torch and transformers; without it transformers is left out."""


def make_model(config: Config) -> ModelConfig:
    """Latent attention, one dense layer, group-limited routing over four groups of which two are used."""
    width = config.width
    return ModelConfig(
        vocab_size=config.vocab, embed_dim=width, num_layers=config.layers, num_dense_layers=1, mlp_dim=4 * width,
        num_heads=8, q_lora_rank=width // 2, kv_lora_rank=width // 4, qk_nope_head_dim=32, qk_rope_head_dim=16,
        v_head_dim=32, num_experts=config.experts, num_experts_per_token=4, num_shared_experts=1,
        expert_mlp_dim=width // 2, num_expert_groups=4, num_limited_groups=2, routed_scaling_factor=1.0,
        max_positions=4096, dtype="float32",
    )  # fmt: skip


def main(config: Config) -> None:
    peers = [
        ours("train"),
        Peer("transformers", "torch_side", "train", config.transformers_python, "--transformers-python", TORCH),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, path = write_weights(folder / "model", make_model(config)), folder / "tokens.npy"
        np.save(path, draw_tokens(np.random.default_rng(1), config.vocab, config.rows, config.tokens))
        settings = {"folder": str(model), "tokens": str(path), "dispatch": config.dispatch}
        sides = take_turns(peers, settings, folder, rounds=config.rounds, tune_peers=config.tune_peers)
    table = Table("", "parameters", "seconds", "tokens/s", "time", "processor time", "last loss")
    for name, side in sides.items():
        rate, loss = side["tokens"] / side["seconds"], side["repeats"][-1]["loss"]
        times = f"{side['ratio']:.2f}x", f"{side['work_ratio']:.2f}x"
        size = f"{side['facts']['parameters'] / 1e6:.2f}M"
        table.add_row(name, size, f"{side['seconds']:.3f}", f"{rate:.0f}", *times, f"{loss:.5f}")
    show("times as a multiple of ours", table, peers)
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "sides": sides})


if __name__ == "__main__":
    launch.run(main, Config)
