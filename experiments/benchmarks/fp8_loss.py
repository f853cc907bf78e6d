"""What FP8 costs in loss: one small DeepSeek-V3 pre-trained on the same batches with and without it.

A third run, without FP8 and with its first weights off by a millionth, shows how far runs part by rounding alone.
Losses are compared by their means over the last part of training. DeepSeek-V3 reports less than 0.25% (section 3.3).

Every sum of the model is at least 128 long, so that blocks are as large as the paper's; most sums are of one block.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.config import to_dict
from r1jax.data.packing import pack_documents
from r1jax.data.prompts import document_text
from r1jax.data.tokenizer import Tokenizer, load_tokenizer
from r1jax.metrics import JsonLines, write_json
from r1jax.models.config import Dtype, ModelConfig
from r1jax.models.presets import miniature
from r1jax.models.transformer import forward, init_params, output_head
from r1jax.objectives import next_token_sums, token_logprobs
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.sharding import MeshConfig, batch_sharding, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.authors import Population, write_document
from r1jax.train import LossOutput, check_finite, gradient_sums, init_train_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Config:
    """Pre-training with and without FP8."""

    tokenizer: str = BASE_MODEL
    """Folder with a tokenizer; the shipped base model's, unless given."""
    workdir: str = "runs/benchmark_fp8_loss"
    """Losses of every update go to metrics.jsonl, the comparison to fp8_loss.json."""
    seed: int = 0
    """Of the initial weights and the corpus."""
    updates: int = 1000
    """Of either model."""
    batch_size: int = 32
    """Rows an update."""
    sequence_length: int = 128
    """Tokens a row."""
    last_part: float = 0.25
    """Losses are averaged over this share of the updates, the last."""
    num_layers: int = 3
    """Of which the first is dense."""
    dtype: Dtype = "float32"
    """Of the runs without FP8, and of everything in FP8's that is not a linear product."""
    fp8_scales: Literal["float32", "power_of_two"] = "float32"
    """Scales of blocks."""
    fp8_products: Literal["simulated", "native"] = "simulated"
    """Native for hardware that multiplies float8."""
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, schedule="cosine", warmup_updates=50, final_fraction=0.03
    )


def make_model(config: Config, vocab_size: int) -> ModelConfig:
    """The miniature, widened where it sums over fewer than 128 terms."""
    widths = dict(q_lora_rank=128, kv_lora_rank=128, expert_mlp_dim=128, qk_nope_head_dim=32)
    return dataclasses.replace(miniature(vocab_size), num_layers=config.num_layers, dtype=config.dtype, **widths)


def make_batch(config: Config, tokenizer: Tokenizer, update: int):
    """Documents of the miniature corpus; those longer than a row are left out."""
    rng = np.random.default_rng((config.seed, update))

    def next_document() -> list[int]:
        while True:
            document = write_document(rng, Population())
            ids = [*tokenizer.encode_prompt(document_text(document)), tokenizer.eos_id]
            if len(ids) <= config.sequence_length + 1:
                return ids

    return pack_documents(next_document, batch=config.batch_size, length=config.sequence_length)


def loss_sums(model: ModelConfig, params, router_bias, batch, scalars) -> LossOutput:
    hidden, _, load = forward(model, params, router_bias, batch.tokens, batch.positions, segments=batch.segments)
    logprobs, _ = token_logprobs(hidden, output_head(model, params), batch.targets)
    loss, count = next_token_sums(logprobs, batch.segments)
    return LossOutput(loss, count, {}, load)


def summarize(config: Config, losses: dict[str, list[float]]) -> dict:
    """Mean losses of the last part, and their relative differences from the first run's."""
    last = max(1, round(config.last_part * config.updates))
    means = {name: float(np.mean(values[-last:])) for name, values in losses.items()}
    plain = next(iter(means.values()))
    return {name: {"loss": mean, "relative_difference": mean / plain - 1} for name, mean in means.items()}


def start_runs(config: Config, vocab_size: int, mesh) -> tuple[dict, ModelConfig]:
    """Name -> (first state, compiled update) of each run, the first without FP8; and the model in FP8."""
    model, optimizer = make_model(config, vocab_size), make_optimizer(config.optimizer, config.updates)
    scales, products = config.fp8_scales, config.fp8_products
    fp8 = dataclasses.replace(model, precision="fp8", fp8_scales=scales, fp8_products=products)
    key, init = jax.random.key(config.seed), functools.partial(init_params, model)
    (first, shardings), (second, _), (third, _) = (init_train_state(key, init, optimizer, mesh) for _ in range(3))
    nudged = second._replace(params=jax.tree.map(lambda x: x * (1 + 1e-6), second.params))
    plain, quantized = (
        make_train_step(gradient_sums(functools.partial(loss_sums, shape)), optimizer, shardings, router_bias_rate=1e-3)
        for shape in (model, fp8)
    )
    nudged_name = f"{config.dtype}, first weights x (1 + 1e-6)"
    return {config.dtype: (first, plain), nudged_name: (nudged, plain), "fp8": (third, quantized)}, fp8


def main(config: Config) -> None:
    tokenizer, folder, mesh = load_tokenizer(config.tokenizer), Path(config.workdir), make_mesh(MeshConfig())
    folder.mkdir(parents=True, exist_ok=True)
    log = JsonLines(folder / "metrics.jsonl", resume_step=0)
    with jax.set_mesh(mesh), launch.progress_bar() as progress:
        runs, fp8 = start_runs(config, tokenizer.vocab_size, mesh)
        losses = {name: [] for name in runs}
        task = progress.add_task("fp8", total=config.updates, figures="")
        for update in range(1, config.updates + 1):
            batch = jax.device_put(make_batch(config, tokenizer, update), batch_sharding(mesh))
            for name, (state, step) in runs.items():
                state, metrics = step(state, batch, {})
                check_finite(metrics, f"update {update} of {name}")
                runs[name] = state, step
                losses[name].append(float(metrics["loss"]))
            log.write({"step": update} | {name: values[-1] for name, values in losses.items()})
            figures = "  ".join(f"{values[-1]:.4f}" for values in losses.values())
            progress.update(task, completed=update, figures=figures)
    summary = summarize(config, losses)
    table = Table("run", f"loss, last {config.last_part:.0%} of {config.updates} updates", "difference")
    for name, figures in summary.items():
        table.add_row(name, f"{figures['loss']:.5f}", f"{figures['relative_difference']:+.3%}")
    launch.console.print(table)
    facts = {"config": to_dict(config), "model": to_dict(fp8)}
    write_json(folder / "fp8_loss.json", facts | {"runs": summary, "losses": losses})


if __name__ == "__main__":
    launch.run(main, Config)
