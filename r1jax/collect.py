"""Fine-tuning data from a policy's own samples: sample, judge, filter, count (DeepSeek-R1, Nature 645:633, SI 2.3)."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from r1jax import launch
from r1jax.config import UserError
from r1jax.data.prompts import PROMPTS
from r1jax.data.sources import write_json_lines
from r1jax.evaluation import Response, evaluation_batches
from r1jax.evaluation.files import ResponseLog
from r1jax.evaluation.judges import judges_of, open_judges
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.policy import Policy
from r1jax.rewards.answer import conclusion
from r1jax.rewards.format import reasoning
from r1jax.rewards.verdict import Submit
from r1jax.rl_loop import Asked
from r1jax.tasks.behaviour import read_checks
from r1jax.tasks.families import draw_records, read_parts, with_ids

LONGEST_PARAGRAPH = 4000
"""Characters; DeepSeek-R1 drops "long paragraphs", of unpublished length."""


def sample_responses(
    policy: Policy, mesh, asked: Asked, sampling: SamplingConfig, submit: Submit, *, path: Path, seed: int, task: str
) -> list[list[Response]]:
    """sampling.group_size judged responses to every problem, written to `path` as they come; goes on where it stopped.

    Args:
      policy: to sample from.
      mesh: not yet in force.
      asked: N problems, each record with an "id".
      sampling: how.
      submit: begins to judge; "accuracy" and "format" must be among the judges.
      path: of the JSON lines file.
      seed: all noise follows from it.
      task: what the progress bar calls it.

    Raises:
      Interrupted: a stop was requested; what is sampled so far is kept.
    """
    log = ResponseLog(path, asked.records, asked.prompts, sampling.group_size, sampling.prompts)
    sampler = make_sampler(policy.model, sampling, mesh, eos_ids=policy.tokenizer.eos_ids)
    batches = evaluation_batches(
        partial(sampler, (policy.params, policy.router_bias)), policy.tokenizer, sampling, seed=seed, submit=submit,
        records=asked.records, prompts=asked.prompts, start=len(log.groups),
    )  # fmt: skip
    with jax.set_mesh(mesh):
        follow(batches, log, task)
    return log.groups


def follow(batches: Iterable, log: ResponseLog, task: str) -> None:
    """Write every batch of judged groups as it comes, with a progress bar; stop between two of them on request.

    Raises:
      Interrupted: a stop was requested; what came so far is kept.
    """
    with launch.StopRequest() as stop, launch.progress_bar() as progress:
        bar = progress.add_task(task, total=len(log.records), completed=len(log.groups), figures="")
        for batch in batches:
            log.write(batch)
            right = [response.correct for group in log.groups for response in group]
            progress.update(bar, completed=len(log.groups), figures=f"accuracy {sum(right) / len(right):.3f}")
            if stop and len(log.groups) < len(log.records):
                raise launch.Interrupted


def not_readable(record: dict, response: Response, *, one_language: bool) -> str | None:
    """Why a response is not fit to learn from; None where it is (the filters of Nature 645:633, SI 2.3).

    Args:
      record: the problem.
      response: judged by "accuracy", "format" and, where one_language asks for it, "language".
      one_language: whether reasoning that mixes languages is dropped.
    """
    thought = reasoning(response.text)
    checks = read_checks(response.text, record["target"]) if "target" in record else []
    reasons = {
        "the judge failed": not all(judgement.teaches for judgement in response.judgements.values()),
        "not correct": not response.correct,
        "cut off": not response.finished,
        "format": response.judgements["format"].outcome != "correct",
        "mixed languages": one_language and response.judgements["language"].score < 1.0,
        "repetition": any(check.repeated for check in checks),
        "a wrong check": not all(check.right for check in checks),
        "code block in the reasoning": "```" in thought,
        "long paragraph": any(len(paragraph) > LONGEST_PARAGRAPH for paragraph in thought.split("\n\n")),
        "no reasoning": not thought.strip(),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def as_written(record: dict, completion: str) -> tuple[str, str]:
    """The thought and the conclusion of a response in the form of the released R1, as the policy wrote them."""
    return reasoning(completion).strip(), (conclusion(completion) or "").strip()


class Collected(NamedTuple):
    """What became of some samples."""

    conversations: list[dict]
    """Uniform conversation records (r1jax.data.forms)."""
    reasons: dict[str, dict[str, int]]
    """Samples by family and by what became of them: "kept", "more than enough", or why they were dropped."""
    pass_rates: list[dict]
    """{"id", "family", "level", "pass_rate"} of every problem; judges that failed do not count."""


Rewrite = Callable[[dict, str], tuple[str, str]]
"""(record, completion) -> what is thought and what is said."""


def collect(
    records: Sequence[dict],
    groups: Sequence[Sequence[Response]],
    rewrite: Rewrite,
    *,
    per_problem: int,
    one_language: bool,
) -> Collected:
    """Conversations from the responses that are fit to learn from, at most `per_problem` different ones a problem.

    Args:
      records: P problems.
      groups: P groups of judged responses.
      rewrite: makes the thought and the summary.
      per_problem: the shortest are taken.
      one_language: see `not_readable`.
    """
    conversations, reasons, rates = [], {}, []
    for record, group in zip(records, groups, strict=True):
        counts, kept = reasons.setdefault(record["family"], Counter()), {}
        for response in sorted(group, key=lambda response: response.tokens):
            reason = not_readable(record, response, one_language=one_language)
            if reason is None and (len(kept) == per_problem or response.text in kept):
                reason = "more than enough"
            if reason is None:
                kept[response.text] = rewrite(record, response.text)
            counts[reason or "kept"] += 1
        known = [response.correct for response in group if response.judgements["accuracy"].teaches]
        rate = sum(known) / len(known) if known else None
        about = {"id": record["id"], "family": record["family"], "level": record["level"]}
        rates.append(about | {"pass_rate": rate})
        for number, (thought, summary) in enumerate(kept.values()):
            conversations.append(conversation(record, f"{record['id']}:{number}", thought, summary))
    return Collected(conversations, {family: dict(counts) for family, counts in reasons.items()}, rates)


def conversation(record: dict, name: str, thought: str, summary: str) -> dict:
    """A question and its response as a uniform conversation record."""
    answer = {"role": "assistant", "content": summary} | ({"reasoning": thought} if thought.strip() else {})
    return {
        "family": "conversation", "id": name, "domain": record["family"], "language": record["language"],
        "messages": [{"role": "user", "content": record["question"]}, answer],
    }  # fmt: skip


def table_5(conversations: Iterable[dict], tokens_of: Callable[[dict], int]) -> Iterator[dict]:
    """The columns of the paper's Table 5 for every domain and in all: samples, mean rounds, mean tokens.

    Args:
      conversations: what was collected.
      tokens_of: tokens of a conversation.
    """
    domains: dict[str, list[dict]] = {}
    for record in conversations:
        domains.setdefault(record["domain"], []).append(record)
    for domain, chosen in [*domains.items(), ("total", [record for some in domains.values() for record in some])]:
        rounds = sum(message["role"] == "user" for record in chosen for message in record["messages"])
        count = max(1, len(chosen))
        yield {
            "domain": domain, "samples": len(chosen), "rounds": rounds / count,
            "tokens": sum(map(tokens_of, chosen)) / count,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """How samples are drawn and chosen."""

    parts: tuple[str, ...]
    """Families and levels of the problems, in turn, such as countdown:1 or chains:2:zh."""
    problems: int
    """Training problems."""
    sampling: SamplingConfig
    """group_size is the number of samples a problem."""
    per_problem: int = 1
    """Responses kept of a problem, the shortest first."""
    one_language: bool = True
    """Drop reasoning that mixes languages."""
    allow_unsafe_exec: bool = False
    """Run the policy's programs without isolation where this host offers none."""


def collect_stage(
    config: CollectConfig,
    teacher: Policy,
    mesh,
    *,
    workdir: Path,
    seed: int,
    form: Literal["r1_zero", "chat"],
    rewrite: Rewrite,
    problem_seed: int,
) -> Collected:
    """Sample a teacher on training problems, filter, and write what is kept.

    The workdir gets responses.jsonl (every sample with its judgements), conversations.jsonl, pass_rates.jsonl.

    Args:
      config: of the collection.
      teacher: whose samples they are.
      mesh: not yet in force.
      workdir: claimed by the caller.
      seed: of the noise.
      form: of the teacher's prompts and responses.
      rewrite: see `collect`.
      problem_seed: draws the problems.

    Raises:
      UserError: no response is fit to learn from.
      Interrupted: see `sample_responses`.
    """
    records = draw_records(read_parts(config.parts), "train", config.problems, np.random.default_rng(problem_seed))
    records = with_ids(records)
    asked = Asked(records, [PROMPTS[form](record["question"]) for record in records])
    judges = judges_of(form, language=True, allow_unsafe=config.allow_unsafe_exec)
    with open_judges(judges, records, workers=2, allow_unsafe=config.allow_unsafe_exec) as submit:
        groups = sample_responses(
            teacher, mesh, asked, config.sampling, submit, path=workdir / "responses.jsonl", seed=seed, task="sample"
        )
    options = {"per_problem": config.per_problem, "one_language": config.one_language}
    collected = collect(records, groups, rewrite, **options)
    if not collected.conversations:
        raise UserError(f"no sample of {len(records)} problems is fit to learn from: {collected.reasons}")
    write_json_lines(collected.conversations, workdir / "conversations.jsonl")
    write_json_lines(collected.pass_rates, workdir / "pass_rates.jsonl")
    return collected
