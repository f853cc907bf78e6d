"""A stage of supervised fine-tuning: documents in, a checkpoint out. What the documents are is the caller's."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from r1jax import checkpoint, launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.chat import EOS, Vocabulary, plain_template
from r1jax.data.documents import Document, DocumentList
from r1jax.data.mixture import Source
from r1jax.data.packing import TrainingRows
from r1jax.data.rows import data_files
from r1jax.data.sft import record_documents
from r1jax.data.sources import read_records
from r1jax.data.streams import Hosts, packed_stream
from r1jax.data.tokenizer import Tokenizer
from r1jax.hosts import any_host, fetch, is_first, on_first, place_share, share_of
from r1jax.metrics import JsonLines, read_json_lines, write_json
from r1jax.models.config import Dtype, ModelConfig
from r1jax.models.transformer import forward, target_logprobs
from r1jax.objectives import next_token_sums
from r1jax.ops.masked import masked_sum
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import Policy, load_policy, start_training
from r1jax.provenance import provenance
from r1jax.sharding import MeshConfig, batch_sharding, check_divides, make_mesh
from r1jax.train import LossOutput, check_finite, gradient_sums, make_train_step

LOG_EVERY = 5  # updates


@dataclasses.dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning; the defaults are the paper's for both SFT stages of R1 (Nature 645:633, SI 2.4.2)."""

    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=5e-5, schedule="cosine", final_fraction=0.1)
    epochs: int = 2
    """Passes over the documents (2 to 3 in the paper)."""
    batch_size: int = 128
    """Packed rows an update."""
    micro_batches: int = 1
    """Parts of a batch that are in memory one at a time."""
    sequence_length: int = 32768
    """Tokens a row; documents are packed whole and do not see each other."""
    router_bias_rate: float = 0.0
    """Step of expert balancing (not stated for fine-tuning)."""
    save_every: int = 200
    """Updates between checkpoints."""


@dataclasses.dataclass(frozen=True)
class SftStageConfig:
    """What every stage of supervised fine-tuning can be told."""

    workdir: str
    """Checkpoints, metrics and summary go here; a stopped run resumes from here."""
    sft: SftConfig
    init: str
    """Workdir of the policy to start from."""
    data: tuple[str, ...]
    """Records to learn from (docs/data.md): files or folders of conversations or of problems with solutions."""
    seed: int = 0
    """The order of the documents follows from it."""
    dtype: Dtype | None = None
    """Of activations and matrix products, in this stage and those after it; by default the parent's. Parameters stay
    float32."""
    mesh: MeshConfig = MeshConfig()


class Lesson(NamedTuple):
    """What is minimised on packed rows."""

    loss: Callable
    """(params, router_bias, batch, scalars) -> LossOutput."""
    scalars: dict
    """Traced arguments of the loss, arrays included."""
    run: dict
    """What it adds to the provenance of the checkpoints."""


def imitation(policy: Policy, mesh) -> Lesson:
    """Next-token prediction."""
    return Lesson(partial(sft_loss, policy.model), {}, {})


Teach = Callable[[Policy, object], Lesson]
"""(policy, mesh) -> what it is to learn."""


def run_sft_stage(config: SftStageConfig, experiment: str, teach: Teach = imitation) -> None:
    """Fine-tune a policy on records in the plain chat template; resumes, and stops on request.

    Args:
      config: of the stage.
      experiment: its name.
      teach: chooses what is minimised.

    Raises:
      UserError: a setting, the parent, the data or the workdir does not fit.
      Interrupted: the run was asked to stop, and has been saved.
    """
    mesh = make_mesh(config.mesh)
    policy = load_policy(config.init, mesh, dtype=config.dtype)
    lesson = teach(policy, mesh)
    documents = read_documents(config.data, policy.tokenizer)
    workdir = on_first(claim_workdir, config.workdir, experiment, config)
    files = [file for path in config.data for file in data_files(path)]
    run = provenance(experiment, config, policy.parent.provenance, files) | lesson.run
    options = {"workdir": workdir, "mesh": mesh, "seed": config.seed, "run": run, "lesson": lesson}
    summary = fine_tune(policy, documents, config.sft, **options)
    launch.console.print(f"{summary['documents']} documents, loss {summary['loss']:.4f}: {workdir}", soft_wrap=True)


def read_documents(paths: Sequence[str], tokenizer: Tokenizer) -> list[Document]:
    """The records of files as documents in the plain chat template, each with what the tokenizer's texts begin with.

    Raises:
      UserError: a file cannot be read, or a record has nothing to learn.
    """
    known = vocabulary(tokenizer)
    try:
        return [
            _begun(document, tokenizer.begin_ids)
            for path in paths
            for record in read_records(path)
            for document in record_documents(record, plain_template, known)
        ]
    except ValueError as error:
        raise UserError(f"--data {' '.join(paths)}: {error}") from error


def _begun(document: Document, begin: Sequence[int]) -> Document:
    ids, learned = document
    return Document(np.array([*begin, *ids], np.int32), np.array([False] * len(begin) + [*learned], bool))


def sft_loss(model: ModelConfig, params, router_bias, batch: TrainingRows, scalars) -> LossOutput:
    """Negative log-likelihood of the learned targets of packed rows."""
    hidden, _, load = forward(model, params, router_bias, batch.tokens, batch.positions, segments=batch.segments)
    logprobs, entropy = target_logprobs(model, params, hidden, batch.targets)
    loss, count = next_token_sums(logprobs, batch.loss_mask)
    return LossOutput(loss, count, {"entropy": masked_sum(entropy, batch.loss_mask)}, load)


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What the chat templates need of a SentencePiece tokenizer: the end of a turn is its end-of-sequence token."""
    return Vocabulary(tokenizer.encode, {EOS: tokenizer.eos_id})


def count_updates(sources: Sequence[Source], config: SftConfig, seed: int) -> int:
    """Updates of a run: the batches of its stream, counted."""
    stream = _stream(sources, config, seed, read_ahead=0)
    return sum(1 for _ in stream)


def _stream(sources: Sequence[Source], config: SftConfig, seed: int, **options):
    return packed_stream(
        sources, batch=config.batch_size, length=config.sequence_length, seed=seed, epochs=config.epochs, **options
    )


def fine_tune(
    policy: Policy,
    documents: Iterable[Document],
    config: SftConfig,
    *,
    workdir: Path,
    mesh,
    seed: int,
    run: dict,
    lesson: Lesson | None = None,
) -> dict:
    """Train a policy on documents; resumes, and stops on request.

    Args:
      policy: to start from; its optimizer is fresh.
      documents: what is learned.
      config: of the training.
      workdir: claimed by the caller.
      mesh: in force.
      seed: the order of the documents follows from it.
      run: provenance of the checkpoints.
      lesson: what is minimised; next-token prediction by default.

    Returns:
      The last line of metrics.jsonl and the number of documents, also written to summary.json.

    Raises:
      UserError: there is no document, or the batch does not divide over the mesh.
      Interrupted: the run was asked to stop, and has been saved.
    """
    sources = [Source("documents", DocumentList(documents))]
    if not len(sources[0].items):
        raise UserError("there is no document to fine-tune on")
    check_divides(mesh, config.batch_size // config.micro_batches, "batch", "a micro-batch")
    lesson = lesson or imitation(policy, mesh)
    on_first(policy.tokenizer.save, workdir)
    total = count_updates(sources, config, seed)
    facts = {"model": to_dict(policy.model), "run": run}
    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        manager = checkpoint.open_checkpoints(workdir)
        optimizer = make_optimizer(config.optimizer, total)
        state, shardings, _ = start_training(policy, optimizer, mesh, manager)
        step = make_train_step(
            gradient_sums(lesson.loss), optimizer, shardings, num_micro_batches=config.micro_batches,
            router_bias_rate=config.router_bias_rate,
        )  # fmt: skip
        sharding = batch_sharding(mesh)
        start, stream = int(state.update), _stream(sources, config, seed, hosts=Hosts(*share_of(sharding)))
        if start:
            stream.restore(checkpoint.restore(manager, arrays={}, facts=("data",))["data"])
        log = JsonLines(workdir / "metrics.jsonl" if is_first() else None, resume_step=start)
        task, began = progress.add_task("fine-tune", total=total, completed=start, figures=""), time.monotonic()
        for update in range(start + 1, total + 1):
            state, metrics = step(state, place_share(next(stream), sharding), lesson.scalars)
            stopping = any_host(bool(stop))
            last = stopping or update == total
            if last or update % LOG_EVERY == 0 or update % config.save_every == 0:
                metrics = {name: value.tolist() for name, value in fetch(metrics).items()}
                check_finite(metrics, f"update {update}")
                log.write({"step": update, "seconds": time.monotonic() - began} | metrics)
                progress.update(task, completed=update, figures=f"loss {metrics['loss']:.4f}")
            if last or update % config.save_every == 0:
                now = facts | {"data": stream.state()}
                checkpoint.save(manager, update, arrays=state._asdict(), facts=now, wait=last)
            if stopping and update < total:
                raise launch.Interrupted
        stream.close()
    return on_first(summarize, workdir, len(sources[0].items))


def summarize(workdir: Path, documents: int) -> dict:
    """Write summary.json: the last line of metrics.jsonl, and the number of documents."""
    summary = read_json_lines(workdir / "metrics.jsonl")[-1] | {"documents": documents}
    write_json(workdir / "summary.json", summary)
    return summary
