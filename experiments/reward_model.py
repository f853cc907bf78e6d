"""Train a reward model: a policy with a scalar head that scores responses (Nature 645:633, Methods).

Helpful: from pairs of a preferred and a refused response, by the loss of Bradley and Terry, on final summaries alone.
Safety: from responses labelled safe or not, by cross-entropy, reasoning included. Some prompts are held out, and a rule
that needs no model is reported beside the model's accuracy.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from r1jax import checkpoint, launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.preferences import read_comparisons, read_safety_labels, split_by_prompt
from r1jax.data.rows import data_files
from r1jax.data.scored_rows import Encoded, Kind, RewardRows, encode_examples, example_batch, updates_per_epoch
from r1jax.data.tokenizer import Tokenizer, load_tokenizer
from r1jax.hosts import any_host, fetch, is_first, on_first, place
from r1jax.metrics import JsonLines, read_json, write_json
from r1jax.models.config import Dtype, ModelConfig
from r1jax.models.presets import miniature
from r1jax.models.reward_model import adopt_decoder, init_reward_params, reward_outputs
from r1jax.objectives import pairwise_sums, pointwise_sums
from r1jax.ops.masked import masked_sum
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import REWARD_MODEL, Policy, load_policy
from r1jax.provenance import provenance
from r1jax.reward_model import agreement, describe_accuracy, make_row_scorer, without_a_model
from r1jax.sharding import MeshConfig, batch_sharding, check_divides, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.train import LossOutput, TrainState, check_finite, gradient_sums, init_train_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Config:
    """Training of a reward model."""

    pairs: tuple[str, ...] = ()
    """Files to learn from. Helpful: preferences in any published form (r1jax.data.forms); safety: JSON lines of
    {"id", "prompt", "response", "safe": true or false}."""
    kind: Kind = "helpful"
    """Helpful: pairs, of which the summaries are scored. Safety: labels, and whole responses."""
    workdir: str = "runs/reward_model"
    """Checkpoints, metrics and summary go here; a stopped run resumes from here."""
    init: str | None = None
    """Workdir of the policy to start from; by default the base model that comes with the package."""
    scratch: str | None = None
    """Instead of --init: random weights in the shape of the miniature, and the tokenizer of this folder."""
    seed: int = 0
    """Initial weights and the order of the examples follow from it."""
    split: int = 0
    """Which of many divisions into training and held-out prompts to use."""
    held_out_share: float = 0.1
    """Share of prompts that are never trained on."""
    epochs: int = 4
    """Passes over the training examples."""
    batch_size: int = 32
    """Pairs or labelled responses an update; the last of an epoch may have fewer."""
    micro_batches: int = 1
    """Parts of a batch that are in memory one at a time."""
    sequence_length: int = 64
    """Tokens of prompt and response. Longer prompts lose their beginning; longer responses are left out and counted."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_updates=10)
    evaluate_every: int = 40
    """Updates between measurements of held-out accuracy."""
    save_every: int = 50
    """Updates between checkpoints."""
    dtype: Dtype | None = None
    """Of activations and matrix products, in this stage and those after it; by default the parent's. Parameters stay
    float32."""
    mesh: MeshConfig = MeshConfig()


PRESETS = {
    "helpful": Config(),
    "safety": Config(kind="safety"),
    "paper": Config(
        batch_size=256, optimizer=OptimizerConfig(learning_rate=6e-6), epochs=1, sequence_length=8192
    ),
}  # fmt: skip
"""The first two are the miniature's; the paper has the same for both kinds."""


def check(config: Config) -> None:
    """Raise UserError for options that cannot be meant."""
    if not config.pairs:
        raise UserError("--pairs is missing: name the files to learn from")
    if config.init and config.scratch:
        raise UserError("--init and --scratch exclude each other")
    if not 0 < config.held_out_share < 1:
        raise UserError(f"--held-out-share must be above 0 and below 1, not {config.held_out_share}")
    numbers = ("epochs", "batch_size", "micro_batches", "evaluate_every", "save_every")
    if min(getattr(config, name) for name in numbers) < 1 or config.sequence_length < 2:
        raise UserError("--epochs, sizes and intervals must be 1 or more, --sequence-length 2 or more")
    if config.batch_size % config.micro_batches:
        raise UserError(f"--batch-size {config.batch_size} is not a multiple of --micro-batches {config.micro_batches}")


def reward_loss(model: ModelConfig, params, router_bias, batch: RewardRows, scalars) -> LossOutput:
    rows = (x.reshape(-1, x.shape[-1]) for x in (batch.tokens, batch.positions))
    scores, load = reward_outputs(model, params, router_bias, *rows)
    scores = scores.reshape(batch.tokens.shape[:2])
    if scores.shape[1] == 2:
        loss, count = pairwise_sums(scores[:, 0], scores[:, 1], batch.mask)
    else:
        loss, count = pointwise_sums(scores[:, 0], batch.labels, batch.mask)
    right = masked_sum(agreement(scores, batch.labels), batch.mask)
    return LossOutput(loss, count, {"accuracy": right}, load)


class Task(NamedTuple):
    """What a run begins with."""

    model: ModelConfig
    tokenizer: Tokenizer
    policy: Policy | None
    """None for random weights."""
    training: list[Encoded]
    held_out: list[Encoded]
    counts: dict[str, dict[str, int]]
    """Of "training" and "held_out": what became of the examples that were read."""


def load_task(config: Config, mesh) -> Task:
    """Read the policy, and the examples as its tokenizer writes them.

    Raises:
      UserError: see the readers; or no example is left on one side of the split.
    """
    read = read_comparisons if config.kind == "helpful" else read_safety_labels
    parts = split_by_prompt(read(config.pairs), config.held_out_share, config.split)
    policy = None if config.scratch else load_policy(config.init or BASE_MODEL, mesh)
    tokenizer = load_tokenizer(config.scratch) if config.scratch else policy.tokenizer
    encoded = [encode_examples(part, tokenizer, config.sequence_length) for part in parts]
    (training, used), (held_out, unseen) = encoded
    if not training or not held_out:
        raise UserError(f"training {used}, held out {unseen}: both need examples; give more, or change the lengths")
    model = policy.model if policy else miniature(tokenizer.vocab_size)
    model = dataclasses.replace(model, dtype=config.dtype or model.dtype)
    return Task(model, tokenizer, policy, training, held_out, {"training": used, "held_out": unseen})


def start(config: Config, task: Task, optimizer, mesh, manager):
    """The state to train and its shardings: from the run's own latest checkpoint, else from the policy, else random."""
    init = functools.partial(init_reward_params, task.model)
    state, shardings = init_train_state(jax.random.key(config.seed), init, optimizer, mesh)
    if manager.latest_step() is not None:
        state = TrainState(**checkpoint.restore(manager, arrays=state._asdict()))
    elif task.policy:  # whose arrays the first update may take over: nobody else reads them
        params = adopt_decoder(state.params, task.policy.params)
        state = state._replace(params=params, router_bias=task.policy.router_bias)
    return state, shardings


def main(config: Config) -> None:
    check(config)
    mesh = make_mesh(config.mesh)
    rows, length = config.batch_size // config.micro_batches, config.sequence_length
    check_divides(mesh, rows, "batch", "a micro-batch")
    task = load_task(config, mesh)
    workdir = on_first(claim_workdir, config.workdir, REWARD_MODEL, config)
    if on_first((workdir / "summary.json").exists):
        return on_first(show, workdir)
    on_first(task.tokenizer.save, workdir)
    parent = task.policy and task.policy.parent.provenance
    origin = provenance(REWARD_MODEL, config, parent, [file for path in config.pairs for file in data_files(path)])
    facts = {"model": to_dict(task.model), "run": origin | {"kind": config.kind}}
    total = config.epochs * updates_per_epoch(len(task.training), config.batch_size)
    optimizer = make_optimizer(config.optimizer, total)
    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        manager = checkpoint.open_checkpoints(workdir)
        state, shardings = start(config, task, optimizer, mesh, manager)
        sums = gradient_sums(functools.partial(reward_loss, task.model))
        step = make_train_step(sums, optimizer, shardings, num_micro_batches=config.micro_batches)
        draw = functools.partial(example_batch, task.training, seed=config.seed, batch=config.batch_size, length=length)
        score_rows = make_row_scorer(task.model, mesh, batch=rows, length=length)

        def judge(examples: list[Encoded]) -> np.ndarray:
            scores = score_rows(state.params, state.router_bias, [row for example in examples for row in example.rows])
            return agreement(scores.reshape(len(examples), -1), np.array([example.label for example in examples]))

        done, began = int(state.update), time.monotonic()
        log = JsonLines(workdir / "metrics.jsonl" if is_first() else None, resume_step=done)
        bar = progress.add_task("reward model", total=total, completed=done, figures="")
        for update in range(done + 1, total + 1):
            state, metrics = step(state, place(draw(update), batch_sharding(mesh)), {})
            metrics = {name: value.tolist() for name, value in fetch(metrics).items()}
            check_finite(metrics, f"update {update}")
            if update % config.evaluate_every == 0 or update == total:
                metrics["held_out_accuracy"] = float(judge(task.held_out).mean())
            log.write({"step": update, "seconds": time.monotonic() - began} | metrics)
            figures = f"loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.3f}"
            progress.update(bar, completed=update, figures=figures)
            stopping = any_host(bool(stop))
            last = stopping or update == total
            if last or update % config.save_every == 0:
                checkpoint.save(manager, update, arrays=state._asdict(), facts=facts, wait=last)
            if stopping:
                raise launch.Interrupted
        right = {"held_out": judge(task.held_out), "training": judge(task.training[: len(task.held_out)])}
    summary = {"kind": config.kind, "updates": total} | without_a_model(config.kind, task.training, task.held_out)
    summary |= {name: task.counts[name] | describe_accuracy(values) for name, values in right.items()}
    on_first(write_json, workdir / "summary.json", summary)
    on_first(show, workdir)


def show(workdir: Path) -> None:
    """Print the outcome of a finished run."""
    summary = read_json(workdir / "summary.json")
    for name in ("held_out", "training"):
        part = summary[name]
        accuracy = "{:.3f} (95%: {:.3f} to {:.3f})".format(part["accuracy"], *part["interval95"])
        launch.console.print(f"{name.replace('_', '-')} accuracy {accuracy}, {part['judged']} examples")
    rule = "longer_wins" if summary["kind"] == "helpful" else "majority_label"
    launch.console.print(f"held-out accuracy without a model, {rule.replace('_', ' ')}: {summary[rule]:.3f}")
    lengths = ", ".join(f"{name} {value:.0f}" for name, value in summary["mean_characters"].items())
    launch.console.print(f"mean length, characters: {lengths}; {Path(workdir) / 'summary.json'}", soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
