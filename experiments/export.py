"""Turn a policy into a Hugging Face folder: weights, config.json and tokenizer (docs/interop.md).

transformers, and whatever else reads its form, loads the folder; so does --init of every experiment here.
"""

import dataclasses
from pathlib import Path

import jax

from r1jax import launch
from r1jax.config import UserError
from r1jax.data.tokenizer import FILE_NAME
from r1jax.interop.saving import WeightType, save_checkpoint
from r1jax.policy import load_policy
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL


@dataclasses.dataclass(frozen=True)
class Config:
    """Export of a policy."""

    init: str | None = None
    """Workdir of the stage to export, or a Hugging Face folder; by default the base model of the package."""
    target: str = "runs/export"
    """The folder to write; must not exist, or be empty."""
    dtype: WeightType = "bfloat16"
    """Of the weights; fp8 is the form of the released DeepSeek-V3 and R1."""
    shard_gigabytes: float = 5.0
    """Tensors in one file, at most; a larger tensor has a file of its own."""
    mesh: MeshConfig = MeshConfig()


def main(config: Config) -> None:
    if config.shard_gigabytes <= 0:
        raise UserError(f"--shard-gigabytes must be positive, not {config.shard_gigabytes}")
    mesh, target = make_mesh(config.mesh), Path(config.target)
    policy = load_policy(config.init or BASE_MODEL, mesh)
    ends = list(policy.tokenizer.eos_ids)
    ids = {"bos_token_id": policy.tokenizer.bos_id, "eos_token_id": ends if len(ends) > 1 else policy.tokenizer.eos_id}
    with jax.set_mesh(mesh):
        save_checkpoint(
            target,
            policy.model,
            policy.params,
            policy.router_bias,
            dtype=config.dtype,
            token_ids={name: number for name, number in ids.items() if number is not None},
            max_shard_bytes=int(config.shard_gigabytes * 1e9),
            also=policy.tokenizer.save,
        )
    launch.console.print(f"written to {target}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    if (target / FILE_NAME).exists():
        launch.console.print(
            f"[yellow]{FILE_NAME} is a SentencePiece model, for sentencepiece and --init; no tokenizer of transformers "
            "is written, which would split some texts in another way"
        )


if __name__ == "__main__":
    launch.run(main, Config)
