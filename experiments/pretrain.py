"""Pre-train a base model on the miniature corpus: next-token loss, and what DeepSeek-V3 adds to it.

The corpus is written on the fly by the population of r1jax.tasks.authors; every batch follows from the seed and the
number of the update, so a resumed run sees the same data.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from r1jax import checkpoint, launch
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.packing import PackedBatch, pack_documents
from r1jax.data.prompts import document_text
from r1jax.data.tokenizer import Tokenizer, load_tokenizer
from r1jax.hosts import any_host, fetch, is_first, on_first, place
from r1jax.metrics import JsonLines, read_json_lines, write_json
from r1jax.models.config import ModelConfig
from r1jax.models.mtp import mtp_forward
from r1jax.models.presets import miniature, student
from r1jax.models.transformer import forward_with_routing, init_params, target_logprobs
from r1jax.objectives import next_token_sums, targets_after_next
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.sharding import MeshConfig, batch_sharding, check_divides, make_mesh
from r1jax.tasks.authors import WORLD, Population, write_document
from r1jax.train import LossOutput, check_finite, gradient_sums, init_train_state, make_train_step

LOG_EVERY = 20  # updates


@dataclasses.dataclass(frozen=True)
class Config:
    """Pre-training of the miniature base."""

    tokenizer: str = "runs/tokenizer"
    """Folder with the tokenizer.model that train_tokenizer wrote, or with a tokenizer.json."""
    workdir: str = "runs/pretrain"
    """Checkpoints and metrics go here; an interrupted run resumes from here."""
    publish: str | None = None
    """Copy the final weights and tokenizer, without optimizer state, to this folder, ready for --init."""
    seed: int = 0
    """Initial weights and the corpus follow from it."""
    updates: int = 1000
    """Optimizer updates."""
    batch_size: int = 128
    """Rows an update."""
    sequence_length: int = 128
    """Tokens a row; documents are packed whole and do not see each other. Longer ones are replaced and counted."""
    levels: tuple[Literal[1, 2, 3], ...] = (1, 2)
    """Countdown levels in the corpus: level L offers L + 2 numbers."""
    model: Literal["miniature", "student"] = "miniature"
    """Shape of the model: DeepSeek-V3's or a smaller dense one, to be distilled into."""
    precision: Literal["dtype", "fp8"] = "dtype"
    """Of linear products: the model's dtype, or blocks of FP8 (docs/precision.md)."""
    population: Population = Population()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, schedule="cosine", warmup_updates=100, final_fraction=0.03
    )
    router_bias_rate: float = 0.001
    """Step of auxiliary-loss-free balancing (the paper's gamma)."""
    balance_weight: float = 0.0
    """Weight of the sequence-wise balance of experts (the paper's alpha, 1e-4)."""
    mtp_weight: float = 0.0
    """Weight of the loss of the token after the next (the paper's lambda, 0.3 for 10T tokens, then 0.1); above 0 the
    model gets a module for it, which later stages carry along unchanged."""
    save_every: int = 500
    """Updates between checkpoints."""
    mesh: MeshConfig = MeshConfig()


PRESETS = {
    "countdown": Config(),
    "world": Config(tokenizer="runs/world_tokenizer", workdir="runs/world_base", population=WORLD, updates=1500),
    "student": Config(
        tokenizer="runs/world_tokenizer", workdir="runs/student_base", model="student", population=WORLD, updates=500
    ),
}


def make_batch(config: Config, tokenizer: Tokenizer, update: int) -> tuple[PackedBatch, int]:
    """The batch of an update, and how many documents were replaced by others because a row cannot hold them."""
    rng, too_long = np.random.default_rng((config.seed, update)), 0

    def next_document() -> list[int]:
        nonlocal too_long
        while True:
            document = write_document(rng, config.population, config.levels)
            ids = [*tokenizer.encode_prompt(document_text(document)), tokenizer.eos_id]
            if len(ids) <= config.sequence_length + 1:
                return ids
            too_long += 1
            if too_long > config.batch_size:
                raise UserError(
                    f"most documents are longer than {config.sequence_length} tokens; raise --sequence-length"
                )

    return pack_documents(next_document, batch=config.batch_size, length=config.sequence_length), too_long


def choose_model(config: Config, vocab_size: int) -> ModelConfig:
    """The model to train: with a multi-token prediction module where its loss has a weight."""
    model = {"miniature": miniature, "student": student}[config.model](vocab_size)
    if not model.num_experts and (config.mtp_weight or config.balance_weight):
        raise UserError(f"--model {config.model} has no experts; --mtp-weight and --balance-weight must stay 0")
    return dataclasses.replace(model, precision=config.precision, num_mtp_layers=1 if config.mtp_weight else 0)


def pretraining_loss(model: ModelConfig, params, router_bias, batch: PackedBatch, scalars) -> LossOutput:
    """Next-token loss, plus, by weight, that of the token after the next and the balance of experts (eq. 20 and 25)."""
    hidden, _, routing = forward_with_routing(
        model, params, router_bias, batch.tokens, batch.positions, segments=batch.segments
    )
    logprobs, entropy = target_logprobs(model, params, hidden, batch.targets)
    loss, count = next_token_sums(logprobs, batch.segments)
    metrics = {"entropy": next_token_sums(-entropy, batch.segments)[0]}
    if model.num_mtp_layers:
        targets, mask = targets_after_next(batch.targets, batch.segments)
        # A position without a target would only be counted in the load of the experts.
        positions = jnp.where(mask, batch.positions, -1)
        hidden, ahead = mtp_forward(
            model, params, router_bias, hidden, batch.targets, positions, segments=batch.segments
        )
        metrics["next_token_loss"], routing = loss, jax.tree.map(jnp.add, routing, ahead)
        # Divided by all tokens, as in eq. 24, and not by those that have a token after the next.
        metrics["mtp_loss"] = next_token_sums(target_logprobs(model, params, hidden, targets)[0], mask)[0]
        loss += scalars["mtp_weight"] * metrics["mtp_loss"]
    if model.num_routers:
        metrics["balance"] = routing.balance.mean()
        loss += scalars["balance_weight"] * routing.balance.sum()
    return LossOutput(loss, count, metrics, routing.load)


def main(config: Config) -> None:
    tokenizer = load_tokenizer(config.tokenizer)
    run(config, tokenizer, choose_model(config, tokenizer.vocab_size))


def run(config: Config, tokenizer: Tokenizer, model: ModelConfig) -> None:
    """Pre-train a model of any shape."""
    scalars = {"mtp_weight": config.mtp_weight, "balance_weight": config.balance_weight}
    mesh = make_mesh(config.mesh)
    check_divides(mesh, config.batch_size, "batch", "--batch-size")
    workdir = on_first(claim_workdir, config.workdir, "pretrain", config, ignore=("publish",))
    on_first(tokenizer.save, workdir)
    optimizer = make_optimizer(config.optimizer, config.updates, train_mtp=True)
    with jax.set_mesh(mesh), launch.StopRequest() as stop, launch.progress_bar() as progress:
        state, shardings = init_train_state(
            jax.random.key(config.seed), functools.partial(init_params, model), optimizer, mesh
        )
        manager = checkpoint.open_checkpoints(workdir)
        if manager.latest_step() is not None:
            state = type(state)(**checkpoint.restore(manager, arrays=state._asdict()))
        sums = gradient_sums(functools.partial(pretraining_loss, model))
        step = make_train_step(sums, optimizer, shardings, router_bias_rate=config.router_bias_rate)
        start = int(state.update)
        log = JsonLines(workdir / "metrics.jsonl" if is_first() else None, resume_step=start)
        task = progress.add_task("pretrain", total=config.updates, completed=start, figures="")
        facts = {"model": to_dict(model), "run": {"experiment": "pretrain", "config": to_dict(config)}}
        save = lambda update, wait: checkpoint.save(manager, update, arrays=state._asdict(), facts=facts, wait=wait)
        began, replaced = time.monotonic(), 0
        for update in range(start + 1, config.updates + 1):
            batch, too_long = make_batch(config, tokenizer, update)
            state, metrics = step(state, place(batch, batch_sharding(mesh)), scalars)
            replaced += too_long
            stopping = any_host(bool(stop))
            saving = stopping or update % config.save_every == 0 or update == config.updates
            if saving or update % LOG_EVERY == 0:
                metrics = {name: value.tolist() for name, value in fetch(metrics).items()}
                check_finite(metrics, f"update {update}")
                metrics["documents_too_long"], replaced = replaced, 0
                log.write({"step": update, "seconds": time.monotonic() - began} | metrics)
                figures = f"loss {metrics['loss']:.4f}" + (
                    f"  MaxVio {metrics['max_violation']:.2f}" if "max_violation" in metrics else ""
                )
                progress.update(task, completed=update, figures=figures)
            if saving:
                save(update, stopping or update == config.updates)
            if stopping:
                raise launch.Interrupted
    on_first(write_summary, workdir)
    if config.publish:
        on_first(checkpoint.publish, workdir, config.publish)
        on_first(tokenizer.save, config.publish)
        launch.console.print(f"published {Path(config.publish)}")


def write_summary(workdir: Path) -> None:
    """summary.json: means of the numbers in the last tenth of the metrics; every batch is new, so none was seen before."""
    records = read_json_lines(workdir / "metrics.jsonl")
    last = records[-max(1, len(records) // 10) :]
    names = [name for name, value in last[-1].items() if isinstance(value, float) and name != "seconds"]
    means = {name: float(np.mean([record[name] for record in last])) for name in names}
    write_json(workdir / "summary.json", {"after": means})


if __name__ == "__main__":
    launch.run(main, Config, PRESETS, on_several_hosts=True)
