"""Models of transformers computed here: logits, gradients, cached decoding, multi-token prediction, round trips."""

from functools import partial

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from r1jax.interop.saving import save_checkpoint
from r1jax.models.cache import init_cache, write_cache
from r1jax.models.mtp import mtp_forward
from r1jax.models.transformer import forward, output_head

LENGTH, SPLIT = 24, 17  # tokens; beyond the original context of the models with YaRN
TOKENS = np.random.default_rng(0).integers(0, 96, (2, LENGTH))
POSITIONS = jnp.broadcast_to(jnp.arange(LENGTH), TOKENS.shape)


def logits(model, params, bias):
    hidden = forward(model, params, bias, jnp.asarray(TOKENS), POSITIONS)[0]
    return hidden @ output_head(model, params)


def decoded_logits(model, params, bias):
    """The same logits from a prefill and single steps on its cache."""
    tokens, cache, parts = jnp.asarray(TOKENS), init_cache(model, len(TOKENS), LENGTH), []
    for start, stop in [(0, SPLIT), *((place, place + 1) for place in range(SPLIT, LENGTH))]:
        part = slice(start, stop)
        hidden, new, _ = forward(model, params, bias, tokens[:, part], POSITIONS[:, part], cache=cache)
        cache = write_cache(cache, new, start)
        parts.append(hidden @ output_head(model, params))
    return jnp.concatenate(parts, 1)


def nll(model, params, bias):
    scores = jax.nn.log_softmax(logits(model, params, bias)[:, :-1])
    return -jnp.take_along_axis(scores, jnp.asarray(TOKENS)[:, 1:, None], -1).sum()


def torch_logits(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.numpy()


def relative(ours, theirs) -> float:
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


SOME = pytest.mark.parametrize("pair", ["v3", "qwen2", "llama"], indirect=True)
"""One of each attention and rotary scaling, for what takes long to compile."""


@pytest.fixture(scope="module", params=hf_models.CASES)
def pair(request, tmp_path_factory):
    """A model of transformers, and the same one as it was written and read; with the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = hf_models.make_model(request.param)
    theirs.save_pretrained(folder)
    dispatch = "ragged" if request.param == "v3_two_groups" else "dense"
    return request.param, theirs, hf_models.read_model(folder, expert_dispatch=dispatch), folder


def test_logits_are_those_of_transformers(pair):
    assert relative(jax.jit(partial(logits, pair[2][0]))(*pair[2][1:]), torch_logits(pair[1])) <= 2e-5


@SOME
def test_cached_decoding_gives_the_logits_of_transformers(pair):
    assert relative(jax.jit(partial(decoded_logits, pair[2][0]))(*pair[2][1:]), torch_logits(pair[1])) <= 2e-5


def weights_to_compare(case: str):
    """Three weights: the path of ours, the name of theirs, and theirs from ours, written out by hand."""
    out = lambda w: w[0].reshape(-1, w.shape[-1]).T  # [L, N, H, D] -> [D, N * H]
    heads = lambda w: w[0].reshape(w.shape[1], -1).T  # [L, D, N, H] -> [N * H, D]
    if case == "v3":
        return [
            (("moe_layers", "attention", "kv_up"), "model.layers.1.self_attn.kv_b_proj.weight", heads),
            (("moe_layers", "moe", "router"), "model.layers.1.mlp.gate.weight", lambda w: w[0].T),
            (("dense_layers", "attention", "out"), "model.layers.0.self_attn.o_proj.weight", out),
        ]
    return [
        (("dense_layers", "attention", "key"), "model.layers.0.self_attn.k_proj.weight", heads),
        (("dense_layers", "mlp", "down"), "model.layers.0.mlp.down_proj.weight", lambda w: w[0].T),
        (("embedding",), "model.embed_tokens.weight", lambda w: w),
    ]


@SOME
def test_gradients_are_those_of_transformers(pair):
    case, theirs, (model, params, bias), _ = pair
    ours = jax.jit(jax.grad(partial(nll, model)))(params, bias)
    scores = theirs(torch.tensor(TOKENS)).logits[:, :-1].log_softmax(-1)
    loss = -scores.gather(-1, torch.tensor(TOKENS)[:, 1:, None]).sum()
    named = dict(theirs.named_parameters())
    compared = weights_to_compare(case)
    expected = torch.autograd.grad(loss, [named[name] for _, name, _ in compared])
    for (path, _, transform), gradient in zip(compared, expected, strict=True):
        leaf = ours
        for key in path:
            leaf = leaf[key]
        assert np.abs(gradient.numpy()).max() > 1e-2
        assert relative(transform(np.asarray(leaf)), gradient.numpy()) <= 1e-4


@pytest.mark.parametrize("pair", ["v3"], indirect=True)
def test_the_router_bias_decides(pair):
    """The bias of these models is large enough that leaving it out would be seen."""
    _, theirs, (model, params, bias), _ = pair
    assert relative(jax.jit(partial(logits, model))(params, jnp.zeros_like(bias)), torch_logits(theirs)) > 1e-2


def test_transformers_loads_what_is_exported(pair, tmp_path):
    _, theirs, (model, params, bias), _ = pair
    save_checkpoint(tmp_path / "out", model, params, bias, dtype="float32", token_ids={"eos_token_id": 2})
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values()), report
    assert again.dtype == torch.float32 and again.config.eos_token_id == 2
    assert again.generation_config.eos_token_id == 2
    np.testing.assert_array_equal(torch_logits(again), torch_logits(theirs))


@pytest.fixture(scope="module")
def with_mtp(tmp_path_factory):
    """A model with a module for multi-token prediction, drawn here and exported."""
    folder = tmp_path_factory.mktemp("mtp")
    hf_models.make_model("v3").save_pretrained(folder / "base")
    model, params, bias = hf_models.read_model(folder / "base")
    model = hf_models.dataclasses.replace(model, num_mtp_layers=1, max_positions=64)
    shapes, state = hf_models.abstract_model(model)
    keys = iter(jax.random.split(jax.random.key(1), 100))
    fresh = jax.tree.map(lambda leaf: 0.2 + 0.2 * jax.random.normal(next(keys), leaf.shape), shapes["mtp"])
    params, bias = params | {"mtp": fresh}, jnp.concatenate([bias, jax.random.uniform(next(keys), (1, 8))])
    assert bias.shape == state.shape
    save_checkpoint(folder / "out", model, params, bias, dtype="float32")
    return folder / "out", model, params, bias


def test_multi_token_prediction_is_read_as_it_was_written(with_mtp):
    folder, model, params, bias = with_mtp
    again, new_params, new_bias = hf_models.read_model(folder)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, (params, bias), (new_params, new_bias))


def test_multi_token_prediction_is_that_of_transformers(with_mtp):
    folder, model, params, bias = with_mtp

    def ours(params, bias):
        hidden = forward(model, params, bias, jnp.asarray(TOKENS), POSITIONS)[0]
        shifted = mtp_forward(model, params, bias, hidden[:, :-1], jnp.asarray(TOKENS)[:, 1:], POSITIONS[:, :-1])[0]
        return shifted @ output_head(model, params)

    main = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    main._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{model.num_layers}.*"]  # it knows of 61 alone
    module = MtpModel.from_pretrained(main).eval()
    tokens = torch.tensor(TOKENS)
    with torch.no_grad():
        hidden = main.model(tokens).last_hidden_state[:, :-1]
        places = torch.arange(1, LENGTH)[None].expand(2, -1)
        cache = MtpCache(config=main.config.get_mtp_config())
        expected = module.shared_head(module.forward_layer(0, hidden, places, cache, input_ids=tokens[:, 1:]))
    assert relative(jax.jit(ours)(params, bias), expected.numpy()) <= 2e-5
