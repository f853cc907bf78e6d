"""How large a model is: parameters, key-value cache, and bytes on each chip of a mesh.

    python -m r1jax.models.describe --preset=deepseek_v3 --mesh.fsdp=64 --mesh.expert=8

Nothing is allocated and no device is asked for; every field of the preset can be changed by its option.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import tyro

from r1jax import launch
from r1jax.models import presets
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import init_params
from r1jax.sharding import MeshConfig, abstract_arrays, make_abstract_mesh

BF16, FP32 = 2, 4  # bytes


@dataclasses.dataclass(frozen=True)
class Config:
    """A model and a mesh."""

    model: tyro.conf.AvoidSubcommands[ModelConfig]
    mesh: MeshConfig = MeshConfig(fsdp=1)


class Sizes(NamedTuple):
    """Numbers of parameters."""

    main: int
    """Without the MTP module; router biases are counted, for the checkpoint holds them (softmax routers have none)."""
    router_bias: int
    """Of `main`, the biases that balance the experts."""
    embedding: int
    head: int
    """0 where it is the embedding."""
    activated: int
    """Of `main`, what one token uses: all but the routed experts that are not chosen."""
    mtp: int
    """The MTP module, its router bias included; embedding and head are the main model's."""


def abstract_model(config: ModelConfig):
    """Shapes of (params, router_bias), boxed with logical axes; nothing is allocated."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def measure(config: ModelConfig) -> Sizes:
    """Count parameters by their shapes."""
    params = nn.meta.unbox(abstract_model(config)[0])
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    mtp, biased = params.pop("mtp", {}), config.num_experts if config.router_score == "sigmoid" else 0
    bias = config.num_moe_layers * biased
    routed = params["moe_layers"]["moe"] if config.num_moe_layers else {}
    expert = count([routed[name] for name in ("gate", "up", "down") if name in routed]) // max(config.num_experts, 1)
    main = count(params) + bias
    return Sizes(
        main=main,
        router_bias=bias,
        embedding=count(params["embedding"]),
        head=count(params.get("head", ())),
        activated=main - expert * (config.num_experts - config.num_experts_per_token),
        mtp=count(mtp) + config.num_mtp_layers * biased,
    )


def parameters_per_chip(config: ModelConfig, mesh: MeshConfig) -> int:
    """Parameters that each chip holds, the MTP module included, by the rules of r1jax.sharding.

    Raises:
      UserError: a dimension does not divide over the mesh; says which.
    """
    leaves = jax.tree.leaves(abstract_arrays(abstract_model(config), make_abstract_mesh(mesh)))
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def report(config: ModelConfig, mesh: MeshConfig) -> str:
    """All of it as text, one figure a line."""
    sizes, chips = measure(config), math.prod(dataclasses.astuple(mesh))
    per_chip, cache = parameters_per_chip(config, mesh), config.cache_elements_per_token
    total, embeddings = sizes.main + sizes.mtp, sizes.embedding + sizes.head
    bytes_of = lambda count: f"{BF16 * count:,} bytes in bf16, {FP32 * count:,} in fp32"
    lines = [
        ("parameters", f"{sizes.main:,}, of which {sizes.router_bias:,} router biases"),
        ("  without embedding and head", f"{sizes.main - embeddings:,}"),
        ("activated a token", f"{sizes.activated:,}"),
        ("  without embedding", f"{sizes.activated - sizes.embedding:,}"),
        ("  without embedding and head", f"{sizes.activated - embeddings:,}"),
        ("MTP module", f"{sizes.mtp:,}, besides the shared embedding and head"),
        ("weights with MTP", bytes_of(total)),
        (f"weights a chip, of {chips}", f"{per_chip:,} parameters, {bytes_of(per_chip)}"),
        ("KV cache a token", f"{cache:,} elements, {bytes_of(cache)}"),
    ]
    if config.max_positions:
        lines.append((f"KV cache of {config.max_positions:,} tokens", bytes_of(cache * config.max_positions)))
    return "\n".join(f"{name:30} {text}" for name, text in lines)


PRESETS = {
    make.__name__: make
    for make in (
        presets.deepseek_v3,
        presets.deepseek_v3_pretraining,
        presets.deepseek_v2_lite,
        presets.v3_1m,
        presets.v3_30m,
        presets.v3_1b,
        presets.qwen2_5_1_5b,
        presets.qwen2_5_7b,
        presets.qwen2_5_14b,
        presets.qwen2_5_32b,
        presets.qwen2_5_math_1_5b,
        presets.qwen2_5_math_7b,
        presets.llama_3_1_8b,
        presets.llama_3_3_70b,
    )
}


def main(config: Config) -> None:
    launch.console.print(report(config.model, config.mesh), markup=False, soft_wrap=True)


if __name__ == "__main__":
    launch.run(main, Config, {name: Config(make()) for name, make in PRESETS.items()})
