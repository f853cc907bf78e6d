"""safetensors files, the plan of the released DeepSeek-R1, FP8 blocks, and everything that can be wrong with a folder."""

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
from r1jax.interop.hf_config import from_hf_config, read_hf_config
from r1jax.interop.hf_config_writing import family_of, to_hf_config
from r1jax.interop.loading import check_arrays, load_checkpoint
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


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint in several files, written by transformers, with nothing wrong."""
    folder = tmp_path_factory.mktemp("good")
    hf_models.make_model("llama_untied").save_pretrained(folder, max_shard_size="20KB")
    assert (folder / INDEX).exists()
    return folder


def rewrite(folder: Path, change) -> None:
    """Apply a change to the tensors of a folder, name -> tensor, and write them as one file."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
        file.unlink()
    (folder / INDEX).unlink()
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def reindex(folder: Path, change) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def reheader(folder: Path, change) -> None:
    """Apply a change to the text of a file's header, of the same length."""
    path = sorted(folder.glob("*.safetensors"))[0]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    changed = change(data[8 : 8 + length])
    assert len(changed) == length and changed != data[8 : 8 + length]
    path.write_bytes(data[:8] + changed + data[8 + length :])


DOWN, Q = "model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"
FIRST = "model-00001-of-"
WRONG = {
    "missing shard": (lambda f: sorted(f.glob("*.safetensors"))[1].unlink(), ["model-00002-of-", "missing"]),
    "no weights": (lambda f: [path.unlink() for path in f.glob("*.safetensors*")], ["neither", "none"]),
    "both forms": (lambda f: shutil.copy(sorted(f.glob("*.safetensors"))[0], f / "model.safetensors"), ["both"]),
    "truncated file": (
        lambda f: os.truncate(p := sorted(f.glob("*.safetensors"))[0], p.stat().st_size - 100),
        [FIRST, "truncated", "expected"],
    ),
    "truncated header": (lambda f: os.truncate(sorted(f.glob("*.safetensors"))[0], 50), [FIRST, "truncated", "50"]),
    "broken header": (lambda f: reheader(f, lambda text: text.replace(b'"shape"', b'"shapf"')), [FIRST, "header"]),
    "header is no JSON": (lambda f: reheader(f, lambda text: b"[" + text[1:]), [FIRST, "header is broken"]),
    "unknown dtype": (
        lambda f: reheader(f, lambda text: text.replace(b'"F32"', b'"F4 "', 1)),
        [FIRST, "F4", "handled"],
    ),
    "index is no JSON": (lambda f: (f / INDEX).write_text("{"), [INDEX, "not an index"]),
    "tensor not in its file": (lambda f: reindex(f, lambda m: m.update({"model.extra": m[Q]})), ["model.extra", "not"]),
    "tensor not in the index": (lambda f: reindex(f, lambda m: m.pop(Q)), [Q, "nowhere"]),
    "tensor in another file": (lambda f: reindex(f, lambda m: m.update({Q: m[DOWN]})), [Q, "says that it is in"]),
    "file elsewhere": (lambda f: reindex(f, lambda m: m.update({Q: "../x"})), [Q, "'../x'", "not a file name"]),
    "wrong shapes": (
        lambda f: rewrite(f, lambda t: t.update({DOWN: torch.zeros(3, 4), Q: t[Q][:-1].clone()})),
        [DOWN, "(3, 4), expected (32, 48)", Q, "(31, 32), expected (32, 32)", "2 tensors wrong"],
    ),
    "missing and unknown": (
        lambda f: rewrite(f, lambda t: t.update({"model.layers.0.extra": t.pop(DOWN)})),
        [f"1 tensors missing: {DOWN}", "1 tensors unknown: model.layers.0.extra"],
    ),
    "integers": (
        lambda f: rewrite(f, lambda t: t.update({Q: t[Q].to(torch.int8)})),
        [Q, "dtype I8", "expected a float"],
    ),
    "no config": (lambda f: (f / "config.json").unlink(), ["config.json is missing"]),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json is not valid JSON"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_folder_is_named(name, good, tmp_path):
    shutil.copytree(good, tmp_path / "bad")
    break_it, words = WRONG[name]
    break_it(tmp_path / "bad")
    with pytest.raises(UserError) as caught:
        hf_models.read_model(tmp_path / "bad")
    assert all(word in str(caught.value) for word in words), caught.value


def test_buffers_of_old_checkpoints_are_ignored_and_a_good_folder_is_read(good, tmp_path):
    shutil.copytree(good, tmp_path / "old")
    rewrite(tmp_path / "old", lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}))
    jax.tree.map(
        np.testing.assert_array_equal, hf_models.read_model(good)[1], hf_models.read_model(tmp_path / "old")[1]
    )


def test_half_precision_is_read_exactly(good, tmp_path):
    shutil.copytree(good, tmp_path / "half")
    rewrite(tmp_path / "half", lambda t: t.update({name: tensor.bfloat16() for name, tensor in t.items()}))
    _, params, _ = hf_models.read_model(tmp_path / "half")
    full = np.asarray(hf_models.read_model(good)[1]["head"])
    np.testing.assert_array_equal(np.asarray(params["head"]), full.astype(jnp.bfloat16).astype(np.float32))


def test_repeated_tensors_must_repeat(fp8_folder, tmp_path):
    """The released DeepSeek weights hold embedding and head again in the MTP module; so do tied ones of others."""
    shutil.copytree(fp8_folder, tmp_path / "copy")
    name = "model.layers.2.embed_tokens.weight"
    rewrite(tmp_path / "copy", lambda t: t.update({name: t[name] + 1}))
    with pytest.raises(UserError, match=f"{name}.*differs from model.embed_tokens.weight"):
        hf_models.read_model(tmp_path / "copy")


def test_scales_of_fp8_must_be_there(fp8_folder, tmp_path):
    shutil.copytree(fp8_folder, tmp_path / "a")
    rewrite(tmp_path / "a", lambda t: t.pop(f"{Q.replace('q_proj', 'o_proj')}_scale_inv"))
    with pytest.raises(UserError, match="o_proj.weight is FP8, and .*o_proj.weight_scale_inv is missing"):
        hf_models.read_model(tmp_path / "a")


def test_both_spellings_say_the_same():
    """transformers 5 has rope_parameters and dtype, transformers 4 rope_theta, rope_scaling and torch_dtype."""
    new = hf_models.CASES["llama"]().to_dict()
    assert new["rope_parameters"]["rope_type"] == "llama3"
    old = {name: value for name, value in new.items() if name not in ("rope_parameters", "dtype")}
    rope = dict(new["rope_parameters"])
    old |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": "bfloat16"}
    assert from_hf_config(old) == from_hf_config(new | {"dtype": "bfloat16"})
    assert from_hf_config(old).llama3_rope.factor == 8.0 and from_hf_config(old).rope_theta == 50000.0
    rope["type"] = rope.pop("rope_type")
    assert from_hf_config(old | {"rope_scaling": rope}) == from_hf_config(old)


REFUSED = [
    ("v3", {"model_type": "mixtral"}, "model_type is 'mixtral', expected one of deepseek_v3"),
    ("llama", {"attention_bias": True}, "attention_bias is True, expected False"),
    ("llama", {"mlp_bias": True}, "mlp_bias is True"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
    ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True"),
    ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_type is 'linear', expected 'default'"),
    ("qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'.*in qwen2"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5, expected 1.0"),
    ("llama", {"rope_parameters": {"rope_type": "llama3"}}, "original_max_position_embeddings is None"),
    ("v3", {"rope_parameters": hf_models.YARN | {"mscale": 0}}, "mscale is 0, expected a positive number"),
    ("v3", {"rope_parameters": hf_models.YARN | {"truncate": False}}, "truncate is False"),
    ("v3", {"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05, expected 1e-06"),
    ("v3", {"rope_interleave": False}, "rope_interleave is False"),
    ("v3", {"moe_layer_freq": 2}, "moe_layer_freq is 2, expected 1"),
    ("v3", {"scoring_func": "softmax"}, "scoring_func is 'softmax', expected 'sigmoid'"),
    ("v2", {"topk_method": "noaux_tc"}, "topk_method is 'noaux_tc', expected 'greedy' or 'group_limited_greedy'"),
    ("v3", {"num_nextn_predict_layers": 2}, "num_mtp_layers must be 0 or 1"),
    ("llama", {"dtype": "int8"}, "dtype is 'int8'"),
    ("llama", {"hidden_size": None}, "hidden_size is None, expected a number"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config is .*gptq.*expected none"),
    (
        "v3",
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}},
        r"weight_block_size is \[64",
    ),
]


@pytest.mark.parametrize(("case", "change", "says"), REFUSED)
def test_configurations_that_we_do_not_have_are_refused(case, change, says):
    record = hf_models.CASES[case]().to_dict()
    from_hf_config(record)
    with pytest.raises(UserError, match=says):
        from_hf_config(record | change)


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


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        assert (folder / "config.json").exists()
        raise RuntimeError("the disk burns")

    model = from_hf_config(hf_models.CASES["llama"]().to_dict())
    arrays = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), hf_models.abstract_model(model))
    with pytest.raises(RuntimeError, match="burns"):
        save_checkpoint(tmp_path / "out", model, *arrays, dtype="bfloat16", also=fail)
    assert list(tmp_path.iterdir()) == []


def test_read_config_and_load_agree_on_nothing_partial(good):
    """A model of another size than the files: nothing is loaded."""
    model = hf_models.dataclasses.replace(read_hf_config(good), num_layers=3, num_dense_layers=3)
    with pytest.raises(UserError, match=r"9 tensors missing: model.layers.2.input_layernorm.weight"):
        load_checkpoint(good, model, *hf_models.abstract_model(model))
