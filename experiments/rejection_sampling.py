"""Rejection sampling: the data of the second fine-tuning, from the checkpoint of reasoning RL.

DeepSeek-R1 (Nature 645:633, Methods; section 2.3.3 of arXiv 2501.12948 v1): several samples a prompt, kept where they
are correct; thoughts that mix languages, run on in long paragraphs or hold code blocks are dropped. About 600K reasoning
samples are joined by 200K others, written by a careful author: here by the careful ones of the miniature's population.
"""

import dataclasses
from pathlib import Path

import numpy as np

from r1jax import launch
from r1jax.collect import CollectConfig, as_written, collect_stage, conversation, table_5
from r1jax.config import claim_workdir
from r1jax.data.sources import write_json_lines
from r1jax.generation.sampler import SamplingConfig
from r1jax.metrics import write_json
from r1jax.policy import load_policy
from r1jax.provenance import provenance
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks.families import draw_records, read_parts
from r1jax.tasks.solutions import SOLVERS, Author


@dataclasses.dataclass(frozen=True)
class Config:
    """Rejection sampling."""

    workdir: str = "runs/rejection_sampling"
    """responses.jsonl, records/, pass_rates.jsonl and the data card go here; a stopped run resumes from here."""
    init: str = "runs/reasoning_rl"
    """Workdir of the policy to sample from."""
    seed: int = 0
    """Draws the problems, the samples and the general data."""
    data: CollectConfig = CollectConfig(
        parts=("countdown:1", "countdown:2", "chains:1", "countdown:2", "chains:2", "chains:3", "functions:1", "functions:2", "functions:3"),
        problems=1536,
        sampling=SamplingConfig(prompts=64, group_size=8, prompt_slots=24, max_new_tokens=128, halvings=2),
        per_problem=2,
    )  # fmt: skip
    general_parts: tuple[str, ...] = ("requests:1", "requests:2", "requests:3", "safety:1", "safety:2")
    """Families and levels of the data that are not reasoning."""
    general: int = 600
    """Such conversations."""
    careful: float = 0.7
    """Share of their authors who work carefully."""
    mesh: MeshConfig = MeshConfig()


PRESETS = {
    "miniature": Config(),
    "paper": Config(
        data=CollectConfig(parts=Config().data.parts, problems=88_000, sampling=SamplingConfig(), per_problem=8),
        general=200_000,
    ),
}
"""About 600K samples are kept of the 88K prompts of RL; how many of a prompt is not published."""


def main(config: Config) -> None:
    mesh = make_mesh(config.mesh)
    policy = load_policy(config.init, mesh)
    workdir = claim_workdir(config.workdir, "rejection_sampling", config)
    if not (workdir / "card.json").exists():
        reasoning = collect_stage(
            config.data, policy, mesh, workdir=workdir, seed=config.seed, form="chat", rewrite=as_written,
            problem_seed=config.seed + 2000,
        )  # fmt: skip
        general = general_conversations(config)
        records = [*reasoning.conversations, *general]
        (workdir / "records").mkdir(exist_ok=True)
        write_json_lines(records, workdir / "records" / "sft.jsonl")
        tokens = lambda record: sum(
            len(policy.tokenizer.encode(f"{message.get('reasoning', '')} {message['content']}"))
            for message in record["messages"]
        )
        write_card(config, workdir, reasoning, list(table_5(records, tokens)), policy.parent.provenance)
    launch.console.print((workdir / "card.md").read_text(), markup=False)


def general_conversations(config: Config) -> list[dict]:
    """Conversations that are not reasoning, each by an author of its own."""
    rng = np.random.default_rng((config.seed, 3))
    records = draw_records(read_parts(config.general_parts), "train", config.general, rng)
    found = []
    for place, record in enumerate(records):
        author = Author(rng, careful=rng.random() < config.careful, mixes=False, slip=0.0)
        found.append(conversation(record, f"general:{place}", *SOLVERS[record["family"]](author, record)))
    return found


def write_card(config: Config, workdir: Path, reasoning, table: list[dict], parent: dict) -> None:
    """card.md and card.json: the paper's Table 5, what became of the samples, pass rates, provenance."""
    rates = [rate["pass_rate"] for rate in reasoning.pass_rates if rate["pass_rate"] is not None]
    bins = np.histogram(rates, bins=(0, 1e-9, 0.25, 0.5, 0.75, 1 - 1e-9, 1.1))[0].tolist()
    run = provenance("rejection_sampling", config, parent, [workdir / "records" / "sft.jsonl"])
    write_json(workdir / "card.json", {"table": table, "reasons": reasoning.reasons, "pass_rates": bins, "run": run})
    lines = ["# Data card", "", "| domain | samples | mean rounds | mean tokens |", "|---|---|---|---|"]
    lines += [f"| {row['domain']} | {row['samples']} | {row['rounds']:.1f} | {row['tokens']:.1f} |" for row in table]
    lines += ["", "What became of the samples:", "", "| family | " + " | ".join(reason_names(reasoning)) + " |"]
    lines += ["|---" * (1 + len(reason_names(reasoning))) + "|"]
    for family, counts in reasoning.reasons.items():
        lines.append(f"| {family} | " + " | ".join(str(counts.get(name, 0)) for name in reason_names(reasoning)) + " |")
    names = ("0", "to 25%", "to 50%", "to 75%", "below 100%", "100%")
    lines += ["", "Problems by pass rate: " + ", ".join(f"{name}: {n}" for name, n in zip(names, bins, strict=True))]
    (workdir / "card.md").write_text("\n".join(lines) + "\n")


def reason_names(reasoning) -> list[str]:
    """Every reason that came up, what was kept first."""
    names = {name for counts in reasoning.reasons.values() for name in counts} - {"kept"}
    return ["kept", *sorted(names)]


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
