"""Everything that can be wrong with a Hugging Face folder is named, and nothing of it is loaded."""

import json
import os
import shutil
from pathlib import Path

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from r1jax.config import UserError
from r1jax.interop.hf_config import from_hf_config, read_hf_config
from r1jax.interop.loading import load_checkpoint
from r1jax.interop.safetensors import INDEX
from r1jax.interop.saving import save_checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint in several files, written by transformers, with nothing wrong."""
    folder = tmp_path_factory.mktemp("good")
    hf_models.make_model("llama_untied").save_pretrained(folder, max_shard_size="20KB")
    assert (folder / INDEX).exists()
    return folder


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
        lambda f: hf_models.rewrite(f, lambda t: t.update({DOWN: torch.zeros(3, 4), Q: t[Q][:-1].clone()})),
        [DOWN, "(3, 4), expected (32, 48)", Q, "(31, 32), expected (32, 32)", "2 tensors wrong"],
    ),
    "missing and unknown": (
        lambda f: hf_models.rewrite(f, lambda t: t.update({"model.layers.0.extra": t.pop(DOWN)})),
        [f"1 tensors missing: {DOWN}", "1 tensors unknown: model.layers.0.extra"],
    ),
    "integers": (
        lambda f: hf_models.rewrite(f, lambda t: t.update({Q: t[Q].to(torch.int8)})),
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
    hf_models.rewrite(
        tmp_path / "old", lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    )
    jax.tree.map(
        np.testing.assert_array_equal, hf_models.read_model(good)[1], hf_models.read_model(tmp_path / "old")[1]
    )


def test_half_precision_is_read_exactly(good, tmp_path):
    shutil.copytree(good, tmp_path / "half")
    hf_models.rewrite(tmp_path / "half", lambda t: t.update({name: tensor.bfloat16() for name, tensor in t.items()}))
    _, params, _ = hf_models.read_model(tmp_path / "half")
    full = np.asarray(hf_models.read_model(good)[1]["head"])
    np.testing.assert_array_equal(np.asarray(params["head"]), full.astype(jnp.bfloat16).astype(np.float32))


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
