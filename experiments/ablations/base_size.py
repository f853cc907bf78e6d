"""Pre-training of bases that are smaller than the miniature's: what a base must be able to carry for RL to work."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that `python FILE` finds the experiment it varies

from experiments import pretrain
from r1jax import launch
from r1jax.data.tokenizer import load_tokenizer
from r1jax.models.config import ModelConfig
from r1jax.tasks import BASE_MODEL


@dataclasses.dataclass(frozen=True)
class Config(pretrain.Config):
    """Pre-training of a base of another size."""

    workdir: str = "runs/base_size"
    """Checkpoints and metrics go here; an interrupted run resumes from here."""
    tokenizer: str = BASE_MODEL
    """Folder with a tokenizer; by default the one that comes with the package."""
    embed_dim: int = 32
    """Width of the residual stream; the miniature has 128. The widths of the parts follow it."""
    num_layers: int = 3
    """Layers, the first of them dense; the miniature has 3."""


def scaled(model: ModelConfig, embed_dim: int) -> ModelConfig:
    """A model with all widths but those of positions and heads in proportion to that of its residual stream."""
    widths = ("embed_dim", "mlp_dim", "q_lora_rank", "kv_lora_rank", "v_head_dim", "expert_mlp_dim")
    return dataclasses.replace(model, **{name: getattr(model, name) * embed_dim // model.embed_dim for name in widths})


def main(config: Config) -> None:
    tokenizer = load_tokenizer(config.tokenizer)
    model = scaled(pretrain.choose_model(config, tokenizer.vocab_size), config.embed_dim)
    pretrain.run(config, tokenizer, dataclasses.replace(model, num_layers=config.num_layers))


if __name__ == "__main__":
    launch.run(main, Config)
