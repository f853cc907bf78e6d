"""Our side of the comparisons."""

import dataclasses
from functools import partial

from experiments.benchmarks.sides.protocol import Run, serve


def load(folder: str):
    """The model of a folder as `r1jax.policy` lays it out on CPU, params, router bias, mesh."""
    import jax

    from r1jax.interop.hf_config import read_hf_config
    from r1jax.interop.loading import has_mtp, load_checkpoint
    from r1jax.models.transformer import init_params
    from r1jax.sharding import MeshConfig, abstract_arrays, make_mesh

    mesh, model = make_mesh(MeshConfig()), read_hf_config(folder)
    mtp = model.num_mtp_layers if has_mtp(folder, model) else 0
    layout = {"dtype": "float32", "unroll_layers": True, "remat": False, "expert_dispatch": "dense"}
    model = dataclasses.replace(model, num_mtp_layers=mtp, **layout)
    shapes = abstract_arrays(jax.eval_shape(partial(init_params, model), jax.random.key(0)), mesh)
    return model, *load_checkpoint(folder, model, *shapes), mesh


def start_state(model, params, router_bias, mesh, *, learning_rate: float):
    """An optimizer, a TrainState of these weights, and its shardings."""
    import jax

    from r1jax.models.transformer import init_params
    from r1jax.optimizer import OptimizerConfig, make_optimizer
    from r1jax.train import init_train_state

    optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate), 1)
    state, shardings = init_train_state(jax.random.key(0), partial(init_params, model), optimizer, mesh)
    return optimizer, state._replace(params=params, router_bias=router_bias), shardings


def grpo_update(settings: dict, *, loss) -> tuple[Run, dict]:
    """Gradients of `loss` on given rollouts; memory is what the compiler says it needs beside arguments and results."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from r1jax.rl import GrpoRows, Rows
    from r1jax.train import gradient_sums

    model, params, router_bias, _ = load(settings["folder"])
    with np.load(settings["rollouts"]) as saved:
        given = {name: jnp.asarray(saved[name]) for name in saved.files}
    prompts = given["prompts"]
    rows = Rows(prompts, jnp.full(len(prompts), prompts.shape[1]), given["tokens"], given["mask"])
    batch = GrpoRows(rows, given["old_logprobs"], given["ref_logprobs"], given["advantages"])
    scalars = {"temperature": 1.0, "clip_epsilon": settings["clip_epsilon"], "kl_coef": settings["kl_coef"]}

    def update(params, router_bias, batch):
        grads, output = gradient_sums(partial(loss, model))(params, router_bias, batch, scalars)
        return jax.tree.map(lambda x: x / output.count, (grads, output.loss_sum))

    arguments = params, router_bias, batch
    compiled = jax.jit(update).lower(*arguments).compile()

    def run() -> dict:
        return {"loss": float(jax.block_until_ready(compiled(*arguments))[1])}

    return run, {"temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}


def streaming_update(settings: dict) -> tuple[Run, dict]:
    """As this project computes it: log-probabilities by tiles of the vocabulary."""
    from r1jax.rl import grpo_batch_loss

    return grpo_update(settings, loss=grpo_batch_loss)


def naive_update(settings: dict) -> tuple[Run, dict]:
    """The same loss from logits held whole."""
    import jax
    import jax.numpy as jnp

    from r1jax.generation.prefill import prompt_positions
    from r1jax.models.transformer import forward, output_head
    from r1jax.objectives import grpo_sums
    from r1jax.train import LossOutput

    def loss(model, params, router_bias, batch, scalars):
        rows, slots, length = batch.rows, batch.rows.prompts.shape[1], batch.rows.tokens.shape[1]
        after = jnp.where(rows.mask, rows.prompt_lengths[:, None] + jnp.arange(length), -1)
        positions = jnp.concatenate([prompt_positions(rows.prompt_lengths, slots), after], 1)[:, :-1]
        tokens = jnp.concatenate([rows.prompts, rows.tokens], 1)[:, :-1]
        hidden, _, load = forward(model, params, router_bias, tokens, positions)
        logits = hidden[:, slots - 1 :] @ output_head(model, params)
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), rows.tokens[..., None], -1)[..., 0]
        options = {name: scalars[name] for name in ("clip_epsilon", "kl_coef")}
        sums = grpo_sums(logprobs, batch.old_logprobs, batch.ref_logprobs, batch.advantages, batch.rows.mask, **options)
        return LossOutput(*sums, load)

    return grpo_update(settings, loss=loss)


def sampling(settings: dict) -> tuple[Run, dict]:
    """Completions of all prompts through `settings["rows"]` slots."""
    import jax
    import numpy as np

    from r1jax.generation.rollout import generate

    model, params, router_bias, _ = load(settings["folder"])
    prompts, rows = np.load(settings["prompts"]), settings["rows"]
    lengths, seeds = np.full(len(prompts), prompts.shape[1]), iter(range(1 << 30))
    ends = tuple(token for token in settings["eos_ids"] if token >= 0)

    def run() -> dict:
        keys = jax.random.split(jax.random.key(next(seeds)), len(prompts))
        rollout = generate(
            model, params, router_bias, prompts, lengths, keys, group_size=1, max_new_tokens=settings["new_tokens"],
            eos_ids=ends, slots=rows, halvings=settings["halvings"], widths=settings["widths"],
        )  # fmt: skip
        return {"tokens": int(np.asarray(rollout.mask).sum())}

    return run, {}


def grpo_step(settings: dict) -> tuple[Run, dict]:
    """Rollout, log-probabilities of the reference, advantages, one update; what `--grpo.no-watch-mismatch` runs."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from r1jax.generation.rollout import generate
    from r1jax.generation.sampler import SamplingConfig
    from r1jax.grpo_config import GrpoConfig
    from r1jax.objectives import group_advantages
    from r1jax.optimizer import OptimizerConfig
    from r1jax.rl import GrpoRows, Rows, grpo_batch_loss
    from r1jax.rl_layout import choose_layout
    from r1jax.train import make_train_step

    model, params, router_bias, mesh = load(settings["folder"])
    reference = jax.tree.map(jnp.copy, (params, router_bias))
    prompts, group, width = np.load(settings["prompts"]), settings["group_size"], settings["new_tokens"]
    sizes = SamplingConfig(prompts=len(prompts), group_size=group, prompt_slots=prompts.shape[1], max_new_tokens=width)
    config = GrpoConfig(
        optimizer=OptimizerConfig(learning_rate=1e-6), iterations=1, sampling=sizes, mini_batches=1,
        micro_batches=settings["micro_batches"], packing=settings["packing"], watch_mismatch=False, reference_every=1,
    )  # fmt: skip
    config.check(mesh)
    learning_rate = config.optimizer.learning_rate
    optimizer, state, shardings = start_state(model, params, router_bias, mesh, learning_rate=learning_rate)
    layout = choose_layout(model, config, grpo_batch_loss)
    step = make_train_step(layout.sums, optimizer, shardings)
    scalars = {"temperature": 1.0, "clip_epsilon": settings["clip_epsilon"], "kl_coef": settings["kl_coef"]}
    ends = (settings["eos_id"],) if settings["mean_tokens"] else ()
    lengths, seeds = np.full(len(prompts), prompts.shape[1]), iter(range(1 << 30))

    def run() -> dict:
        nonlocal state
        keys = jax.random.split(jax.random.key(next(seeds)), len(prompts))
        rollout = generate(
            model, state.params, state.router_bias, prompts, lengths, keys, group_size=group, max_new_tokens=width,
            eos_ids=ends, slots=settings["slots"], halvings=settings["halvings"], widths=settings["widths"],
        )  # fmt: skip
        flat = lambda x: np.asarray(x).reshape(-1, width)
        rows = Rows(np.repeat(prompts, group, 0), np.repeat(lengths, group), *map(flat, rollout[:2]))
        rewards = (rows.tokens[:, 0] % 2).astype(np.float32).reshape(-1, group)
        arranged, _ = layout.arrange(rows)
        ref = layout.score(*reference, arranged, 1.0)
        batch = GrpoRows(arranged, None, ref, np.asarray(group_advantages(rewards)).reshape(-1))
        state, metrics = step(state, batch, scalars)
        return {"tokens": int(rows.mask.sum()), "loss": float(metrics["loss"])}

    return run, {}


def train_step(settings: dict) -> tuple[Run, dict]:
    """Next-token loss, gradients, clipping, AdamW."""
    import jax
    import numpy as np

    from r1jax.models.transformer import forward, output_head
    from r1jax.objectives import next_token_sums, token_logprobs
    from r1jax.train import LossOutput, gradient_sums, make_train_step

    model, params, router_bias, mesh = load(settings["folder"])
    model = dataclasses.replace(model, expert_dispatch=settings["dispatch"])
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    optimizer, state, shardings = start_state(model, params, router_bias, mesh, learning_rate=1e-4)
    tokens = np.load(settings["tokens"])
    positions = np.broadcast_to(np.arange(tokens.shape[1] - 1), (len(tokens), tokens.shape[1] - 1))

    def loss(params, router_bias, tokens, _):
        hidden, _, load = forward(model, params, router_bias, tokens[:, :-1], positions)
        logprobs, _ = token_logprobs(hidden, output_head(model, params), tokens[:, 1:])
        return LossOutput(*next_token_sums(logprobs, np.ones_like(positions)), {}, load)

    step = make_train_step(gradient_sums(loss), optimizer, shardings)

    def run() -> dict:
        nonlocal state
        state, metrics = step(state, tokens, {})
        return {"tokens": tokens.size, "loss": float(metrics["loss"])}

    return run, {"parameters": count}


def machine(settings: dict) -> tuple[Run, dict]:
    """What this machine can do: bytes a second read and written by two copies at once, FLOPs of a matrix product."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    import jax
    import jax.numpy as jnp
    import numpy as np

    source, target = np.ones((2, 1 << 25), np.float32), np.zeros((2, 1 << 25), np.float32)
    pool, matrix = ThreadPoolExecutor(2), jnp.ones((2048, 2048))
    square = jax.jit(jnp.dot)

    def fastest(action) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def run() -> dict:
        copy = fastest(lambda: list(pool.map(np.copyto, target, source)))
        product = fastest(lambda: jax.block_until_ready(square(matrix, matrix)))
        return {"bytes_per_second": 2 * source.nbytes / copy, "flops_per_second": 2 * 2048**3 / product}

    return run, {}


if __name__ == "__main__":
    import jax

    from r1jax.sharding import MeshConfig, make_mesh

    jax.config.update("jax_platforms", "cpu")
    with jax.set_mesh(make_mesh(MeshConfig())):
        serve(
            {
                "update": streaming_update, "naive": naive_update, "sampling": sampling, "step": grpo_step,
                "train": train_step, "machine": machine,
            }
        )  # fmt: skip
