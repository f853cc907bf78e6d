"""What log-probabilities by tiles cost beside logits held whole: time and temporary memory of a GRPO update.

The update is `value_and_grad` of the GRPO loss in hidden states and head, with the entropy as a metric. Memory is what
the compiler says it needs beyond arguments and results. Times are medians of paired runs.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from rich.table import Table

from r1jax import launch
from r1jax.config import UserError
from r1jax.metrics import write_json
from r1jax.objectives import grpo_loss, token_logprobs

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Config:
    """A table of ratios, one line a shape."""

    shapes: tuple[str, ...] = ("8x128x32768", "8x512x32768", "8x128x129280", "1x8192x129280")
    """Rows x times x vocabulary."""
    width: int = 256
    """Of the hidden states."""
    rounds: int = 3
    """Pairs of timed runs."""
    tile_bytes: int = 16 * MIB
    """Of a tile of logits."""
    most_gigabytes: float = 4.0
    """Updates that need more memory than this are compiled and not run."""
    json: str = ""
    """The same figures are written here."""


def whole_logprobs(hidden, head, targets):
    """Log-probabilities and entropies from logits held whole."""
    table = jax.nn.log_softmax(jnp.dot(hidden, head, preferred_element_type=jnp.float32))
    return jnp.take_along_axis(table, targets[..., None], -1)[..., 0], -jnp.sum(jnp.exp(table) * table, -1)


def make_update(logprobs_of: Callable, arguments):
    """Compile the update for the arguments."""

    def loss(hidden, head, targets, old, advantages, mask):
        logprobs, entropy = logprobs_of(hidden, head, targets)
        return grpo_loss(logprobs, old, old, advantages, mask)[0], jnp.sum(entropy * mask) / jnp.sum(mask)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(*arguments).compile()


def make_arguments(batch: int, length: int, vocab: int, width: int):
    """Random hidden states, head and targets; old log-probabilities, advantages, mask."""
    keys, tokens = jax.random.split(jax.random.key(0), 4), (batch, length)
    hidden = jax.random.normal(keys[0], (*tokens, width))
    head = jax.random.normal(keys[1], (width, vocab)) * width**-0.5
    targets = jax.random.randint(keys[2], tokens, 0, vocab)
    return hidden, head, targets, jnp.full(tokens, -10.0), jax.random.normal(keys[3], (batch,)), jnp.ones(tokens)


def seconds(update, arguments) -> tuple[float, float]:
    """Of the clock, and of all processors together: the second does not mind what else the machine is doing."""
    wall, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(update(*arguments))
    return time.perf_counter() - wall, time.process_time() - busy


def compare(config: Config, shape: str) -> dict:
    """Figures of one line."""
    try:
        batch, length, vocab = (int(size) for size in shape.split("x"))
    except ValueError as error:
        raise UserError(f"--shapes must be like 8x512x32768, not {shape}") from error
    abstract = jax.eval_shape(lambda: make_arguments(batch, length, vocab, config.width))
    tiles = lambda *arrays: token_logprobs(*arrays, tile_bytes=config.tile_bytes)
    updates = {"whole": make_update(whole_logprobs, abstract), "tiles": make_update(tiles, abstract)}
    memory = {name: update.memory_analysis().temp_size_in_bytes for name, update in updates.items()}
    logits = 4 * batch * length * vocab
    record = {"shape": shape, "logits_bytes": logits, "temporary_bytes": memory}
    record["of_logits"] = {name: size / logits for name, size in memory.items()}
    if memory["whole"] > config.most_gigabytes * 1e9:
        return record
    arguments = make_arguments(batch, length, vocab, config.width)
    for update in updates.values():
        seconds(update, arguments)
    pairs = [{name: seconds(update, arguments) for name, update in updates.items()} for _ in range(config.rounds)]
    for index, kind in enumerate(("clock", "processor")):
        record[f"{kind}_ratio"] = statistics.median(pair["tiles"][index] / pair["whole"][index] for pair in pairs)
        record[f"{kind}_seconds"] = {
            name: statistics.median(pair[name][index] for pair in pairs) for name in ("whole", "tiles")
        }
    return record


def main(config: Config) -> None:
    table = Table("rows x times x vocabulary", "logits MiB", "whole: memory", "tiles: memory", "time", "processor time")
    records = []
    for shape in config.shapes:
        records.append(record := compare(config, shape))
        of = record["of_logits"]
        times = [
            f"{record[f'{kind}_ratio']:.2f}x" if f"{kind}_ratio" in record else "-" for kind in ("clock", "processor")
        ]
        table.add_row(
            shape, f"{record['logits_bytes'] / MIB:.0f}", f"{of['whole']:.2f}x", f"{of['tiles']:.3f}x", *times
        )
    launch.console.print(table)
    launch.console.print("memory as a multiple of the logits, times as a multiple of whole; - where whole is too large")
    if config.json:
        write_json(config.json, {"config": dataclasses.asdict(config), "shapes": records})


if __name__ == "__main__":
    launch.run(main, Config)
