"""DeepSeek-V3 and V2 against transformers: rotary frequencies, logits, absorbed decoding, multi-token prediction."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig
from transformers.modeling_layers import MtpModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import yarn_apply_mscale

from experiments.pretrain import pretraining_loss
from r1jax.data.packing import PackedBatch
from r1jax.models.attention import latent_rotary
from r1jax.models.cache import init_cache, write_cache
from r1jax.models.config import Llama3Rope, ModelConfig, Yarn
from r1jax.models.mtp import mtp_forward
from r1jax.models.presets import deepseek_v3, deepseek_v3_pretraining, llama_3_1_8b
from r1jax.models.transformer import forward, output_head
from r1jax.ops.rotary import llama3_frequencies, rotary_frequencies, yarn_frequencies

VOCAB, LENGTH = 31, 7
YARNS = {
    "R1": Yarn(40.0, 4096),
    "V2": Yarn(40.0, 4096, mscale=0.707, mscale_all_dim=0.707),
    "unequal": Yarn(8.0, 128, beta_fast=16.0, beta_slow=2.0, mscale=1.0, mscale_all_dim=0.5),
    "no temperature for all channels": Yarn(4.0, 64, mscale_all_dim=0.0),
    "no mscale": Yarn(4.0, 64, mscale=0.0),
}


def rope_parameters(yarn, theta=10000.0):
    if yarn is None:
        return {"rope_type": "default", "rope_theta": theta}
    fields = dataclasses.asdict(yarn)
    return {
        "rope_type": "yarn",
        "rope_theta": theta,
        "original_max_position_embeddings": fields.pop("original_length"),
    } | fields


# Frequencies


@pytest.mark.parametrize("yarn", YARNS.values(), ids=YARNS)
def test_yarn_is_that_of_transformers(yarn):
    config = DeepseekV3Config(
        hidden_size=256, num_attention_heads=4, rope_parameters=rope_parameters(yarn), max_position_embeddings=163840
    )
    expected, factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    frequencies, amplitude, scale = latent_rotary(dataclasses.replace(deepseek_v3(), yarn=yarn))
    np.testing.assert_allclose(frequencies, expected.numpy(), rtol=1e-6)
    assert amplitude == pytest.approx(factor, rel=1e-12)
    assert scale == pytest.approx(yarn_apply_mscale(config.rope_parameters, 192**-0.5), rel=1e-12)


def test_yarn_of_r1_has_the_published_numbers():
    frequencies, amplitude, scale = latent_rotary(deepseek_v3())
    plain = 10000.0 ** (-np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(frequencies[:11], plain[:11], rtol=1e-6)  # channels up to 10 keep their frequency
    assert (frequencies[11:23] < 0.999 * plain[11:23]).all() and (frequencies[11:23] > 1.001 * plain[11:23] / 40).all()
    np.testing.assert_allclose(frequencies[23:], plain[23:] / 40, rtol=1e-6)  # and from 23 on it is divided
    middle = 7 / 13  # the mix is linear in the index of the channel
    assert frequencies[17] == pytest.approx(plain[17] / 40 * middle + plain[17] * (1 - middle), rel=1e-6)
    assert amplitude == 1.0 and scale == pytest.approx(0.1352337788608801, rel=1e-12)
    assert scale / 192**-0.5 == pytest.approx(1.3688879454**2, rel=1e-9)


def test_pre_training_has_no_yarn():
    frequencies, amplitude, scale = latent_rotary(deepseek_v3_pretraining())
    np.testing.assert_array_equal(frequencies, rotary_frequencies(64, 10000.0))
    assert amplitude == 1.0 and scale == 192**-0.5


def test_a_ramp_without_width_is_a_step():
    frequencies = yarn_frequencies(4, 10.0, factor=2.0, original_length=1000, beta_fast=1.5, beta_slow=1.0)
    np.testing.assert_allclose(frequencies, rotary_frequencies(4, 10.0))


@pytest.mark.parametrize("rope", [llama_3_1_8b().llama3_rope, Llama3Rope(32.0, 1.5, 6.0, 64)], ids=["3.1", "other"])
def test_llama3_rope_is_that_of_transformers(rope):
    fields = dataclasses.asdict(rope)
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=4,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0}
        | {"original_max_position_embeddings": fields.pop("original_length")}
        | fields,
    )
    expected, factor = ROPE_INIT_FUNCTIONS["llama3"](config)
    assert factor == 1.0
    np.testing.assert_allclose(llama3_frequencies(128, 500000.0, **vars(rope)), expected.numpy(), rtol=1e-6)


# Models


SHARED = dict(
    vocab_size=VOCAB, hidden_size=24, intermediate_size=20, moe_intermediate_size=12, num_hidden_layers=3,
    num_attention_heads=2, num_key_value_heads=2, n_shared_experts=2, n_routed_experts=8, kv_lora_rank=10,
    qk_rope_head_dim=8, v_head_dim=6, qk_nope_head_dim=4, num_experts_per_tok=3, first_k_dense_replace=1,
    max_position_embeddings=256,
)  # fmt: skip
OURS = ModelConfig(
    vocab_size=VOCAB, embed_dim=24, num_layers=3, num_dense_layers=1, mlp_dim=20, num_heads=2, kv_lora_rank=10,
    qk_nope_head_dim=4, qk_rope_head_dim=8, v_head_dim=6, num_experts=8, num_experts_per_token=3, num_shared_experts=2,
    expert_mlp_dim=12, dtype="float32", unroll_layers=True, remat=False, expert_dispatch="dense",
)  # fmt: skip
YARN = Yarn(16.0, 16, beta_fast=4.0, beta_slow=0.5, mscale=1.0, mscale_all_dim=0.6)

V3_THEIRS = dict(q_lora_rank=7, n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True)
V3_OURS = dict(q_lora_rank=7, num_expert_groups=4, num_limited_groups=2, routed_scaling_factor=2.5, num_mtp_layers=1)
V2_THEIRS = dict(
    q_lora_rank=None, n_group=4, topk_group=2, routed_scaling_factor=1.7, topk_method="group_limited_greedy"
)
V2_OURS = dict(
    num_expert_groups=4, num_limited_groups=2, routed_scaling_factor=1.7, router_score="softmax", normalize_top_k=False
)


def randomize(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if "inv_freq" in name:
                continue
            draw = torch.rand if "norm" in name or "bias" in name else torch.randn
            draw = draw(tensor.shape, generator=generator)
            tensor.copy_(0.5 + draw if "norm" in name else 0.3 * draw)


def layer_params(layer, config):
    """One decoder layer of transformers as ours."""
    get = {name: tensor.detach().numpy() for name, tensor in layer.state_dict().items()}
    heads = lambda name, width: get[name].T.reshape(-1, config.num_heads, width)
    mlp = lambda prefix: {ours: get[f"{prefix}.{ours}_proj.weight"].T for ours in ("gate", "up", "down")}
    norm = lambda name: {"scale": get[f"{name}.weight"]}
    query = config.qk_nope_head_dim + config.qk_rope_head_dim
    attention = {
        "q_up": heads("self_attn.q_b_proj.weight" if config.q_lora_rank else "self_attn.q_proj.weight", query),
        "kv_down": get["self_attn.kv_a_proj_with_mqa.weight"].T,
        "kv_norm": norm("self_attn.kv_a_layernorm"),
        "kv_up": heads("self_attn.kv_b_proj.weight", config.qk_nope_head_dim + config.v_head_dim),
        "out": get["self_attn.o_proj.weight"].T.reshape(config.num_heads, config.v_head_dim, -1),
    }
    if config.q_lora_rank:
        attention |= {"q_down": get["self_attn.q_a_proj.weight"].T, "q_norm": norm("self_attn.q_a_layernorm")}
    params = {"attention": attention, "attention_norm": norm("input_layernorm")}
    params["mlp_norm"] = norm("post_attention_layernorm")
    if "mlp.gate.weight" not in get:
        return params | {"mlp": mlp("mlp")}
    gate, up = np.split(get["mlp.experts.gate_up_proj"].transpose(0, 2, 1), 2, axis=-1)
    moe = {"gate": gate, "up": up, "down": get["mlp.experts.down_proj"].transpose(0, 2, 1)}
    return params | {"moe": moe | {"router": get["mlp.gate.weight"].T, "shared": mlp("mlp.shared_experts")}}


def convert(model, mtp, config):
    """(params, router_bias) of a model of transformers and its MTP module."""
    layers = [layer_params(layer, config) for layer in model.model.layers]
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    bias = lambda layer: getattr(layer.mlp.gate, "e_score_correction_bias", torch.zeros(8)).numpy()
    biases = [bias(layer) for layer in model.model.layers[1:]]
    params = {
        "embedding": model.model.embed_tokens.weight.detach().numpy(),
        "head": model.lm_head.weight.detach().numpy().T,
        "final_norm": {"scale": model.model.norm.weight.detach().numpy()},
        "dense_layers": stack(layers[:1]),
        "moe_layers": stack(layers[1:]),
    }
    if mtp is not None:
        layer = mtp.layers[0]
        scale = lambda norm: {"scale": norm.weight.detach().numpy()}
        params["mtp"] = {
            "embedding_norm": scale(layer.enorm),
            "hidden_norm": scale(layer.hnorm),
            "projection": layer.eh_proj.weight.detach().numpy().T,
            "block": layer_params(layer.mtp_block, config),
            "final_norm": scale(layer.post_norm),
        }
        biases.append(bias(layer.mtp_block))
    return jax.tree.map(jnp.asarray, (params, np.stack(biases)))


@functools.cache
def pair(family, yarn):
    """(model of transformers, its MTP module, our config, params, router_bias)."""
    theirs, ours = (V3_THEIRS, V3_OURS) if family == "V3" else (V2_THEIRS, V2_OURS)
    kinds = (DeepseekV3Config, DeepseekV3ForCausalLM) if family == "V3" else (DeepseekV2Config, DeepseekV2ForCausalLM)
    description = kinds[0](**SHARED, **theirs, rope_parameters=rope_parameters(yarn), attn_implementation="eager")
    model = kinds[1](description).eval()
    mtp = MtpModel(model, 1).eval() if family == "V3" else None
    for seed, module in enumerate([model, mtp] if mtp else [model]):
        randomize(module, seed)
    config = dataclasses.replace(OURS, **ours, yarn=yarn)
    return model, mtp, config, *convert(model, mtp, config)


def torch_mtp_logits(model, mtp, tokens):
    """Logits for token i + 2 at each i, [B, T - 1, V]: the layer of transformers, on tokens from the second on."""
    positions = torch.arange(1, tokens.shape[1])[None]
    hidden = model.model(tokens).last_hidden_state[:, :-1]
    embedded = model.model.embed_tokens(tokens[:, 1:])
    causal = torch.triu(torch.full((positions.shape[1],) * 2, -torch.inf), 1)[None, None]
    cos_sin = model.model.rotary_emb(embedded, positions)
    out = mtp.layers[0](embedded, hidden, cos_sin, causal.expand(len(tokens), -1, -1, -1), positions, None)
    return model.lm_head(out)


TOKENS = np.random.default_rng(0).integers(VOCAB, size=(2, LENGTH)).astype(np.int32)
POSITIONS = np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))
run = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0}, static_argnums=0)(forward)


@pytest.mark.parametrize("family, yarn", [("V3", YARN), ("V2", YARN), ("V3", None)], ids=["V3", "V2", "V3 short"])
def test_logits_are_those_of_transformers_and_absorbed_decoding_agrees(family, yarn):
    model, _, config, params, bias = pair(family, yarn)
    expected = model(torch.tensor(TOKENS, dtype=torch.int64)).logits.detach().numpy()
    hidden, _, load = run(config, params, bias, TOKENS, POSITIONS)
    head, scale = output_head(config, params), np.abs(expected).max()
    np.testing.assert_allclose(hidden @ head, expected, atol=2e-5 * scale)
    assert load[:2].sum(-1).tolist() == [2 * LENGTH * 3] * 2 and not load[2:].any()
    cache = init_cache(config, 2, LENGTH)
    first = LENGTH - 2
    _, entries, _ = run(config, params, bias, TOKENS[:, :first], POSITIONS[:, :first])
    cache = write_cache(cache, entries, 0)
    hidden, _, _ = run(config, params, bias, TOKENS[:, first:], POSITIONS[:, first:], cache=cache)
    np.testing.assert_allclose(hidden @ head, expected[:, first:], atol=2e-5 * scale)


def test_yarn_reaches_the_logits():
    """The comparison above would see a wrong scale or frequency: without YaRN the logits are others."""
    _, _, config, params, bias = pair("V3", YARN)
    plain = run(dataclasses.replace(config, yarn=None), params, bias, TOKENS, POSITIONS)[0]
    assert np.abs(plain - run(config, params, bias, TOKENS, POSITIONS)[0]).max() > 1e-2


def test_the_token_after_the_next_is_predicted_as_transformers_does():
    model, mtp, config, params, bias = pair("V3", YARN)
    expected = torch_mtp_logits(model, mtp, torch.tensor(TOKENS, dtype=torch.int64)).detach().numpy()
    hidden, _, _ = run(config, params, bias, TOKENS, POSITIONS)
    arguments = hidden[:, :-1], TOKENS[:, 1:], POSITIONS[:, :-1]
    ahead, routing = mtp_forward(config, params, bias, *arguments)
    logits = ahead @ output_head(config, params)
    np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max())
    assert routing.load.sum(-1).tolist() == [0, 0, 2 * (LENGTH - 1) * 3] and routing.balance.shape == (3,)


def packed_documents():
    """Two documents of 7 and 4 tokens in one row and one of 6 in another, as pack_documents lays them."""
    rng = np.random.default_rng(1)
    documents = [rng.integers(VOCAB, size=size).tolist() for size in (7, 4, 6)]
    batch = PackedBatch(*(np.zeros((2, 12), np.int32) for _ in range(4)))
    batch.positions[:] = -1
    for (row, start, segment), ids in zip([(0, 0, 1), (0, 6, 2), (1, 0, 1)], documents):
        place = row, slice(start, start + len(ids) - 1)
        batch.tokens[place], batch.targets[place] = ids[:-1], ids[1:]
        batch.positions[place], batch.segments[place] = np.arange(len(ids) - 1), segment
    return documents, batch


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0}, static_argnums=0)
@functools.partial(jax.grad, argnums=1, has_aux=True)
def gradient(config, params, bias, batch, scalars):
    output = pretraining_loss(config, params, bias, batch, scalars)
    return output.loss_sum, output


def test_the_pre_training_loss_and_its_gradients_are_those_of_torch_document_by_document():
    model, mtp, config, params, bias = pair("V3", YARN)
    documents, batch = packed_documents()
    model.zero_grad(), mtp.zero_grad()
    main, ahead = 0.0, 0.0
    for ids in documents:
        tokens = torch.tensor([ids])
        cross_entropy = functools.partial(torch.nn.functional.cross_entropy, reduction="sum")
        main += cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:])
        ahead += cross_entropy(torch_mtp_logits(model, mtp, tokens)[0, :-1], tokens[0, 2:])
    (main + 0.3 * ahead).backward()

    gradients, output = gradient(config, params, bias, batch, {"mtp_weight": 0.3, "balance_weight": 0.0})
    tokens = sum(len(ids) - 1 for ids in documents)
    assert output.count == tokens  # of eq. 24 too
    assert output.metric_sums["next_token_loss"] == pytest.approx(main.item(), rel=1e-5)
    assert output.metric_sums["mtp_loss"] == pytest.approx(ahead.item(), rel=1e-5)
    assert output.loss_sum == pytest.approx((main + 0.3 * ahead).item(), rel=1e-5)
    assert output.load.sum(-1).tolist() == [3 * tokens, 3 * tokens, 3 * (tokens - len(documents))]
    layer = mtp.layers[0]
    for ours, theirs in [
        (gradients["embedding"], model.model.embed_tokens.weight.grad),
        (gradients["head"], model.lm_head.weight.grad.T),
        (gradients["final_norm"]["scale"], model.model.norm.weight.grad),
        (gradients["mtp"]["projection"], layer.eh_proj.weight.grad.T),
        (gradients["mtp"]["final_norm"]["scale"], layer.post_norm.weight.grad),
        (gradients["mtp"]["block"]["moe"]["router"], layer.mtp_block.mlp.gate.weight.grad.T),
    ]:
        theirs = theirs.numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_the_balance_enters_the_pre_training_loss_by_its_weight():
    _, _, config, params, bias = pair("V3", YARN)
    batch = packed_documents()[1]
    loss = lambda weight: gradient(config, params, bias, batch, {"mtp_weight": 0.3, "balance_weight": weight})[1]
    plain, balanced = loss(0.0), loss(0.5)
    balance = float(plain.metric_sums["balance"])
    assert balance > 14 * 0.9  # about 1 a token, and more where experts are used unevenly
    assert float(balanced.loss_sum - plain.loss_sum) == pytest.approx(0.5 * 3 * balance, rel=1e-4)
