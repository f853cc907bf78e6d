"""Experts reached by an all-to-all, against the ring and one device; XLA for CPU has none, so tests emulate it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from test_expert_parallel import CHILD, run_child

from r1jax.aot.measure import topology_devices
from r1jax.models.moe import _takes_exchange
from r1jax.models.presets import deepseek_v3, for_tpu
from r1jax.ops.expert_exchange import exchange_is_shorter, experts_exchange
from r1jax.ops.expert_parallel import ExpertAxes
from r1jax.ops.grouped import grouped_dot
from r1jax.ops.moe import experts_windowed
from r1jax.sharding import MeshConfig, make_abstract_mesh, make_mesh

EMULATION = """
import functools, jax, jax.numpy as jnp
import r1jax.models.moe
from r1jax.ops.expert_exchange import experts_exchange

def move(operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name):
    gather = functools.partial(jax.lax.all_gather, axis_name=axis_name)
    here, operand = jax.lax.axis_index(axis_name), gather(operand)
    offsets, sizes, places = (gather(x)[:, here] for x in (input_offsets, send_sizes, output_offsets))
    for source, rows in enumerate(operand):
        turn = jnp.arange(len(output)) - places[source]
        own = (turn >= 0) & (turn < jnp.minimum(sizes[source], recv_sizes[source]))
        taken = rows.at[offsets[source] + turn].get(mode="fill", fill_value=0)
        output = jnp.where(own.reshape(-1, *[1] * (rows.ndim - 1)), taken, output)
    return output

calls = []
def exchange(*arrays, **options):
    calls.append(1)
    return experts_exchange(*arrays, move=move, **options)

r1jax.models.moe.experts_exchange = exchange
"""


def exchanged(meshes, batch=8) -> list:
    code = CHILD.replace("num_layers=2", 'num_layers=2, expert_transport="all_to_all"')
    code = code.replace("(8, 6)", f"({batch}, 6)").replace("(8, 1)", f"({batch}, 1)").replace("MESHES", repr(meshes))
    return run_child(EMULATION + code + "\nassert calls")


EXPERTS = """
import json
import numpy as np
from r1jax.ops.expert_parallel import ExpertAxes
from r1jax.ops.moe import experts_dense, experts_ragged
from r1jax.sharding import MeshConfig, make_mesh

rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
x, weights, gate, up, down = draw(4, 6, 8), draw(4, 6, 3), draw(8, 8, 4), draw(8, 8, 4), draw(8, 4, 8)
spread = np.stack([rng.permutation(8)[:3] for _ in range(24)]).reshape(4, 6, 3)
axes = ExpertAxes(("data", "fsdp", "expert"), "sequence", "expert", ("fsdp", "sequence"), "tensor")
flat = lambda array: array.reshape(24, -1)

def dense(x, weights, *matrices, indices):
    return experts_dense(flat(x), flat(indices), flat(weights), *matrices).reshape(x.shape)

def placed(x, weights, *matrices, indices):
    return experts_exchange(x, indices, weights, *matrices, run=experts_ragged, axes=axes, move=move)

def slopes(run, indices):
    loss = lambda *arrays: jnp.sum(run(*arrays, indices=indices) * jnp.sin(jnp.arange(x.size).reshape(x.shape)))
    return jax.value_and_grad(loss, range(5))(x, weights, gate, up, down)

with jax.set_mesh(make_mesh(MeshConfig(fsdp=1, expert=4, tensor=2))):
    compiled = [jax.jit(functools.partial(slopes, run)) for run in (placed, dense)]
    # Spread evenly, all to one device, which needs the whole buffer, and all to the first and the last.
    for chosen in (spread, spread % 2 + np.array([2, 2, 2]), np.where(spread > 3, 7, 0)):
        got, want = (jax.tree.leaves(run(jnp.asarray(chosen, jnp.int32))) for run in compiled)
        print(json.dumps(max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(got, want))))
"""


def test_experts_that_tokens_travel_to_are_the_dense_sum_however_they_are_loaded():
    assert run_child(EMULATION + EXPERTS) == [pytest.approx(0, abs=1e-5)] * 3


@pytest.mark.slow
def test_a_model_is_the_same_where_tokens_travel_on_every_mesh():
    meshes = [(1, 2, 4, 1, 1), (2, 1, 2, 2, 1), (1, 1, 2, 2, 2), (1, 1, 8, 1, 1), (1, 1, 4, 1, 2)]
    assert exchanged(meshes) == [[list(sizes), pytest.approx(0, abs=1e-5)] for sizes in meshes]


def walk(ways: int, sides: int, visited: int) -> tuple[float, float]:
    """Rows over the busiest link of a closed torus, a token a device: ring, and exchange by the shortest ways."""
    side = round(ways ** (1 / sides))
    hops = [min(turn, side - turn) for turn in range(side)]
    links = 2 * sides * ways
    crossed = sum(visited / ways * ways * sides * sum(hops) / side for _ in range(ways))
    return (ways - 1) / (2 * sides), crossed / links


@pytest.mark.parametrize(("ways", "sides"), [(4, 1), (8, 1), (16, 2), (64, 2), (256, 2)])
def test_the_rule_is_a_count_of_hops(ways, sides):
    for visited in range(1, 33):
        ring, exchange = walk(ways, sides, visited)
        assert exchange_is_shorter(ways, visited) == (exchange < ring), visited


def test_the_rule_takes_the_ring_for_few_devices_and_the_exchange_for_many():
    model, taken = for_tpu(deepseek_v3()), {}
    for ways in (2, 8, 16, 32, 64):
        with jax.sharding.use_abstract_mesh(make_abstract_mesh(MeshConfig(fsdp=1, expert=ways))):
            axes = ExpertAxes(("data", "fsdp", "expert"), None, "expert", ("fsdp", "sequence"), "tensor")
            taken[ways] = _takes_exchange(model, axes)
            assert not _takes_exchange(model, axes._replace(batch=()))
            assert not _takes_exchange(dataclasses.replace(model, expert_transport="ring"), axes)
    assert taken == {2: False, 8: False, 16: False, 32: True, 64: True}


def test_the_tpu_compiler_has_the_exchange_forward_and_backward():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install -e '.[tpu]'")
    mesh = make_mesh(MeshConfig(fsdp=1, expert=4), topology_devices("v5e:2x2"))
    axes = ExpertAxes(("data", "fsdp", "expert"), "sequence", "expert", ("fsdp", "sequence"), "tensor")
    run = functools.partial(experts_windowed, windows=2, dot=grouped_dot)

    def loss(x, weights, gate, up, down, indices):
        return jnp.sum(
            experts_exchange(x, indices, weights, gate, up, down, run=run, axes=axes).astype(jnp.float32) ** 2
        )

    def abstract(shape, dtype, *axes):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    x, weights = abstract((4, 256, 512), jnp.bfloat16, "expert"), abstract((4, 256, 4), jnp.float32, "expert")
    gate, down = (abstract((16, *sizes), jnp.bfloat16, "expert") for sizes in ((512, 256), (256, 512)))
    indices = abstract((4, 256, 4), jnp.int32, "expert")
    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(loss, argnums=range(5))).lower(x, weights, gate, gate, down, indices).compile()
    assert compiled.as_text().count("ragged-all-to-all") >= 4
