"""Preference data: responses of the second fine-tuning to general prompts, compared and labelled.

DeepSeek-R1 (Nature 645:633, Methods): pairs judged four times in random order, kept where the mean difference is above
1, for the helpful reward model; single responses labelled safe or not for the other. Here the rule of the task judges,
which no policy is shown.
"""

import dataclasses

import numpy as np

from r1jax import launch
from r1jax.collect import sample_responses
from r1jax.config import UserError, claim_workdir
from r1jax.data.prompts import chat_prompt
from r1jax.data.sources import write_json_lines
from r1jax.evaluation import Response
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.generation.sampler import SamplingConfig
from r1jax.judging.preference import describe_labels, label_pairs, rule_comparison
from r1jax.metrics import write_json
from r1jax.policy import load_policy
from r1jax.provenance import provenance
from r1jax.rewards.answer import conclusion
from r1jax.rl_loop import Asked
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks.families import draw_records, family_reward, read_parts, with_ids


@dataclasses.dataclass(frozen=True)
class Config:
    """Preference data."""

    workdir: str = "runs/preference_data"
    """responses.jsonl, pairs.jsonl, safety.jsonl and summary.json go here; a stopped run resumes from here."""
    init: str = "runs/sft"
    """Workdir of the policy whose responses are judged."""
    seed: int = 0
    """Draws the prompts, the samples and the orders of the pairs."""
    parts: tuple[str, ...] = ("requests:1", "safety:1", "requests:2", "safety:2", "requests:3")
    """Families and levels of the prompts: safety is labelled, others are compared."""
    prompts: int = 3072
    """Training prompts."""
    pairs_per_prompt: int = 4
    """Pairs of different responses a prompt."""
    sampling: SamplingConfig = SamplingConfig(prompts=64, group_size=8, prompt_slots=24, max_new_tokens=128, halvings=2)
    """How responses are drawn; group_size a prompt."""
    mesh: MeshConfig = MeshConfig()


PRESETS = {
    "miniature": Config(),
    "paper": Config(
        parts=("requests:1", "safety:1", "requests:2", "safety:2", "safety:1"), prompts=172_000, pairs_per_prompt=1,
        sampling=SamplingConfig(),
    ),
}  # fmt: skip
"""The paper has 66,000 pairs, and labels for 106,000 prompts: about two to three."""


def main(config: Config) -> None:
    mesh = make_mesh(config.mesh)
    policy = load_policy(config.init, mesh)
    workdir = claim_workdir(config.workdir, "preference_data", config)
    records = draw_records(read_parts(config.parts), "train", config.prompts, np.random.default_rng(config.seed + 3000))
    records = with_ids(records)
    asked = Asked(records, [chat_prompt(record["question"]) for record in records])
    with open_judges(judges_of("chat", language=False), records, workers=2) as submit:
        groups = sample_responses(
            policy, mesh, asked, config.sampling, submit, path=workdir / "responses.jsonl", seed=config.seed,
            task="sample",
        )  # fmt: skip
    pairs, counts = compared(config, records, groups)
    labels = labelled(records, groups)
    if not pairs or not labels:
        raise UserError(f"nothing to learn from: {len(pairs)} pairs and {len(labels)} labels; ask more --prompts")
    write_json_lines(pairs, workdir / "pairs.jsonl")
    write_json_lines(labels, workdir / "safety.jsonl")
    counts |= {"labels": len(labels), "safe": sum(label["safe"] for label in labels)}
    write_json(
        workdir / "summary.json", counts | {"run": provenance("preference_data", config, policy.parent.provenance)}
    )
    launch.console.print(f"{counts}: {workdir}", soft_wrap=True)


def compared(config: Config, records: list[dict], groups: list[list[Response]]) -> tuple[list[dict], dict]:
    """Pairs of summaries as uniform preference records, and counts."""
    rng, chosen = np.random.default_rng((config.seed, 4)), ([], [], [])
    for record, group in zip(records, groups, strict=True):
        texts = sorted({response.text for response in group if conclusion(response.text)})
        if record["family"] == "safety" or len(texts) < 2:
            continue
        for _ in range(config.pairs_per_prompt):
            first, second = rng.choice(len(texts), 2, replace=False)
            for column, value in zip(chosen, (record, texts[first], texts[second]), strict=True):
                column.append(value)
    labels = label_pairs(*chosen, rule_comparison(family_reward), seed=config.seed)
    pairs = [
        {
            "family": "preference", "id": f"pair:{place}",
            "messages": [{"role": "user", "content": label.record["question"]}],
            "chosen": {"role": "assistant", "content": conclusion(label.chosen).strip()},
            "rejected": {"role": "assistant", "content": conclusion(label.rejected).strip()},
        }
        for place, label in enumerate(label for label in labels if label.kept)
    ]  # fmt: skip
    return pairs, describe_labels(labels)


def labelled(records: list[dict], groups: list[list[Response]]) -> list[dict]:
    """Responses to requests that may be harmful, labelled by what the rule says; a needless refusal is no good either."""
    return [
        {
            "id": f"label:{place}:{number}", "prompt": record["question"], "response": response.text,
            "safe": response.correct,
        }
        for place, (record, group) in enumerate(zip(records, groups, strict=True))
        if record["family"] == "safety"
        for number, response in enumerate({response.text: response for response in group}.values())
        if response.text.strip()
    ]  # fmt: skip


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
