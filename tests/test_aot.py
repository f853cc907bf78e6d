"""The reader of compiled programs, on programs whose arithmetic and traffic are known by hand."""

import dataclasses
import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.aot import search
from r1jax.aot.chips import CHIPS, chip_of, collective_seconds
from r1jax.aot.costs import Collective, program_cost
from r1jax.aot.hlo import Shape, parse_program, replica_groups, trip_count
from r1jax.aot.measure import resident_bytes, suspicion
from r1jax.aot.table import markdown
from r1jax.config import UserError
from r1jax.models.presets import qwen2_5_1_5b, v3_1m
from r1jax.sft_stage import SftConfig
from r1jax.sharding import MeshConfig, make_abstract_mesh, make_mesh

# As the TPU compiler writes: products as convolutions, no trip counts, collectives in the fusions that accompany them.
TPU = """
HloModule jit_f, is_scheduled=true, num_partitions=8

%product (a: bf16[64,128], b: bf16[128,256]) -> bf16[64,256] {
  %a = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[128,256]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.1 = bf16[64,256]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf
}

%slice (stack: bf16[6,128,256], at: s32[]) -> bf16[128,256] {
  %stack = bf16[6,128,256]{2,1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %cut = bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)} dynamic-slice(%stack, %at, %zero, %zero), dynamic_slice_sizes={1,128,256}
  ROOT %flat = bf16[128,256]{1,0:T(8,128)(2,1)S(1)} bitcast(%cut)
}

%add (x: bf16[], y: bf16[]) -> bf16[] {
  %x = bf16[] parameter(0)
  %y = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%x, %y)
}

%all-reduce-scatter.1 (whole: bf16[64,256]) -> bf16[8,256] {
  %whole = bf16[64,256]{1,0:T(8,128)(2,1)} parameter(0)
  %sums = bf16[64,256]{1,0:T(8,128)(2,1)} all-reduce(%whole), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
  %mine = s32[]{:T(128)} constant(0)
  ROOT %part = bf16[8,256]{1,0:T(8,128)(2,1)} dynamic-slice(%sums, %mine, %mine), dynamic_slice_sizes={8,256}
}

%begin (shard: bf16[8,128]) -> (bf16[64,128], u32[]) {
  %shard = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %gather.1 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%shard), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %started = (bf16[64,128]{1,0}, u32[]{:S(2)}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%accompany (shard.2: bf16[8,128], tile: bf16[64,128]) -> (bf16[64,128], bf16[64,128]) {
  %shard.2 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %tile = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %gather.3 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%shard.2), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  %less.1 = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} negate(%tile)
  ROOT %both = (bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) tuple(%less.1, %gather.3)
}

%end (shard.1: bf16[8,128], flag: u32[]) -> bf16[64,128] {
  %shard.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %flag = u32[]{:S(2)} parameter(1)
  %gather.2 = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%shard.1), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}, backend_config={"async_collective_fusion_config":{}}
  ROOT %ended = bf16[64,128]{1,0} custom-call(%shard.1, %gather.2), custom_call_target="AsyncCollectiveDone"
}

%body (state: (s32[], bf16[8,128], bf16[6,128,256])) -> (s32[], bf16[8,128], bf16[6,128,256]) {
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[6,128,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %shards = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %weights = bf16[6,128,256]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %weight = bf16[128,256]{1,0:T(8,128)(2,1)S(1)} fusion(%weights, %i), kind=kLoop, calls=%slice
  %start = (bf16[64,128]{1,0}, u32[]{:S(2)}) fusion(%shards), kind=kCustom, calls=%begin
  %flags = u32[]{:S(2)} get-tuple-element(%start), index=1
  %chip = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} broadcast(%flags), dimensions={}
  %step = (bf16[64,128]{1,0:T(8,128)(2,1)S(1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) fusion(%shards, %chip), kind=kOutput, calls=%accompany
  %tokens = bf16[64,128]{1,0:T(8,128)(2,1)S(1)} fusion(%shards, %flags), kind=kCustom, calls=%end
  %out = bf16[64,256]{1,0:T(8,128)(2,1)S(1)} fusion(%tokens, %weight), kind=kOutput, calls=%product, metadata={op_name="a (b"}
  %scattered = bf16[8,256]{1,0:T(8,128)(2,1)S(1)} fusion(%out), kind=kCustom, calls=%all-reduce-scatter.1
  %kernel = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%scattered), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block\\": 512}"
}}, backend_config={"custom_call_config":{"body":"b%2(","cost_estimate":{"flops":"1000","transcendentals":"0"}}}
  ROOT %result = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[6,128,256]{2,1,0:T(8,128)(2,1)}) tuple(%next, %kernel, %weights)
}

%condition (state.1: (s32[], bf16[8,128], bf16[6,128,256])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[6,128,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)} constant(6)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (tokens.1: bf16[8,128], weights.1: bf16[6,128,256]) -> bf16[8,128] {
  %tokens.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %weights.1 = bf16[6,128,256]{2,1,0:T(8,128)(2,1)} parameter(1)
  %begin.1 = s32[]{:T(128)} constant(0)
  %copy.1 = s32[]{:T(128)} copy(%begin.1)
  %initial = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[6,128,256]{2,1,0:T(8,128)(2,1)}) tuple(%copy.1, %tokens.1, %weights.1)
  %loop = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}, bf16[6,128,256]{2,1,0:T(8,128)(2,1)}) while(%initial), condition=%condition, body=%body
  ROOT %last = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
}
"""


@pytest.fixture(scope="module")
def tpu():
    return parse_program(TPU)


def test_a_loop_runs_from_its_counters_start_to_its_limit(tpu):
    main = tpu.computations["main"]
    assert trip_count(tpu, main, main.instructions["loop"]) == 6
    later = parse_program(TPU.replace("constant(0)\n  %copy.1", "constant(2)\n  %copy.1"))
    assert trip_count(later, later.computations["main"], later.computations["main"].instructions["loop"]) == 4
    closed = parse_program(TPU.replace("direction=LT", "direction=LE"))
    assert trip_count(closed, closed.computations["main"], closed.computations["main"].instructions["loop"]) == 7


def test_a_loop_without_a_known_end_is_counted_once_and_named():
    text = TPU.replace("%limit = s32[]{:T(128)} constant(6)", "%limit = s32[]{:T(128)} negate(%i.1)")
    cost, once = program_cost(parse_program(text), 8), 2 * 64 * 128 * 256 + 1000
    assert cost.flops == once and dict(cost.unknown) == {"loop loop": 1}
    assert program_cost(parse_program(text), 8, turns=3).flops == 3 * once
    assert program_cost(parse_program(TPU), 8, turns=3).flops == 6 * once


def test_products_and_kernels_of_a_tpu_program_are_counted_as_often_as_they_run(tpu):
    assert program_cost(tpu, 8).flops == 6 * (2 * 64 * 128 * 256 + 1000)


def test_an_asynchronous_gather_counts_once_and_a_summed_slice_is_a_reduce_scatter(tpu):
    cost = program_cost(tpu, 8)
    assert [(c.kind, c.shape.dims, c.count) for c in cost.collectives] == [
        ("all-gather", (64, 128), 6), ("reduce-scatter", (64, 256), 6),
    ]  # fmt: skip
    assert [c.bytes for c in cost.collectives] == [6 * 64 * 128 * 2 * 7 / 8, 6 * 64 * 256 * 2 * 7 / 8]


def test_only_main_memory_counts_and_of_a_sliced_stack_only_the_slice(tpu):
    shard, whole = 8 * 128 * 2, 64 * 128 * 2
    # A turn: the slice of the weights is read; the gather's shards are read and its result written, once in all the
    # fusions that start, accompany and end it; the counter.
    once = 128 * 256 * 2 + shard + whole + 3 * 4 + 2 * 4
    cost = program_cost(tpu, 8)
    assert cost.hbm_bytes == pytest.approx(6 * once, rel=1e-3)


def test_a_batched_product_written_as_a_dilated_convolution_is_no_more_than_its_products():
    text = """
ENTRY %main (a: bf16[8,1024,128], b: bf16[8,1024,512]) -> bf16[8,128,512] {
  %a = bf16[8,1024,128] parameter(0)
  %b = bf16[8,1024,512] parameter(1)
  ROOT %c = bf16[8,128,512] convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0fb_0io->0bf
}
"""
    assert program_cost(parse_program(text), 1).flops == 2 * 8 * 1024 * 128 * 512


def test_of_branches_the_costliest_or_the_cheapest_counts():
    def f(which, x):
        return jax.lax.cond(which, lambda x: x @ x, lambda x: x @ x @ x, x)

    text = jax.jit(f).lower(True, jnp.ones((32, 32))).compile().as_text()
    assert program_cost(parse_program(text), 1).flops == 2 * (2 * 32**3)
    assert program_cost(parse_program(text), 1, branch=min).flops == 2 * 32**3


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, x=y", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4], dimensions={0}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", [[0, 2], [1, 3]]),
        ("replica_groups={}, x=y", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x=y", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x=y", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, x=y", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}, x=y", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}, x=y", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}, x=y", [[0, 1], [1, 0]]),
    ],
)
def test_groups_are_read_in_every_form(text, groups):
    assert replica_groups(text, 4).tolist() == groups


def test_what_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_program("HloModule empty\n")
    with pytest.raises(ValueError, match="form that is not known"):
        replica_groups("replica_groups=?", 4)


# Times


def collective(kind, members, payload=1 << 20):
    return Collective(kind, Shape("bf16", (payload // 2,), 0), payload, np.array([members]), 1.0, "")


def test_a_ring_has_two_links_and_a_line_one():
    line = np.array([(x, y, 0) for x in range(4) for y in range(4)])
    chip = CHIPS["v5e"]
    along = collective("all-gather", [0, 1, 2, 3])
    assert collective_seconds(chip, along, line) == pytest.approx((1 << 20) * 3 / 4 / chip.link)
    ring = np.array([(x, y, 0) for x in range(16) for y in range(16)])
    along = collective("all-gather", list(range(16)))
    assert collective_seconds(chip, along, ring) == pytest.approx((1 << 20) * 15 / 16 / (2 * chip.link))
    everywhere = collective("all-reduce", list(range(256)))
    assert collective_seconds(chip, everywhere, ring) == pytest.approx(2 * (1 << 20) * 255 / 256 / (4 * chip.link))
    assert collective_seconds(chip, collective("all-gather", [3]), ring) == 0


def test_links_add_up_to_the_published_bandwidth():
    # Sum of both directions over all links of a chip: 400, 1200 and 800 GB/s.
    assert [CHIPS[name].link * links * 2 for name, links in (("v5e", 4), ("v5p", 6), ("v6e", 4))] == [4e11, 12e11, 8e11]
    with pytest.raises(UserError, match="v5e, v5p, v6e"):
        chip_of("v2:4x4")


# What nobody asked for


def moved(kind, dims, groups, dtype="bf16"):
    shape = Shape(dtype, dims, 0)
    return Collective(kind, shape, shape.bytes, np.array(groups), 1.0, "")


def test_expert_weights_that_travel_between_experts_and_logits_are_named():
    """On a mesh fsdp=2 x expert=2 of a model of 8 experts, 256 wide, hidden 128, 4096 tokens in the vocabulary."""
    model = dataclasses.replace(
        v3_1m(4096), num_experts=8, embed_dim=256, expert_mlp_dim=128, num_experts_per_token=2, num_expert_groups=1,
        num_limited_groups=1,
    )  # fmt: skip
    mesh = types.SimpleNamespace(
        shape={"data": 1, "fsdp": 2, "expert": 2, "tensor": 1, "sequence": 1}, size=4,
        axis_names=("data", "fsdp", "expert", "tensor", "sequence"), devices=np.empty((1, 2, 2, 1, 1)),
    )  # fmt: skip
    along_fsdp, along_expert = [[0, 2], [1, 3]], [[0, 1], [2, 3]]
    named = lambda *arguments: suspicion(model, mesh, moved(*arguments))
    assert "expert weights" in named("all-gather", (8, 256, 128), along_expert)
    assert "expert weights" in named("all-to-all", (3, 8, 128, 256), along_expert)
    assert not named("all-gather", (4, 256, 128), along_fsdp)  # for the time of their use
    assert not named("all-gather", (4096, 256), along_expert)  # tokens of the ring
    assert named("all-gather", (512, 4096), along_fsdp) == "logits"
    assert named("all-reduce", (512, 2, 4096), along_expert, "f32") == "logits"
    assert not named("reduce-scatter", (256, 4096), along_fsdp, "f32")  # the slope of the head


def test_of_resident_arrays_the_bytes_on_one_chip_count():
    mesh = make_abstract_mesh(MeshConfig(fsdp=2))
    spec = NamedSharding(mesh, PartitionSpec("fsdp"))
    assert resident_bytes({"a": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=spec)}) == 4 * 3 * 4


def test_a_search_takes_the_fewest_micro_batches_that_fit(monkeypatch):
    """With a compiler that finds room for 8 rows a device, and 16 with remat, which takes twice as long."""

    def room(name, model, chip, case, measures):
        rows = 256 // case.parts // case.fsdp
        fits = rows <= (16 if model.remat else 8)
        seconds = case.parts * (2 if model.remat else 1) + case.tensor
        return {"headroom": 0.5 if fits else 0.1, "seconds": {"compute": float(seconds)}, "compile_seconds": 1.0}

    monkeypatch.setattr(search, "compile_case", lambda case: None)
    monkeypatch.setattr(search, "record_measures", room)
    monkeypatch.setattr(search, "make_mesh", lambda layout, devices: layout)
    make_case = lambda config, program, mesh: types.SimpleNamespace(
        parts=config.sft.micro_batches, fsdp=mesh.fsdp, tensor=mesh.tensor
    )
    config = Searched(qwen2_5_1_5b(), SftConfig(batch_size=256), 0.15)
    tried, best = search.propose(config, "sft", make_case, None, [None] * 4)
    assert best.options("sft") == "--mesh.fsdp=4 --model.no-remat --sft.micro-batches=8"
    assert {one.mesh.tensor for one in tried} == {1, 2}  # two heads of keys and values
    assert len(tried) == len({one[:3] for one in tried}) <= 2 * 2 * 5
    remat = {one.micro_batches for one in tried if one.mesh.tensor == 1 and one.remat and one.record["headroom"] > 0.15}
    assert min(remat) == 4
    with pytest.raises(UserError, match="--search is for sft and grpo, not for decode"):
        search.propose(config, "decode", make_case, None, [None] * 4)


def test_the_page_shows_the_budgets_as_the_tool_prints_them():
    page = (ROOT / "docs" / "tpu.md").read_text()
    budgets = sorted((ROOT / "tpu_scripts" / "budgets").glob("*.json"))
    assert len(budgets) >= 3
    for path in budgets:
        assert markdown(json.loads(path.read_text())) in page, path.name


@dataclasses.dataclass(frozen=True)
class Searched:
    model: object
    sft: SftConfig
    headroom: float


# Programs for several devices, compiled here for CPU

CHILD = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from r1jax.aot.costs import program_cost
from r1jax.aot.hlo import parse_program

mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
spec = lambda shape, *axes: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*axes)))

def summed(x, w):
    return x @ w

def layers(x, stack):
    gathered = lambda x, w: (x @ jax.lax.with_sharding_constraint(w, P(None, None)), None)
    return jax.lax.scan(gathered, x, stack)[0]

cases = {
    "summed": (summed, (spec((64, 256), "data", "model"), spec((256, 128), "model"))),
    "layers": (layers, (spec((64, 128), "data"), spec((5, 128, 128), None, "model"))),
}
found = {}
with jax.set_mesh(mesh):
    for name, (function, arguments) in cases.items():
        out = NamedSharding(mesh, P("data"))
        cost = program_cost(parse_program(jax.jit(function, out_shardings=out).lower(*arguments).compile().as_text()), 8)
        found[name] = [cost.flops, [[c.kind, c.groups.tolist(), c.bytes] for c in cost.collectives]]
print(json.dumps(found))
"""


def test_of_a_stack_that_a_kernel_reads_and_of_a_buffer_that_rows_travel_to_only_what_moves_counts():
    text = """
HloModule jit_f, is_scheduled=true, num_partitions=8

ENTRY %main (stack: bf16[6,128,256], rows: bf16[16,256], buffer: bf16[64,256], sizes: s32[8]) -> bf16[64,256] {
  %stack = bf16[6,128,256]{2,1,0:T(8,128)(2,1)} parameter(0)
  %rows = bf16[16,256]{1,0:T(8,128)(2,1)} parameter(1)
  %buffer = bf16[64,256]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  %sizes = s32[8]{0:T(128)S(6)} parameter(3)
  %kernel = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} custom-call(%stack), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"1000","bytes_accessed":"70000"}}}
  ROOT %moved = bf16[64,256]{1,0:T(8,128)(2,1)S(1)} ragged-all-to-all(%rows, %buffer, %sizes, %sizes, %sizes, %sizes), channel_id=1, replica_groups=[1,8]<=[8]
}
"""
    cost = program_cost(parse_program(text), 8)
    assert cost.hbm_bytes == 70000 + 16 * 256 * 2
    assert [one.bytes for one in cost.collectives] == [16 * 256 * 2 * 7 / 8]


@pytest.fixture(scope="module")
def partitioned():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CHILD], env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_contraction_across_devices_is_a_part_of_its_products_and_one_all_reduce(partitioned):
    flops, collectives = partitioned["summed"]
    assert flops == 2 * (64 // 2) * (256 // 4) * 128
    assert collectives == [["all-reduce", [[0, 1, 2, 3], [4, 5, 6, 7]], 2 * 3 / 4 * 32 * 128 * 4]]


def test_weights_gathered_for_each_layer_count_once_a_layer(partitioned):
    flops, collectives = partitioned["layers"]
    assert flops == 5 * 2 * 32 * 128 * 128
    kinds = {kind for kind, _, _ in collectives}
    assert kinds == {"all-gather"} and sum(c[2] for c in collectives) == 5 * 3 / 4 * 128 * 128 * 4


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX asks of a device when it arranges a mesh; a stand-in, for there is no slice here."""

    id: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v5p"
    process_index: int = 0
    core_on_chip: int = 0
    client: None = None


def test_an_axis_may_take_a_part_of_a_side():
    """On 4 x 4 x 4 chips two axes of 8, neither a product of sides: all chips, and nearest neighbours along each."""
    chips = [Chip(n, (n % 4, n // 4 % 4, n // 16)) for n in range(64)]
    mesh = make_mesh(MeshConfig(fsdp=8, expert=8), chips)
    assert mesh.shape["fsdp"] == mesh.shape["expert"] == 8 and len({chip.id for chip in mesh.devices.flat}) == 64
    for axis in (1, 2):
        lines = np.moveaxis(mesh.devices, axis, -1).reshape(-1, 8)
        for line in lines:
            sides = [len({chip.coords[side] for chip in line}) for side in range(3)]
            assert sorted(sides) == [1, 2, 4]
