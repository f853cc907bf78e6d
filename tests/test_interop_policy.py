"""Hugging Face folders as the start of an experiment, and experiments as Hugging Face folders."""

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
import transformers

from experiments import export
from r1jax.config import UserError
from r1jax.data.tokenizer import FILE_NAME
from r1jax.interop.hf_config import is_hf_folder
from r1jax.models.transformer import forward, output_head
from r1jax.policy import load_policy
from r1jax.provenance import file_hash
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL


def padded_logits(model, params, bias, ids, length: int):
    """Logits [N, V] of the positions of `ids`, computed in a row of a fixed length."""
    tokens = np.zeros((1, length), np.int32)
    tokens[0, : len(ids)] = ids
    hidden = PROGRAM(model, params, bias, jnp.asarray(tokens))
    return np.asarray(hidden[0, : len(ids)] @ output_head(model, params))


PROGRAM = jax.jit(
    lambda model, params, bias, tokens: forward(model, params, bias, tokens, jnp.arange(tokens.shape[1])[None])[0],
    static_argnums=0,
)


def test_a_trained_llama_continues_as_it_was_published():
    if "R1JAX_ASSETS" not in os.environ:
        pytest.skip("R1JAX_ASSETS is not set: it holds the trained model of 260K parameters")
    folder = Path(os.environ["R1JAX_ASSETS"]) / "models" / "stories260K"
    golden, loaded = json.loads((folder / "golden.json").read_text()), hf_models.read_model(folder)
    ids, length = list(golden["ids"]), len(golden["greedy32"])
    last = padded_logits(*loaded, ids, length)[-1]
    assert np.abs(last - np.array(golden["last_logits"])).max() <= 1e-4
    while len(ids) < length:
        ids.append(int(padded_logits(*loaded, ids, length)[-1].argmax()))
    assert ids == golden["greedy32"] and length == len(golden["ids"]) + 32


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The base model that comes with the package, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exported") / "hf"
    export.main(export.Config(target=str(folder), dtype="float32"))
    return folder


def test_an_exported_stage_is_the_same_policy(exported, mesh):
    base, again = load_policy(BASE_MODEL, mesh), load_policy(exported, mesh)
    jax.tree.map(np.testing.assert_array_equal, (base.params, base.router_bias), (again.params, again.router_bias))
    assert np.abs(base.router_bias).max() > 0
    ours = {"max_positions": base.model.max_positions, "expert_dispatch": base.model.expert_dispatch}  # not in the form
    assert hf_models.dataclasses.replace(again.model, **ours) == base.model and again.model.max_positions == 4096
    assert again.tokenizer.encode("5 + 3 = 8") == base.tokenizer.encode("5 + 3 = 8")


def test_transformers_computes_an_exported_stage(exported, mesh):
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert not any(report.values()), report
    base = load_policy(BASE_MODEL, mesh)
    ids = base.tokenizer.encode("Using the numbers 3, 7 and 12, make 31.")[:32]
    assert len(ids) > 8 and theirs.generation_config.eos_token_id == base.tokenizer.eos_id
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    ours = padded_logits(base.model, base.params, base.router_bias, ids, 32)
    assert np.abs(ours - expected).max() <= 2e-5 * np.abs(expected).max()


def test_the_origin_of_an_import_is_kept(exported, mesh):
    provenance = load_policy(exported, mesh).parent.provenance
    assert provenance["folder"] == "hf" and provenance["run"]["experiment"] == "import"
    assert provenance["run"]["config_sha256"] == file_hash(exported / "config.json")
    sizes = {path.name: path.stat().st_size for path in exported.iterdir()}
    assert provenance["run"]["files"] == sizes and {"model.safetensors", FILE_NAME, "config.json"} <= sizes.keys()
    json.dumps(provenance)


def test_a_tokenizer_of_another_model_is_refused(exported, tmp_path, mesh):
    shutil.copytree(exported, tmp_path / "hf")
    hf_models.make_model("llama_untied").save_pretrained(tmp_path / "hf")  # 96 tokens, and the tokenizer has more
    with pytest.raises(UserError, match="vocabulary has 96 tokens: they do not belong together"):
        load_policy(tmp_path / "hf", mesh)


def test_a_folder_without_tokenizer_is_refused(tmp_path, mesh):
    hf_models.make_model("llama_untied").save_pretrained(tmp_path)
    assert is_hf_folder(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer.model is missing"):
        load_policy(tmp_path, mesh)


def test_what_is_no_model_at_all_is_refused(tmp_path, mesh):
    (tmp_path / "config.json").write_text('{"experiment": "pretrain"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="not the workdir of a stage of r1jax, and no Hugging Face model"):
        load_policy(tmp_path, mesh)


@pytest.mark.slow
def test_an_experiment_starts_from_a_folder(exported, experiment, tmp_path):
    from conftest import SMALL

    process = experiment("r1_zero", "--workdir", tmp_path / "run", "--init", exported, *SMALL)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, output + errors
    run = json.loads(next(tmp_path.glob("run/checkpoints/*/run/metadata")).read_text())
    assert run["parent"]["run"]["experiment"] == "import"
