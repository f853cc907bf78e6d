"""Sizes of the presets against transformers on the meta device and against published figures."""

import functools

import pytest
import torch
import transformers

from r1jax import launch
from r1jax.config import UserError
from r1jax.models import describe, presets
from r1jax.sharding import MeshConfig

QWEN = dict(num_attention_heads=12, num_key_value_heads=2, hidden_size=1536, intermediate_size=8960, vocab_size=151936)
QWEN |= dict(num_hidden_layers=28, tie_word_embeddings=True)
QWEN_7B = dict(num_attention_heads=28, num_key_value_heads=4, hidden_size=3584, intermediate_size=18944)
QWEN_7B |= dict(num_hidden_layers=28, vocab_size=152064)
QWEN_14B = QWEN_7B | dict(num_attention_heads=40, num_key_value_heads=8, hidden_size=5120, num_hidden_layers=48)
QWEN_14B |= dict(intermediate_size=13824)
LLAMA = dict(
    num_attention_heads=32, num_key_value_heads=8, hidden_size=4096, intermediate_size=14336, vocab_size=128256
)
LLAMA |= dict(num_hidden_layers=32)
V2_LITE = dict(
    num_attention_heads=16, num_key_value_heads=16, hidden_size=2048, intermediate_size=10944, vocab_size=102400,
    num_hidden_layers=27, first_k_dense_replace=1, moe_intermediate_size=1408, n_routed_experts=64, n_shared_experts=2,
    num_experts_per_tok=6, q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
)  # fmt: skip
PUBLISHED = {
    "deepseek_v3": ("DeepseekV3", {}, 671_026_404_352, 14_848),  # the sizes of R1 are the defaults of transformers
    "deepseek_v3_pretraining": ("DeepseekV3", {}, 671_026_404_352, 14_848),
    "deepseek_v2_lite": ("DeepseekV2", V2_LITE, 15_706_484_224, 0),
    "qwen2_5_1_5b": ("Qwen2", QWEN, 1_543_714_304, 0),
    "qwen2_5_math_1_5b": ("Qwen2", QWEN, 1_543_714_304, 0),
    "qwen2_5_7b": ("Qwen2", QWEN_7B, 7_615_616_512, 0),
    "qwen2_5_math_7b": ("Qwen2", QWEN_7B, 7_615_616_512, 0),
    "qwen2_5_14b": ("Qwen2", QWEN_14B, 14_770_033_664, 0),
    "qwen2_5_32b": ("Qwen2", QWEN_14B | dict(num_hidden_layers=64, intermediate_size=27648), 32_763_876_352, 0),
    "llama_3_1_8b": ("Llama", LLAMA, 8_030_261_248, 0),
    "llama_3_3_70b": (
        "Llama",
        LLAMA | dict(num_attention_heads=64, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80),
        70_553_706_496,
        0,
    ),
}
ABLATIONS = {"v3_1m": 1e6, "v3_30m": 30e6, "v3_1b": 1e9}


def parameters_of_transformers(family, fields):
    """From two and three layers of each kind, for building eighty takes seconds: the count is linear in them."""
    layers, dense = fields.get("num_hidden_layers", 61), fields.get("first_k_dense_replace", 3)
    dense = dense if family.startswith("Deepseek") else 0

    @functools.cache
    def count(layers, dense):
        more = {"first_k_dense_replace": dense} if family.startswith("Deepseek") else {}
        config = getattr(transformers, f"{family}Config")(**(fields | {"num_hidden_layers": layers} | more))
        with torch.device("meta"):
            model = getattr(transformers, f"{family}ForCausalLM")(config)
        return sum(parameter.numel() for parameter in model.parameters())

    last, first = count(2, 0) - count(1, 0), count(2, 1) - count(1, 0)
    return count(1, 0) + (layers - dense - 1) * last + dense * (first if dense else 0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_transformers_and_the_published_number(name):
    family, fields, published, router_bias = PUBLISHED[name]
    sizes = describe.measure(describe.PRESETS[name]())
    assert sizes.main - sizes.router_bias == published
    assert sizes.router_bias == router_bias
    if "math" not in name and "pretraining" not in name:
        assert parameters_of_transformers(family, fields) == published


def test_every_preset_is_tested():
    assert describe.PRESETS.keys() == PUBLISHED.keys() | ABLATIONS.keys()


def test_the_parts_of_deepseek_v3():
    config = presets.deepseek_v3()
    sizes = describe.measure(config)
    assert sizes.main == 671_026_419_200
    expert, attention = 3 * 7168 * 2048, 187_107_328
    used = 61 * (attention + 2 * 7168) + 3 * 3 * 7168 * 18432 + 58 * (9 * expert + 7168 * 256 + 256)
    assert sizes.activated == used + 2 * 129280 * 7168 + 7168 == 37_552_297_472
    # One layer more, a projection of two states, three norms; embedding and head are shared.
    mtp = attention + 257 * expert + 7168 * 256 + 256 + 2 * 7168 + 2 * 7168 * 7168 + 3 * 7168
    assert sizes.mtp == mtp and round(mtp / 1e9, 1) == 11.6
    assert config.cache_elements_per_token == 35_136
    text = describe.report(config, MeshConfig(fsdp=1))
    for figure in ("671,026,419,200", "37,552,297,472", "36,625,618,432", "35,136 elements, 70,272 bytes in bf16"):
        assert figure in text


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_ablation_shapes_have_about_their_size(name):
    assert describe.measure(describe.PRESETS[name]()).main == pytest.approx(ABLATIONS[name], rel=0.1)


def test_bytes_on_a_chip_follow_the_rules_of_the_mesh():
    config = presets.v3_1m()
    whole = describe.parameters_per_chip(config, MeshConfig(fsdp=1))
    sizes = describe.measure(config)
    assert whole == sizes.main + sizes.mtp
    assert describe.parameters_per_chip(config, MeshConfig(fsdp=1, data=64)) == whole  # replicas
    split = describe.parameters_per_chip(config, MeshConfig(fsdp=2, expert=4))
    routed = 3 * 16 * (3 * 128 * 32 + 128)  # experts and routers are cut by both axes
    # What has no dimension along fsdp stays whole: norms of latents, router biases.
    kept = 4 * (64 + 32) + 3 * 16
    assert split == routed // 8 + (whole - routed - kept) // 2 + kept


@pytest.mark.parametrize(
    "mesh, message",
    [
        (
            MeshConfig(fsdp=1, expert=3),
            r"dimension 1 \(experts\) of .*moe.* has size 256, which does not divide over the 3",
        ),
        (
            MeshConfig(fsdp=10),
            r"\(embed\) of .* has size 7168, which does not divide over the 10 devices of mesh axes fsdp",
        ),
        (MeshConfig(), "--mesh.fsdp must be a positive number, not -1"),
    ],
    ids=["expert", "fsdp", "open"],
)
def test_a_mesh_that_does_not_fit_is_refused_by_dimension(mesh, message):
    with pytest.raises(UserError, match=message):
        describe.report(presets.deepseek_v3(), mesh)


def test_the_command_prints_the_report_and_takes_changes(monkeypatch, capsys):
    monkeypatch.setattr(launch, "tune_allocator", lambda: None)
    choices = {name: describe.Config(describe.PRESETS[name]()) for name in ("v3_1m", "qwen2_5_1_5b")}
    monkeypatch.setattr("sys.argv", ["describe", "--preset=v3_1m", "--mesh.fsdp=2", "--model.num-layers=5"])
    launch.run(describe.main, describe.Config, choices)
    text = " ".join(capsys.readouterr().out.split())
    assert "weights a chip, of 2" in text and "KV cache a token 240 elements" in text
