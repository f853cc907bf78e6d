"""Random weights in the form of Hugging Face, which every side reads, and the prompts that go with them."""

from pathlib import Path

import numpy as np

from r1jax.interop.hf_config_writing import to_hf_config
from r1jax.interop.safetensors import write_checkpoint
from r1jax.interop.saving import checkpoint_specs
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig

PAD, EOS = 0, 1
"""Token ids that no prompt holds."""

CONSTANT = 32.0
"""First entry of every embedding where a head tells by it how likely the end is: so large that layers hardly move it."""


def qwen2(vocab_size: int, layers: int = 4, embed_dim: int = 256) -> ModelConfig:
    """A Qwen2; by default, with a vocabulary of 4,096, of 6.03M parameters."""
    return ModelConfig(
        vocab_size=vocab_size, num_layers=layers, num_dense_layers=layers, embed_dim=embed_dim, mlp_dim=4 * embed_dim,
        num_heads=8, num_kv_heads=4, head_dim=embed_dim // 8, qkv_bias=True, max_positions=32768, dtype="float32",
    )  # fmt: skip


def write_weights(folder: Path, model: ModelConfig, mean_tokens: int = 0) -> Path:
    """Write a checkpoint of normal numbers of deviation 0.02, norms 1, biases 0, and a tokenizer of numbers.

    The text "17 4 9" is the tokens 17, 4 and 9, so that prompts are equally long for everybody.

    Args:
      folder: made here.
      model: its architecture, with a head of its own.
      mean_tokens: let the model end a sequence with a probability of about one in so many at every token, so that
        lengths are geometric. 0 leaves that token what the others are.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def tensor(spec) -> np.ndarray:
        if "norm" in spec.name:
            return np.ones(spec.shape, np.float32)
        if spec.name.endswith("bias"):
            return np.zeros(spec.shape, np.float32)
        values = 0.02 * rng.standard_normal(spec.shape, np.float32)
        if mean_tokens and spec.name == "model.embed_tokens.weight":
            values[:, 0] = CONSTANT
        if mean_tokens and spec.name == "lm_head.weight":
            values[EOS] = values[:, 0] = 0
            normed = CONSTANT / np.sqrt(CONSTANT**2 / model.embed_dim + 0.02**2)
            values[EOS, 0] = np.log(model.vocab_size / (mean_tokens - 1)) / normed  # the logits of others are about 0
        return values

    specs = checkpoint_specs(model, "float32")
    write_checkpoint(folder, specs, map(tensor, specs), max_shard_bytes=5 << 30)
    token_ids = {"pad_token_id": PAD, "eos_token_id": EOS}
    write_json(folder / "config.json", to_hf_config(model, dtype="float32", token_ids=token_ids))
    vocab = {"<pad>": PAD, "<end>": EOS} | {str(number): number for number in range(EOS + 1, model.vocab_size)}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "<pad>"}
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": words}
    write_json(folder / "tokenizer.json", tokenizer | absent)
    return folder


def draw_tokens(rng: np.random.Generator, vocab_size: int, *shape: int) -> np.ndarray:
    """Random tokens, none of them special."""
    return rng.integers(EOS + 1, vocab_size, shape, dtype=np.int32)
