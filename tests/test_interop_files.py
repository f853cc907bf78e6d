"""safetensors files, the plan of the released DeepSeek-R1, FP8 blocks, and what is not written."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from r1jax.config import UserError
from r1jax.interop.hf_config import from_hf_config
from r1jax.interop.hf_config_writing import family_of, to_hf_config
from r1jax.interop.loading import check_arrays
from r1jax.interop.plans import make_plan
from r1jax.interop.safetensors import INDEX, NAMES, TensorSpec, open_checkpoint, open_file, write_checkpoint
from r1jax.interop.saving import checkpoint_specs, save_checkpoint
from r1jax.models.config import ModelConfig, Yarn
from r1jax.models.presets import deepseek_v3
from r1jax.ops.quant import dequantize_blocks, quantize_blocks

TESTS = Path(__file__).parent
TORCH = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I64": torch.int64,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I32": torch.int32, "I16": torch.int16,
}  # fmt: skip


def as_bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy()


def odd_tensors() -> dict[str, torch.Tensor]:
    """One tensor of each dtype, of sizes that leave some unaligned."""
    torch.manual_seed(0)
    return {name: (torch.randn(3, 5) * 3).to(dtype) for name, dtype in TORCH.items()} | {"empty": torch.zeros(0, 4)}


def test_files_of_the_reference_implementation_are_read(tmp_path):
    tensors = odd_tensors()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    stored = open_checkpoint(tmp_path)
    assert stored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        view = stored[name].view()
        assert view.shape == tensor.shape and (name == "empty" or NAMES[view.dtype] == name)
        np.testing.assert_array_equal(view.reshape(-1).view(np.uint8), as_bytes(tensor))
        np.testing.assert_array_equal(view[1:, 2:4].astype(np.float64), tensor[1:, 2:4].double().numpy())


@pytest.mark.parametrize("limit", [1 << 30, 150])
def test_the_reference_implementation_reads_what_is_written(tmp_path, limit):
    tensors = odd_tensors()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    stored = open_checkpoint(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    specs = [TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in stored.items()]
    write_checkpoint(out, specs, (stored[spec.name].view() for spec in specs), max_shard_bytes=limit)
    files = sorted(out.glob("*.safetensors"))
    assert (len(files) > 3) == (limit == 150) and not list(out.glob("*.partial"))
    again = {name: tensor for file in files for name, tensor in safetensors.torch.load_file(file).items()}
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(as_bytes(again[name]), as_bytes(tensor))
    if limit == 150:
        index = json.loads((out / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
        assert all(name in open_file(out / file) for name, file in index["weight_map"].items())
        assert open_checkpoint(out).keys() == tensors.keys()


def released() -> tuple[dict, dict]:
    """config.json of the released DeepSeek-R1, and the map of its tensors."""
    if "R1JAX_ASSETS" not in os.environ:
        pytest.skip("R1JAX_ASSETS is not set: it holds the map of the released tensors")
    folder = Path(os.environ["R1JAX_ASSETS"]) / "checkpoints"
    with gzip.open(folder / "r1_hf_ckpt_params_map.json.gz") as file:
        return json.loads((folder / "r1_config.json").read_text()), json.load(file)


def test_the_plan_has_every_tensor_of_the_released_r1():
    record, expected = released()
    model = from_hf_config(record)
    found = {spec.name: (NAMES[spec.dtype], list(spec.shape)) for spec in checkpoint_specs(model, "fp8")}
    assert found == {name: (entry["dtype"], entry["shape"]) for name, entry in expected.items()}
    assert len(found) == 91991
    params, bias = hf_models.abstract_model(model)
    check_arrays({"params": params, "router_bias": bias}, make_plan(model))
    sizes = [leaf.size for leaf in jax.tree.leaves({k: v for k, v in params.items() if k != "mtp"})]
    assert sum(sizes) + model.num_moe_layers * model.num_experts == 671_026_419_200  # with the router bias
    assert hf_models.dataclasses.replace(model, init_stddev=0.006) == deepseek_v3()
    # The released file says no more than we do: what we write of it is what we read, and the same again.
    again = to_hf_config(model, dtype="fp8", token_ids={"bos_token_id": 0, "eos_token_id": 1})
    assert from_hf_config(again) == model
    same = {name: again[name] for name in record.keys() & again.keys() - {"rope_scaling"}}
    assert same == {name: record[name] for name in same} and len(same) > 35
    assert record["rope_scaling"].items() <= again["rope_scaling"].items()


def fp8_model() -> ModelConfig:
    """A small DeepSeek-V3 whose matrices do not end where blocks do."""
    return ModelConfig(
        vocab_size=64, embed_dim=160, num_layers=2, num_dense_layers=1, mlp_dim=200, num_heads=4, q_lora_rank=48,
        kv_lora_rank=136, qk_nope_head_dim=40, qk_rope_head_dim=8, v_head_dim=40, num_experts=4,
        num_experts_per_token=2, num_shared_experts=1, expert_mlp_dim=144, num_expert_groups=2, num_limited_groups=1,
        num_mtp_layers=1, yarn=Yarn(40.0, 4096), max_positions=163840, dtype="float32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def fp8_folder(tmp_path_factory):
    """A checkpoint in the released form, in several files, from numbers drawn here."""
    folder = tmp_path_factory.mktemp("fp8") / "model"
    rng, model = np.random.default_rng(0), fp8_model()
    drawn = lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape).astype(np.float32) * 0.02)
    arrays = jax.tree.map(drawn, hf_models.abstract_model(model))
    save_checkpoint(folder, model, *arrays, dtype="fp8", max_shard_bytes=300_000)
    return folder


def test_fp8_weights_are_read_as_torch_reads_them(fp8_folder):
    _, params, _ = hf_models.read_model(fp8_folder)
    tensors = {}
    for file in fp8_folder.glob("*.safetensors"):
        tensors |= safetensors.torch.load_file(file)
    for name, ours in {
        "model.layers.1.self_attn.kv_b_proj": params["moe_layers"]["attention"]["kv_up"][0].reshape(136, -1).T,
        "model.layers.1.mlp.experts.3.down_proj": params["moe_layers"]["moe"]["down"][0, 3].T,
        "model.layers.2.self_attn.kv_a_proj_with_mqa": params["mtp"]["block"]["attention"]["kv_down"].T,
    }.items():
        values, scale = tensors[f"{name}.weight"], tensors[f"{name}.weight_scale_inv"]
        assert values.dtype == torch.float8_e4m3fn and min(scale.shape) > 1
        spread = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: values.shape[0], : values.shape[1]]
        np.testing.assert_array_equal(np.asarray(ours), (values.float() * spread).numpy())


def test_an_fp8_checkpoint_comes_back_byte_for_byte(fp8_folder, tmp_path):
    model, *arrays = hf_models.read_model(fp8_folder)
    save_checkpoint(tmp_path / "again", model, *arrays, dtype="fp8", max_shard_bytes=300_000)
    files = sorted(path.name for path in fp8_folder.iterdir())
    assert files == sorted(path.name for path in (tmp_path / "again").iterdir()) and len(files) > 5
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (fp8_folder / name).read_bytes(), name


def test_quantising_what_was_dequantised_changes_nothing():
    """For scales of every size and mantissa: amax / 448 is found again, although 448 * scale is rounded."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 128 * 60)) * np.exp(rng.uniform(-20, 20, 60)).repeat(128)
    x[:128, :128] = 0
    values, scale = jax.jit(quantize_blocks)(x.astype(np.float32))
    again, new_scale = jax.jit(quantize_blocks)(jax.jit(dequantize_blocks)(values, scale))
    np.testing.assert_array_equal(np.asarray(scale), np.asarray(new_scale))
    np.testing.assert_array_equal(np.asarray(values).view(np.uint8), np.asarray(again).view(np.uint8))
    spread = np.asarray(scale).repeat(128, 0)[:300].repeat(128, 1)
    error = np.abs(np.asarray(dequantize_blocks(values, scale)) - x)
    assert (error <= np.maximum(np.abs(x) * 2.0**-4, spread * 2.0**-10) * 1.0001).all()  # 3 bits of mantissa
    by_torch = (torch.tensor(x, dtype=torch.float32) / torch.tensor(spread)).to(torch.float8_e4m3fn)
    np.testing.assert_array_equal(np.asarray(values).reshape(-1).view(np.uint8), as_bytes(by_torch))
    assert float(scale[0, 0]) == 1.0


CHILD = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[2])
import hf_models
from r1jax.sharding import MeshConfig, make_mesh
one = hf_models.read_model(sys.argv[1], make_mesh(MeshConfig(), jax.devices()[:1]))
mesh = make_mesh(MeshConfig(data=1, fsdp=2, expert=2, tensor=2))
with jax.set_mesh(mesh):
    eight = hf_models.read_model(sys.argv[1], mesh)
jax.tree.map(np.testing.assert_array_equal, one[1:], eight[1:])
shapes = hf_models.abstract_model(one[0], mesh)
same = jax.tree.map(lambda wanted, leaf: wanted.sharding == leaf.sharding, shapes, eight[1:])
assert all(jax.tree.leaves(same))
print(len({leaf.sharding.spec for leaf in jax.tree.leaves(eight[1:])}))
"""


def test_every_device_of_a_mesh_gets_its_part(fp8_folder, environment):
    flags = environment["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", CHILD, str(fp8_folder), str(TESTS)]
    environment = environment | {"XLA_FLAGS": flags, "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


def test_repeated_tensors_must_repeat(fp8_folder, tmp_path):
    """The released DeepSeek weights hold embedding and head again in the MTP module; so do tied ones of others."""
    shutil.copytree(fp8_folder, tmp_path / "copy")
    name = "model.layers.2.embed_tokens.weight"
    hf_models.rewrite(tmp_path / "copy", lambda t: t.update({name: t[name] + 1}))
    with pytest.raises(UserError, match=f"{name}.*differs from model.embed_tokens.weight"):
        hf_models.read_model(tmp_path / "copy")


def test_scales_of_fp8_must_be_there(fp8_folder, tmp_path):
    shutil.copytree(fp8_folder, tmp_path / "a")
    hf_models.rewrite(tmp_path / "a", lambda t: t.pop("model.layers.0.self_attn.o_proj.weight_scale_inv"))
    with pytest.raises(UserError, match="o_proj.weight is FP8, and .*o_proj.weight_scale_inv is missing"):
        hf_models.read_model(tmp_path / "a")


def test_models_that_transformers_does_not_have_are_not_exported(tmp_path):
    grouped = from_hf_config(hf_models.CASES["qwen3"]().to_dict())
    latent = fp8_model()
    change = hf_models.dataclasses.replace
    for model, says in [
        (change(grouped, qkv_bias=True), "qk_norm beside qkv_bias"),
        (change(grouped, num_experts=2, num_experts_per_token=1, expert_mlp_dim=8), "experts beside grouped"),
        (change(grouped, embed_dim=34), "embed_dim 34, no multiple of 4"),
        (change(latent, norm_eps=1e-5), "norm_eps 1e-05, expected 1e-06"),
        (change(latent, num_shared_experts=0), "num_shared_experts 0"),
        (change(latent, num_expert_groups=4, num_limited_groups=2), "less than two experts in a group"),
        (change(latent, router_score="softmax", num_mtp_layers=0), "normalize_top_k with softmax"),
    ]:
        with pytest.raises(UserError, match=says):
            family_of(model)
    with pytest.raises(UserError, match="form of deepseek_v3, and this is a qwen3"):
        to_hf_config(grouped, dtype="fp8")


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        save_checkpoint(tmp_path, fp8_model(), {}, jnp.zeros(0), dtype="fp8")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
