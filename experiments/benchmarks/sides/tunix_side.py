"""Tunix's side of the comparisons: google-tunix 0.1.7 with its own Qwen2, read from the same weights."""

from experiments.benchmarks.sides.protocol import FirstToken, Run, in_turns, serve


class Numbers:
    """A tokenizer for which "17 4 9" is the tokens 17, 4 and 9, as Tunix wants one."""

    def __init__(self, settings: dict):
        self._pad, self._eos = settings["pad_id"], settings["eos_id"]

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids) -> str:
        return " ".join(str(token) for token in ids)

    def bos_id(self) -> None:
        return None

    def eos_id(self) -> int:
        return self._eos

    def pad_id(self) -> int:
        return self._pad


def load(settings: dict):
    """Tunix's model, and the configuration it was made from."""
    import json
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    from tunix.models.qwen2 import model as qwen2
    from tunix.models.qwen2 import params

    record = json.loads((Path(settings["folder"]) / "config.json").read_text())
    config = qwen2.ModelConfig(
        num_layers=record["num_hidden_layers"], vocab_size=record["vocab_size"], embed_dim=record["hidden_size"],
        hidden_dim=record["intermediate_size"], num_heads=record["num_attention_heads"],
        head_dim=record["hidden_size"] // record["num_attention_heads"], num_kv_heads=record["num_key_value_heads"],
        rope_theta=record["rope_theta"], norm_eps=record["rms_norm_eps"], dtype=jnp.float32,
    )  # fmt: skip
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    return params.create_model_from_safe_tensors(settings["folder"], config, mesh, jnp.float32), config, mesh


def grpo_config(settings: dict, group_size: int):
    """DeepSeekMath's objective with k3, as ours; Tunix's own default for the KL is k1."""
    from tunix.rl.grpo.grpo_learner import GRPOConfig

    return GRPOConfig(
        num_generations=group_size, num_iterations=1, beta=settings["kl_coef"], epsilon=settings["clip_epsilon"],
        kl_loss_mode="low_var_kl", loss_agg_mode="sequence-mean-token-mean",
    )  # fmt: skip


def update(settings: dict) -> tuple[Run, dict]:
    """Gradients of `grpo_loss_fn`; memory is what the compiler says it needs beside arguments and results."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx
    from tunix.rl import algo_core
    from tunix.rl.grpo.grpo_learner import TrainExample

    model, _, _ = load(settings)
    with np.load(settings["rollouts"]) as saved:
        given = {name: jnp.asarray(saved[name]) for name in saved.files}
    example = TrainExample(
        prompt_ids=given["prompts"], prompt_mask=jnp.ones_like(given["prompts"], bool),
        completion_ids=given["tokens"], completion_mask=given["mask"], advantages=given["advantages"],
        ref_per_token_logps=given["ref_logprobs"], old_per_token_logps=given["old_logprobs"],
    )  # fmt: skip
    config = grpo_config(settings, 2)
    config.temperature = 1.0
    graph, state = nnx.split(model)
    ids = {"pad_id": settings["pad_id"], "eos_id": settings["eos_id"]}

    def loss(state, example):
        return algo_core.grpo_loss_fn(nnx.merge(graph, state), example, config, **ids)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(state, example).compile()

    def run() -> dict:
        (value, _), _ = jax.block_until_ready(compiled(state, example))
        return {"loss": float(value.compute() if hasattr(value, "compute") else value)}

    return run, {"temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}


def sampling(settings: dict) -> tuple[Run, dict]:
    """Completions of all prompts, `settings["rows"]` at a time; a batch runs until its last row is done."""
    import numpy as np
    from tunix.generate.sampler import CacheConfig, Sampler

    model, config, _ = load(settings)
    prompts, rows, length = np.load(settings["prompts"]), settings["rows"], settings["new_tokens"]
    cache = CacheConfig(prompts.shape[1] + length + 1, config.num_layers, config.num_kv_heads, config.head_dim)
    sampler = Sampler(model, Numbers(settings), cache)
    texts, seeds = [" ".join(map(str, row)) for row in prompts], iter(range(1 << 30))

    def run() -> dict:
        tokens = 0
        for at in range(0, len(texts), rows):
            output = sampler(
                texts[at : at + rows], length, max_prompt_length=prompts.shape[1], eos_tokens=settings["eos_ids"],
                temperature=1.0, top_p=1.0, seed=next(seeds),
            )  # fmt: skip
            tokens += sum(map(len, output.tokens))
        return {"tokens": tokens}

    return run, {}


def make_cluster(settings: dict, prompt_tokens: int):
    """Policy and reference, rollouts that nothing ends but, where lengths differ, the end of a sequence; our AdamW."""
    import optax
    from tunix.rl import rl_cluster
    from tunix.rl.rollout.base_rollout import RolloutConfig

    actor, _, mesh = load(settings)
    reference, _, _ = load(settings)
    length = settings["new_tokens"]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, b1=0.9, b2=0.95, weight_decay=0.1))
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    training = rl_cluster.RLTrainingConfig(actor_optimizer=optimizer, eval_every_n_steps=1 << 30, max_steps=1 << 30)
    rollout = RolloutConfig(
        max_tokens_to_generate=length, max_prompt_length=prompt_tokens, kv_cache_size=prompt_tokens + length + 1,
        temperature=1.0, top_p=1.0, seed=0, eos_tokens=[settings["eos_id"] if settings["mean_tokens"] else -1],
    )  # fmt: skip
    config = rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh), training_config=training, rollout_config=rollout
    )
    return rl_cluster.RLCluster(actor=actor, reference=reference, tokenizer=Numbers(settings), cluster_config=config)


def step(settings: dict) -> tuple[Run, dict]:
    """`GRPOLearner.train`, one global step a turn."""
    import jax
    import numpy as np
    from flax import nnx
    from tunix.rl.grpo.grpo_learner import GRPOLearner

    prompts = np.load(settings["prompts"])
    cluster = make_cluster(settings, prompts.shape[1])
    reward = FirstToken(settings)
    learner = GRPOLearner(cluster, grpo_config(settings, settings["group_size"]), reward)
    texts = np.array([" ".join(map(str, row)) for row in prompts])

    def loop(wait) -> None:
        def batches():
            while True:
                jax.block_until_ready(jax.tree.leaves(nnx.state(cluster.actor_trainer.model)))
                wait()
                yield {"prompts": texts}

        learner.train(batches())

    turn = in_turns(loop)
    return lambda: turn() or {"tokens": reward.take_count()}, {}


if __name__ == "__main__":
    serve({"update": update, "sampling": sampling, "step": step})
