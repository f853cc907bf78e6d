"""Evaluate a policy, or completions stored by anybody, with the paper's protocol: pass@1, cons@k, pass@k, lengths.

On held-out problems of the built-in families, or on benchmark files (GSM8K, MATH-500, AIME, AMC, MBPP, HumanEval,
multiple choice); docs/evaluation.md. The workdir gets evaluation.json, evaluation.md and responses.jsonl; a stopped run
resumes.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import jax

from r1jax import launch
from r1jax.collect import follow
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.evaluation import comparison_table, evaluation_batches, evaluation_markdown, summarize_answers
from r1jax.evaluation.files import ResponseLog, read_completions, stored_batches
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.evaluation.problems import Asked, PromptForm, ask, draw_family_problems, read_benchmarks, with_prefill
from r1jax.evaluation.protocol import claim_protocol, describe_protocol, protocol_lines
from r1jax.evaluation.votes import ballots
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.metrics import write_json
from r1jax.policy import Policy, load_policy
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL

DRAWN = 512  # problems of families


@dataclasses.dataclass(frozen=True)
class Config:
    """Evaluation of a policy or of stored completions."""

    workdir: str = "runs/evaluate"
    """evaluation.json, evaluation.md and responses.jsonl go here; a stopped run resumes from here."""
    init: str | None = None
    """Workdir of the stage to evaluate; by default the base model that comes with the package."""
    seed: int = 0
    """All noise of sampling follows from it, and the resampling of intervals."""
    families: tuple[str, ...] = ("countdown:1:en", "countdown:2:en")
    """Built-in families as family[:level][:language]; without a level all of them (r1jax.tasks.families)."""
    split: Literal["held_out", "train"] = "held_out"
    """Which problems of the families: those kept out of corpus and training, or those trained on."""
    benchmark: tuple[str, ...] = ()
    """Files in a published form, as path or name=path, in the place of families."""
    completions: str | None = None
    """JSON lines with id or index, and completion or completions, judged in the place of a policy's own."""
    problems: int | None = None
    """Problems drawn from families, 512 by default; of benchmarks the first so many, by default all."""
    prompt: PromptForm = "r1_zero"
    """Template of the questions: R1-Zero's, the later stages' plain one, the released R1's with control tokens, or the
    chat template of the model that --init names."""
    language: bool = False
    """Judge the language consistency of the reasoning too."""
    votes: tuple[int, ...] = ()
    """Majority votes of so many of the samples, averaged over random subsets, besides the vote of all."""
    sampling: SamplingConfig = SamplingConfig(
        prompts=32, prompt_slots=12, max_new_tokens=128, temperature=0.6, top_p=0.95, halvings=2
    )
    """group_size is the number of samples a problem (k)."""
    judge_workers: int = 2
    """Processes that judge mathematics and programs."""
    allow_unsafe_exec: bool = False
    """Run programs without isolation where this host offers none."""
    mesh: MeshConfig = MeshConfig()


WORLD = Config(
    families=("countdown:1", "countdown:2", "chains", "functions", "requests", "safety"),
    language=True,
    problems=390,
    sampling=SamplingConfig(
        prompts=65, group_size=8, prompt_slots=24, max_new_tokens=128, temperature=0.6, top_p=0.95, halvings=2
    ),
)
PAPER = Config(sampling=SamplingConfig(group_size=64, temperature=0.6, top_p=0.95))
PRESETS = {"countdown": Config(), "world": WORLD, "paper": PAPER}


def main(config: Config) -> None:
    records = read_problems(config)
    if config.completions:
        records, stored = with_prefill(config.prompt, records), read_completions(config.completions, records)
        policy, prompts, samples = None, [""] * len(records), len(stored[0])
    else:
        mesh = make_mesh(config.mesh)
        config.sampling.check(mesh)
        policy, samples = load_policy(config.init or BASE_MODEL, mesh), config.sampling.group_size
        asked = ask(config.prompt, records, policy.tokenizer, config.sampling.prompt_slots)
        records, prompts = asked.records, asked.prompts
        if asked.unreadable:
            launch.console.print(f"[yellow]the tokenizer cannot express all of {asked.unreadable} prompts")
    workdir = claim_workdir(config.workdir, "evaluate", config, ignore=("judge_workers",))
    paths = [*config.benchmark, *([config.completions] if config.completions else [])]
    origin = policy and policy.parent.provenance
    protocol = describe_protocol(paths, origin, problems=len(records), samples=samples)
    claim_protocol(workdir, protocol)
    log = ResponseLog(workdir / "responses.jsonl", records, prompts, samples, config.sampling.prompts)
    judges = judges_of(config.prompt, language=config.language, allow_unsafe=config.allow_unsafe_exec)
    options = {"workers": config.judge_workers, "allow_unsafe": config.allow_unsafe_exec}
    with open_judges(judges, records, **options) as submit:
        if config.completions:
            size = {"size": config.sampling.prompts, "start": len(log.groups)}
            follow(stored_batches(submit, records, stored, **size), log, "evaluate")
        else:
            with jax.set_mesh(mesh):
                follow(sampled_batches(config, policy, mesh, asked, submit, len(log.groups)), log, "evaluate")
    answers = [ballots(r, [response.text for response in group]) for r, group in zip(records, log.groups, strict=True)]
    result = summarize_answers(records, log.groups, answers, votes=config.votes, seed=config.seed)
    write(config, workdir, protocol, result)


def read_problems(config: Config) -> list[dict]:
    """The records to answer; what contradicts itself in the configuration is refused."""
    if config.problems is not None and config.problems < 1:
        raise UserError(f"--problems must be 1 or more, not {config.problems}")
    if config.completions and not config.benchmark:
        raise UserError("--completions are judged against a benchmark; name its file: --benchmark FILE")
    if any(k < 1 or not config.completions and k > config.sampling.group_size for k in config.votes):
        raise UserError(f"--votes must be from 1 to --sampling.group-size, {config.sampling.group_size}")
    if config.benchmark:
        return read_benchmarks(config.benchmark, config.problems)
    return draw_family_problems(config.families, config.split, config.problems or DRAWN)


def sampled_batches(config: Config, policy: Policy, mesh, asked: Asked, submit, start: int) -> Iterator:
    """Responses of the policy to the problems from `start` on, judged."""
    sampler = make_sampler(policy.model, config.sampling, mesh, eos_ids=policy.tokenizer.eos_ids)
    sample = partial(sampler, (policy.params, policy.router_bias))
    options = {"seed": config.seed, "submit": submit, "records": asked.records, "prompts": asked.prompts}
    return evaluation_batches(sample, asked, config.sampling, **options, start=start)


def write(config: Config, workdir: Path, protocol: dict, result: dict) -> None:
    """evaluation.json, evaluation.md, and the table on the terminal."""
    held, policy = config.split.replace("_", " "), protocol["policy"]
    record = {"result": result, "config": to_dict(config), "protocol": protocol, "policy": policy}
    write_json(workdir / "evaluation.json", record)
    source = " ".join(config.benchmark) if config.benchmark else f"{held} {' '.join(config.families)}"
    lines = protocol_lines(protocol, source, config.prompt, config.sampling, config.seed)
    title = f"Evaluation of {policy['folder'] if policy else config.completions}"
    (workdir / "evaluation.md").write_text(evaluation_markdown(title, lines, result), encoding="utf-8")
    launch.console.print(comparison_table({"benchmark" if config.benchmark else held: result}))
    launch.console.print(f"written to {workdir / 'evaluation.json'} and evaluation.md", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
