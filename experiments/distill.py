"""Distillation: fine-tune a small dense student on the teacher's samples, without reinforcement learning.

DeepSeek-R1 (arXiv 2501.12948, section 2.4; SI Table 3): Qwen2.5 and Llama-3 students on the 800K samples for 2-3
epochs, batch 64, cosine to a tenth of the initial rate, 32,768 tokens. With --teacher, which the paper does not have,
the student also learns the teacher's distribution of every token it is taught.
"""

import dataclasses
from functools import partial

from r1jax import launch
from r1jax.config import UserError
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import forward, output_head, target_logprobs
from r1jax.objectives import distillation_sums, token_divergence
from r1jax.ops.masked import masked_sum
from r1jax.optimizer import OptimizerConfig
from r1jax.policy import Policy, load_policy
from r1jax.sft_stage import Lesson, SftConfig, SftStageConfig, run_sft_stage
from r1jax.tasks import STUDENT_MODEL
from r1jax.train import LossOutput

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
    teacher: str | None = None
    """Workdir of a teacher with the student's tokenizer, whose next-token distributions are learned too."""
    teacher_weight: float = 1.0
    """Weight of the divergence from the teacher beside the loss on the samples."""
    teacher_temperature: float = 1.0
    """Divides the logits of both in the divergence."""
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
    if config.teacher is None:
        return run_sft_stage(config, "distill")
    if config.teacher_weight < 0 or config.teacher_temperature <= 0:
        raise UserError("--teacher-weight must be 0 or more, --teacher-temperature above 0")
    run_sft_stage(config, "distill", partial(imitate_teacher, config))


def imitate_teacher(config: Config, student: Policy, mesh) -> Lesson:
    """The samples, and the teacher's distributions on them. The teacher's weights are read by the loss and never moved.

    Raises:
      UserError: the teacher cannot be read, or has another tokenizer than the student.
    """
    teacher = load_policy(config.teacher, mesh)
    if teacher.tokenizer.model != student.tokenizer.model:
        raise UserError(
            f"--teacher={config.teacher} and --init={config.init} have different tokenizers "
            f"({teacher.tokenizer.vocab_size} and {student.tokenizer.vocab_size} tokens), so their next-token "
            "distributions cannot be compared: choose a student with the teacher's tokenizer, or distill on samples "
            "alone, without --teacher"
        )
    scalars = {"weight": config.teacher_weight, "temperature": config.teacher_temperature}
    scalars["teacher"] = (teacher.params, teacher.router_bias)
    loss = partial(distillation_loss, student.model, teacher.model)
    return Lesson(loss, scalars, {"teacher": teacher.parent.provenance})


def distillation_loss(model: ModelConfig, teacher: ModelConfig, params, router_bias, batch, scalars) -> LossOutput:
    """`distillation_sums` on packed rows; `scalars` has weight, temperature and the teacher as (params, router_bias)."""
    rows, temperature = (batch.tokens, batch.positions), scalars["temperature"]
    hidden, _, load = forward(model, params, router_bias, *rows, segments=batch.segments)
    their_hidden, _, _ = forward(teacher, *scalars["teacher"], *rows, segments=batch.segments)
    head, their_head = output_head(model, params), output_head(teacher, scalars["teacher"][0])
    logprobs, entropy = target_logprobs(model, params, hidden, batch.targets)
    divergence = token_divergence(hidden, head, their_hidden, their_head, temperature=temperature)
    loss, count = distillation_sums(
        logprobs, divergence, batch.loss_mask, weight=scalars["weight"], temperature=temperature
    )
    metrics = {"entropy": entropy, "nll": -logprobs, "teacher_kl": divergence}
    return LossOutput(loss, count, {name: masked_sum(x, batch.loss_mask) for name, x in metrics.items()}, load)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
