"""Sequences that are cut over devices, against the same model on one; kernels run as ordinary operations."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from test_expert_parallel import run_child

from r1jax.aot.measure import topology_devices
from r1jax.models.attention import _expand
from r1jax.models.presets import deepseek_v3, for_tpu
from r1jax.ops.sequence_parallel import SequenceAxes, sequence_attend, zigzag_order
from r1jax.sharding import MeshConfig, make_mesh

CHILD = """
import dataclasses, functools, json
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
import r1jax.ops.splash
from r1jax.models.cache import along_slots
from r1jax.models.mtp import mtp_forward
from r1jax.models.presets import miniature, student
from r1jax.models.transformer import forward_with_routing, init_params
from r1jax.sharding import MeshConfig, make_mesh, tree_shardings

make_kernel = r1jax.ops.splash.make_splash_mha
r1jax.ops.splash.make_splash_mha = lambda mask, **options: make_kernel(mask, **options | {"interpret": True})
LENGTH, BATCH = 16, 4
rng = np.random.default_rng(0)
tokens = jnp.asarray(rng.integers(0, 64, (BATCH, LENGTH)), jnp.int32)
# Rows that pack a prompt, two of its completions, which see it too where there are parents, and padding.
widths = [[5, 4, 5, 2], [1, 9, 6, 0], [12, 1, 1, 2], [4, 4, 4, 4]]
segments = np.stack([np.repeat([1, 2, 3, 0], width) for width in widths])
inside = np.stack([np.concatenate([np.arange(n) for n in width]) for width in widths])
after = (segments > 1) * np.array(widths)[:, :1] * PARENTS
positions = jnp.asarray(np.where(segments > 0, inside + after, -1), jnp.int32)
parents = jnp.asarray(np.where(segments > 1, 1, segments), jnp.int32) if PARENTS else None
segments = jnp.asarray(segments, jnp.int32)
seen = (segments > 0)[..., None]

def slopes_of(model, params, bias):
    def loss(params, tokens, positions):
        hidden, entries, routing = forward_with_routing(
            model, params, bias, tokens, positions, segments=segments, parents=parents
        )
        if model.num_mtp_layers:
            after, more = mtp_forward(model, params, bias, hidden, tokens, positions, segments=segments)
            hidden = hidden + after
            routing = jax.tree.map(jnp.add, routing, more)
        hidden = jnp.where(seen, hidden, 0)
        value = jnp.sum(hidden * jnp.sin(jnp.arange(hidden.size).reshape(hidden.shape)))
        kept = along_slots(lambda axis, x: jnp.where(jnp.expand_dims(
            segments > 0, [place for place in range(x.ndim) if place not in (1, axis)]), x, 0), (entries.dense, entries.moe))
        experts = jnp.where(seen, routing.experts, 0)
        return value, (hidden, kept, routing.load, experts)
    return jax.grad(loss, has_aux=True)

both, layer = miniature(64), {"num_layers": 1, "num_dense_layers": 1}
PRESETS = {
    "experts": dataclasses.replace(both, num_layers=2, num_mtp_layers=1),
    "latent": dataclasses.replace(both, num_mtp_layers=0, **layer),
    "grouped": dataclasses.replace(student(64), **layer),
}
apart = lambda a, b: float(abs(a - b).max() / max(abs(b).max(), 1)) if a.size else 0.0
for preset, attention in KINDS:
    model = dataclasses.replace(PRESETS[preset], init_stddev=0.1, unroll_layers=False)
    params, bias = jax.jit(lambda: nn.meta.unbox(init_params(model, jax.random.key(0))))()
    want = jax.device_get(jax.jit(slopes_of(model, params, bias))(params, tokens, positions))
    model = dataclasses.replace(model, attention=attention)
    for sizes in MESHES:
        mesh = make_mesh(MeshConfig(*sizes))
        layout = tree_shardings(jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0)), mesh)[0]
        with jax.set_mesh(mesh):
            update = jax.jit(slopes_of(model, params, bias), out_shardings=(layout, None))
            compiled = update.lower(jax.device_put(params, layout), tokens, positions).compile()
            got = jax.device_get(compiled(jax.device_put(params, layout), tokens, positions))
        gathered = "all-gather" in compiled.as_text()
        print(json.dumps([preset, attention, sizes, gathered, max(jax.tree.leaves(jax.tree.map(apart, got, want)))]))
"""


def check(kinds, meshes, parents: int) -> None:
    code = CHILD.replace("KINDS", repr(kinds)).replace("MESHES", repr(meshes)).replace("PARENTS", str(parents))
    assert run_child(code) == [
        [*kind, list(sizes), True, pytest.approx(0, abs=1e-5)] for kind in kinds for sizes in meshes
    ]


def test_a_model_is_the_same_where_sequences_are_cut():
    check([("latent", "einsum")], [(1, 2, 1, 2, 2)], parents=1)


KERNELS = """
import functools, json
import jax, jax.numpy as jnp, numpy as np
from r1jax.ops.attention import attend, attention_mask
from r1jax.ops.sequence_parallel import SequenceAxes, sequence_attend, zigzag
from r1jax.sharding import MeshConfig, make_mesh

rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
query, compressed, matrix, slope = draw(2, 48, 2, 128), draw(2, 48, 96), draw(32, 2, 192), draw(2, 48, 2, 128)
segments = jnp.asarray(np.stack([np.repeat([1, 2, 0], [20, 21, 7]), np.repeat([1, 2, 3], [1, 40, 7])]), jnp.int32)
places, seen = jnp.tile(jnp.arange(48), (2, 1)), (segments > 0)[..., None, None]
axes = SequenceAxes(("data", "fsdp", "expert"), "sequence", "tensor", ("fsdp", "sequence"))

def expand(compressed, matrix):
    heads = jnp.einsum("btr,rnh->btnh", compressed[..., :32], matrix)
    shared = jnp.broadcast_to(compressed[:, :, None, 32:], (*heads.shape[:3], 64))
    return jnp.concatenate([heads[..., :64], shared], axis=-1), heads[..., 64:]

def whole(query, compressed, matrix):
    mask = attention_mask(places, places, segments, segments)
    return attend(query, *expand(compressed, matrix), mask, scale=0.1)

def cut(query, compressed, matrix):
    move = functools.partial(zigzag, rows=0, axis=1, batch=axes.batch, length=axes.length)
    arrays = move(query), move(compressed), matrix, None, move(segments)
    options = dict(expand=expand, attend=None, scale=0.1, axes=axes, interpret=True)
    return move(sequence_attend(*arrays, **options), back=True)

def slopes(run):
    def loss(*arrays):
        out = jnp.where(seen, run(*arrays), 0)
        return jnp.sum(out * slope), out
    return jax.jit(jax.grad(loss, range(3), has_aux=True))(query, compressed, matrix)

want = jax.tree.leaves(slopes(whole))
with jax.set_mesh(make_mesh(MeshConfig(fsdp=2, sequence=2, tensor=2))):
    got = jax.tree.leaves(slopes(cut))
print(json.dumps([float(abs(a - b).max() / abs(b).max()) for a, b in zip(got, want)]))
"""


def test_kernels_of_cut_sequences_are_the_reference_with_segments_and_lengths_that_fill_no_block():
    assert run_child(KERNELS) == [[pytest.approx(0, abs=1e-5)] * 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "parents"), [("einsum", 0), ("splash", 0), ("einsum", 1)], ids=["einsum", "splash", "parents"]
)
def test_models_are_the_same_however_sequences_are_cut(attention, parents):
    kinds = [("experts", attention), ("grouped", attention)]
    meshes = [(1, 1, 1, 2, 4), (1, 1, 1, 1, 8), (1, 2, 2, 1, 2)]
    check(kinds, meshes if attention == "einsum" else meshes[:1], parents)  # kernels compile slowly as operations


@given(ways=st.integers(1, 9), half=st.integers(1, 5))
def test_every_device_has_as_many_keys_to_see(ways, half):
    order = zigzag_order(ways, 2 * ways * half)
    assert sorted(order) == list(range(2 * ways * half))
    seen = (order + 1).reshape(ways, -1).sum(1)
    assert len(set(seen)) == 1


def test_the_tpu_compiler_gathers_the_latent_alone():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install -e '.[tpu]'")
    ways, length, model = 4, 32768, for_tpu(deepseek_v3())
    mesh = make_mesh(MeshConfig(fsdp=1, sequence=ways), topology_devices("v5p:2x2x1"))
    axes = SequenceAxes(("data", "fsdp", "expert"), "sequence", "tensor", ("fsdp", "sequence"))

    def loss(query, compressed, matrix, segments):
        mixed = sequence_attend(
            query, compressed, matrix, None, segments, expand=functools.partial(_expand, model), attend=None, scale=0.1,
            axes=axes,
        )  # fmt: skip
        return jnp.sum(mixed.astype(jnp.float32) ** 2)

    def abstract(shape, *axes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    query, compressed = abstract((1, length, 128, 192), None, "sequence"), abstract((1, length, 576), None, "sequence")
    matrix = abstract((512, 128, 256), ("fsdp", "sequence"))
    with jax.set_mesh(mesh):
        segments = abstract((1, length), None, "sequence", dtype=jnp.int32)
        compiled = jax.jit(jax.grad(loss, argnums=range(3))).lower(query, compressed, matrix, segments).compile()
    text = compiled.as_text()
    assert "splash" in text
    moved = [line for line in text.splitlines() if " all-gather" in line or " all-to-all" in line]
    assert moved and not [line for line in moved if f"{length},128" in line or f"128,{length}" in line]
    assert compiled.memory_analysis().temp_size_in_bytes < 16e9
