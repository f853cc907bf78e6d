"""Cold start (Dev1): fine-tune the base on a few readable thoughts, collected from R1-Zero.

DeepSeek-R1 (Nature 645:633, Methods and SI 2.3.2): R1-Zero answers thousands of prompts several times at temperature 1;
what is correct and readable is kept, rewritten in one language with a summary for the reader, and the base is
fine-tuned on it. Here templates do the rewriting (r1jax.tasks.rewriting).
"""

import dataclasses

from r1jax import launch
from r1jax.collect import CollectConfig, collect_stage
from r1jax.config import claim_workdir
from r1jax.generation.sampler import SamplingConfig
from r1jax.models.config import Dtype
from r1jax.optimizer import OptimizerConfig
from r1jax.policy import load_policy
from r1jax.provenance import provenance
from r1jax.sft_stage import SftConfig, fine_tune, read_documents
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import WORLD_MODEL
from r1jax.tasks.rewriting import rewrite


@dataclasses.dataclass(frozen=True)
class Config:
    """Cold start."""

    workdir: str = "runs/cold_start"
    """Samples, the data kept of them, checkpoints and metrics go here; a stopped run resumes from here."""
    init: str | None = None
    """Workdir of the base; by default the one of the miniature world that comes with the package."""
    teacher: str = "runs/world_r1_zero"
    """Workdir of R1-Zero, whose samples the data are made of."""
    seed: int = 0
    """Draws the problems, the samples and the order of the documents."""
    data: CollectConfig = CollectConfig(
        parts=("countdown:1", "chains:1", "countdown:2", "chains:2", "countdown:1", "chains:3", "functions:1", "functions:2"),
        problems=768,
        sampling=SamplingConfig(prompts=64, group_size=8, prompt_slots=24, max_new_tokens=128, halvings=2),
        one_language=False,  # the rewriting sees to it
    )  # fmt: skip
    sft: SftConfig = SftConfig(
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_updates=5),
        epochs=3, batch_size=32, sequence_length=128,
    )  # fmt: skip
    dtype: Dtype | None = None
    """Of activations and matrix products, in this stage and those after it; by default the parent's. Parameters stay
    float32."""
    mesh: MeshConfig = MeshConfig()


PRESETS = {
    "miniature": Config(),
    "paper": Config(
        data=CollectConfig(parts=Config().data.parts, problems=5000, sampling=SamplingConfig(), one_language=False),
        sft=SftConfig(),
    ),
}


def main(config: Config) -> None:
    mesh, init = make_mesh(config.mesh), config.init or WORLD_MODEL
    base, teacher = load_policy(init, mesh, dtype=config.dtype), load_policy(config.teacher, mesh)
    workdir = claim_workdir(config.workdir, "cold_start", config)
    data = workdir / "conversations.jsonl"
    if not data.exists():
        collect_stage(
            config.data, teacher, mesh, workdir=workdir, seed=config.seed, form="r1_zero", rewrite=rewrite,
            problem_seed=config.seed + 1000,
        )  # fmt: skip
    documents = read_documents([str(data)], base.tokenizer)
    run = provenance("cold_start", config, base.parent.provenance, [data]) | {"teacher": teacher.parent.provenance}
    summary = fine_tune(base, documents, config.sft, workdir=workdir, mesh=mesh, seed=config.seed, run=run)
    launch.console.print(f"{summary['documents']} documents, loss {summary['loss']:.4f}: {workdir}", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
