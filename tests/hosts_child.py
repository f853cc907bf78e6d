"""One of several processes of a test: it joins the others, does what hosts do together, and says what it saw.

Argument: a folder that all share; findings go to HOST.json in it.
"""

import json
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny_policy import tiny_policy

from r1jax import checkpoint, hosts, launch
from r1jax.config import UserError
from r1jax.data.mixture import Source
from r1jax.data.streams import Hosts, record_stream
from r1jax.evaluation import submit_groups
from r1jax.generation.relayout import make_relayout
from r1jax.models.reward_model import adopt_decoder
from r1jax.models.transformer import init_params
from r1jax.reward_model import make_row_scorer
from r1jax.rewards.judgement import Judgement
from r1jax.rewards.verdict import Judged
from r1jax.sharding import MeshConfig, batch_sharding, make_mesh, replicated, reshape_mesh, tree_shardings
from r1jax.train import LossOutput, gradient_sums, init_train_state, make_train_step

RECORDS, BATCH, SEED, UPDATES = 40, 8, 3, 3
WEIGHTS = np.linspace(-1.0, 1.0, 8, dtype=np.float32)
TEXTS = [[5, 6, 7], [8], [9, 10]]


def row_of(record: int) -> np.ndarray:
    """[8] float32, what the small regression learns from."""
    return np.random.default_rng(record).normal(size=8).astype(np.float32)


def open_stream(share) -> object:
    """The records of two epochs, read by a host."""
    source = Source("numbers", list(range(RECORDS)))
    return record_stream([source], batch=BATCH, seed=SEED, epochs=2, hosts=Hosts(*share), read_ahead=0)


def regression(params, bias, batch, scalars) -> LossOutput:
    """The squared distance from a teacher; the weights of both are cut along fsdp."""
    loss = jnp.sum((batch @ params["weights"] - batch @ scalars["teacher"]) ** 2)
    return LossOutput(loss, jnp.float32(len(batch)), {}, jnp.zeros((0, 2)))


def start(mesh):
    """A state and its update."""
    init = lambda key: ({"weights": nn.LogicallyPartitioned(jnp.zeros(8), ("embed",))}, jnp.zeros((0, 2)))
    optimizer = optax.sgd(0.1)
    state, shardings = init_train_state(jax.random.key(0), init, optimizer, mesh)
    return state, make_train_step(gradient_sums(regression), optimizer, shardings)


def judged_here(records, texts) -> Judged:
    """Verdicts that name who gave them."""
    mine = str(jax.process_index())
    return Judged([{"accuracy": Judgement("correct", len(text) / 10, mine)} for text in texts])


def refuse() -> None:
    raise UserError("the first host cannot")


def train(folder: Path, share, sharding) -> list[list[int]]:
    """A few updates on this host's records, saved together; the records by batch."""
    seen, stream = [], open_stream(share)
    state, step = start(sharding.mesh)
    teacher = hosts.place(WEIGHTS, state.params["weights"].sharding)
    for _ in range(UPDATES):
        seen.append([int(record) for record in next(stream)])
        rows = np.stack([row_of(record) for record in seen[-1]])
        state, _ = step(state, hosts.place_share(rows, sharding), {"teacher": teacher})
    manager = checkpoint.open_checkpoints(folder)
    facts = {"data": stream.state()}
    checkpoint.save(manager, UPDATES, arrays=state._asdict(), facts=facts, wait=True)
    return seen


def score_and_relay(mesh) -> dict:
    """Random weights, cut over the hosts: what a reward model of them says of three texts, two at a time, and whether
    they are the same when they are laid out anew for a sampler's mesh, and elsewhere."""
    model = tiny_policy().model
    init = partial(init_params, model)
    shardings = tree_shardings(jax.eval_shape(init, jax.random.key(0)), mesh)
    params, bias = jax.jit(lambda key: nn.meta.unbox(init(key)), out_shardings=shardings)(jax.random.key(0))
    head = hosts.place(np.linspace(-1, 1, model.embed_dim, dtype=np.float32), replicated(mesh))
    scores = make_row_scorer(model, mesh, batch=2, length=4)(adopt_decoder({"score": head}, params), bias, TEXTS)
    relaid, _ = make_relayout(model, reshape_mesh(mesh, MeshConfig(fsdp=1, expert=mesh.size)))(params, bias)
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(relaid), strict=True))
    return {
        "scores": scores.tolist(),
        "moved": any(x.sharding.shard_shape(x.shape) != y.sharding.shard_shape(y.shape) for x, y in pairs),
        "same": all((hosts.fetch(x) == hosts.fetch(y)).all() for x, y in pairs),
    }


def main(folder: Path) -> dict:
    jax.config.update("jax_enable_compilation_cache", False)  # every compilation is one, and is heard
    compiled = []
    listen = lambda name, seconds, **_: compiled.append(name) if name.endswith("backend_compile_duration") else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    mesh = make_mesh(MeshConfig())
    sharding = batch_sharding(mesh)
    share = hosts.share_of(sharding)
    whole = np.arange(2 * BATCH).reshape(BATCH, 2)
    try:
        refusal = hosts.on_first(refuse)
    except UserError as error:
        refusal = str(error)
    texts = [["a", "bb", "a"], ["cc", "d", "eeee"]]
    with jax.set_mesh(mesh):
        seen = train(folder, share, sharding)
        for _ in range(2):
            before = len(compiled)
            fetched = hosts.fetch(hosts.place(whole, sharding))
            keys = hosts.place(jax.vmap(jax.random.key)(np.arange(BATCH)), sharding)
            key_data = hosts.fetch(jax.random.key_data(keys))
            verdicts = submit_groups(judged_here, [{}, {}], texts).result()
    return {
        "processes": jax.process_count(),
        "share": share,
        "seen": seen,
        "fetched": bool((fetched == whole).all()),
        "keys": key_data.tolist(),
        "compiled": [before, len(compiled)],
        "gathered": hosts.gather("x" * (jax.process_index() * 5 + 1)),
        "flags": [hosts.any_host(jax.process_index() == 1), hosts.any_host(False)],
        "first": hosts.on_first(lambda: Path(f"of {jax.process_index()}")).name,
        "refusal": refusal,
        "weights": score_and_relay(mesh),
        "verdicts": [[v["accuracy"].score, v["accuracy"].reason] for v in verdicts],
    }


if __name__ == "__main__":
    launch.connect(False)
    folder = Path(sys.argv[1])
    (folder / f"{jax.process_index()}.json").write_text(json.dumps(main(folder / "run")))
