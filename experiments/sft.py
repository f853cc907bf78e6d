"""Second fine-tuning (Dev3): the base, again from scratch, on reasoning and general data for a few epochs.

DeepSeek-R1 (Nature 645:633, SI 2.4.2): DeepSeek-V3-Base, not the checkpoint the data came from, is fine-tuned on the
800K samples for 2-3 epochs, batch 128, cosine from 5e-5 to 5e-6, 32,768 tokens.
"""

import dataclasses

from r1jax import launch
from r1jax.optimizer import OptimizerConfig
from r1jax.sft_stage import SftConfig, SftStageConfig, run_sft_stage
from r1jax.tasks import WORLD_MODEL


@dataclasses.dataclass(frozen=True)
class Config(SftStageConfig):
    """Second fine-tuning."""

    workdir: str = "runs/sft"
    """Checkpoints, metrics and summary go here; a stopped run resumes from here."""
    init: str = WORLD_MODEL
    """Workdir of the base."""
    data: tuple[str, ...] = ("runs/rejection_sampling/records",)
    """Records to learn from (docs/data.md): files or folders of conversations or of problems with solutions."""
    sft: SftConfig = SftConfig(
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_updates=10),
        epochs=3, batch_size=32, sequence_length=128,
    )  # fmt: skip


PRESETS = {"miniature": Config(), "paper": Config(sft=SftConfig())}


def main(config: Config) -> None:
    run_sft_stage(config, "sft")


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
