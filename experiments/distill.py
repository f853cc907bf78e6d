"""Distillation: fine-tune a small dense student on the teacher's samples, without reinforcement learning.

DeepSeek-R1 (arXiv 2501.12948, section 2.4; SI Table 3): Qwen2.5 and Llama-3 students on the 800K samples for 2-3
epochs, batch 64, cosine to a tenth of the initial rate, 32,768 tokens.
"""

import dataclasses

from r1jax import launch
from r1jax.optimizer import OptimizerConfig
from r1jax.sft_stage import SftConfig, SftStageConfig, run_sft_stage
from r1jax.tasks import STUDENT_MODEL

LEARNING_RATES = {
    "qwen2.5-math-1.5b": 1e-4, "qwen2.5-math-7b": 8e-5, "qwen2.5-14b": 7e-5, "qwen2.5-32b": 6e-5, "llama-3.1-8b": 5e-5,
    "llama-3.3-70b-instruct": 2e-5,
}  # fmt: skip
"""The paper's, by student (SI Table 3)."""


@dataclasses.dataclass(frozen=True)
class Config(SftStageConfig):
    """Distillation."""

    workdir: str = "runs/distill"
    """Checkpoints, metrics and summary go here; a stopped run resumes from here."""
    init: str = STUDENT_MODEL
    """Workdir of the student."""
    data: tuple[str, ...] = ("runs/rejection_sampling/records",)
    """The teacher's samples, as rejection_sampling writes them."""
    sft: SftConfig = SftConfig(
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_updates=10),
        epochs=3, batch_size=32, sequence_length=128,
    )  # fmt: skip


def paper(student: str) -> Config:
    """The paper's settings for a student."""
    optimizer = OptimizerConfig(learning_rate=LEARNING_RATES[student], schedule="cosine", final_fraction=0.1)
    return Config(sft=SftConfig(optimizer=optimizer, batch_size=64))


PRESETS = {"miniature": Config()} | {student: paper(student) for student in LEARNING_RATES}


def main(config: Config) -> None:
    run_sft_stage(config, "distill")


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
