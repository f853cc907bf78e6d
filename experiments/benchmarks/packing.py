"""What packing saves in scoring and update: rows padded, packed, and packed with shared prompts, on the same rows.

Two workloads: the miniature's countdown, with short prompts and completions of very different lengths, and a small
chat model with long prompts and short answers. Each layout runs in turn in one process, because a machine's speed
drifts; figures are medians, and ratios are to the padded form.
"""

import dataclasses
import functools
import statistics
import time

import jax
import numpy as np
from rich.table import Table

from r1jax import launch
from r1jax.metrics import write_json
from r1jax.models.config import ModelConfig
from r1jax.models.presets import miniature
from r1jax.models.transformer import init_params
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.rl import GrpoRows, Rows, grpo_batch_loss
from r1jax.rl_layout import Layout, packed_layout, padded_layout
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.train import init_train_state, make_train_step

SCALARS = {"temperature": 1.0, "clip_epsilon": 0.2, "kl_coef": 0.001}


@dataclasses.dataclass(frozen=True)
class Config:
    """A table of ratios, one line for each workload and layout."""

    rounds: int = 5
    """Timed iterations of each layout, each with new lengths."""
    seed: int = 0
    """Draws lengths and tokens of all workloads."""
    json: str = ""
    """The same figures are written here."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """Shapes of one iteration."""

    model: ModelConfig
    prompts: int
    group_size: int
    slots: int
    width: int
    mean_length: float
    """Of completions, drawn from a geometric distribution and cut at `width`."""
    shortest_prompt: int
    mini_batches: int
    rows_at_a_time: int
    """Of padded rows in a micro-batch."""
    packed_at_a_time: int
    """The same of packed rows: fewer, for only as many micro-batches are run as are filled."""


CHAT = ModelConfig(
    vocab_size=8192, embed_dim=192, num_layers=4, num_dense_layers=4, mlp_dim=512, num_heads=6, num_kv_heads=2,
    head_dim=32, tied_embeddings=True, init_stddev=0.05, dtype="float32", unroll_layers=True, remat=False,
)  # fmt: skip
COUNTDOWN = Workload(miniature(271), 8, 16, 12, 128, 30.0, 9, 2, 16, 8)
WORKLOADS = {
    "countdown, mean 30 of 128": COUNTDOWN,
    "countdown, mean 100 of 128": dataclasses.replace(COUNTDOWN, mean_length=100.0),
    "chat, 44 + 8": Workload(CHAT, 16, 8, 44, 8, 6.0, 36, 4, 32, 32),
}


def draw_rows(work: Workload, draw: np.random.Generator) -> GrpoRows:
    """Random rows of one iteration."""
    batch, vocab = work.prompts * work.group_size, work.model.vocab_size
    lengths = np.minimum(draw.geometric(1 / work.mean_length, batch), work.width)
    rows = Rows(
        draw.integers(0, vocab, (work.prompts, work.slots)).astype(np.int32).repeat(work.group_size, 0),
        draw.integers(work.shortest_prompt, work.slots + 1, work.prompts).astype(np.int32).repeat(work.group_size),
        draw.integers(0, vocab, (batch, work.width)).astype(np.int32),
        np.arange(work.width)[None] < lengths[:, None],
    )
    return GrpoRows(rows, None, None, draw.normal(size=batch).astype(np.float32))


def make_run(work: Workload, layout: Layout, sharing: int, mesh):
    """run(batch) -> (seconds of scoring, seconds of updates, tokens, places); it keeps a state of its own."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-5), 1000)
    state, shardings = init_train_state(jax.random.key(0), functools.partial(init_params, work.model), optimizer, mesh)
    train_step = make_train_step(layout.sums, optimizer, shardings)
    states = [state]

    def run(batch: GrpoRows):
        began, state = time.perf_counter(), states.pop()
        rows, usage = layout.arrange(batch.rows)
        rows = jax.device_put(rows)
        old, ref = (layout.score(state.params, state.router_bias, rows, 1.0) for _ in range(2))
        batch, usage = jax.block_until_ready(batch._replace(old_logprobs=old, ref_logprobs=ref)), np.array(usage)
        scored = time.perf_counter()
        order = np.random.default_rng(0).permutation(len(old) // sharing)[:, None] * sharing + np.arange(sharing)
        for chosen in order.reshape(work.mini_batches, -1):
            mini_batch = jax.tree.map(lambda x: x[chosen], batch)
            rows, places = layout.arrange(mini_batch.rows)
            state, _ = train_step(state, jax.device_put(mini_batch._replace(rows=rows)), SCALARS)
            usage += places
        states.append(jax.block_until_ready(state))
        return scored - began, time.perf_counter() - scored, *usage

    return run


def measure(work: Workload, config: Config, mesh) -> dict[str, dict]:
    """Medians of a workload by layout."""
    packed = lambda sharing: packed_layout(
        work.model, grpo_batch_loss, sharing=sharing, rows_at_a_time=max(work.packed_at_a_time // sharing, 1)
    )
    padded = padded_layout(work.model, grpo_batch_loss, width=work.width, rows_at_a_time=work.rows_at_a_time)
    layouts = {
        "padded": (padded, 1),
        "rows": (packed(1), 1),
        "shared prompts": (packed(work.group_size), work.group_size),
    }
    runs = {name: make_run(work, layout, sharing, mesh) for name, (layout, sharing) in layouts.items()}
    draw, records = np.random.default_rng(config.seed), {name: [] for name in runs}
    for round in range(config.rounds + 1):
        batch = draw_rows(work, draw)
        for name, run in runs.items():
            record = run(batch)
            if round:  # the first compiles
                records[name].append(record)
    medians = {}
    for name, rows in records.items():
        scoring, update, tokens, places = (statistics.median(column) for column in zip(*rows))
        medians[name] = {"scoring": scoring, "update": update, "padding": 1 - tokens / places, "places": int(places)}
    return medians


def main(config: Config) -> None:
    mesh, figures = make_mesh(MeshConfig()), {}
    table = Table("workload", "layout", "scoring", "update", "padding", "places", "time to padded")
    with jax.set_mesh(mesh):
        for name, work in WORKLOADS.items():
            launch.console.print(f"{name} ...")
            figures[name] = measure(work, config, mesh)
            total = lambda row: row["scoring"] + row["update"]
            for layout, row in figures[name].items():
                row["ratio"] = total(row) / total(figures[name]["padded"])
                seconds = f"{row['scoring']:.3f} s", f"{row['update']:.3f} s"
                table.add_row(
                    name, layout, *seconds, f"{row['padding']:.0%}", str(row["places"]), f"{row['ratio']:.2f}"
                )
    launch.console.print(table)
    if config.json:
        write_json(config.json, figures)


if __name__ == "__main__":
    launch.run(main, Config)
