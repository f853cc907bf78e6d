"""The device mesh, and the one table that says which logical axis lies on which mesh axis."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from r1jax.config import UserError

MESH_AXES = ("data", "fsdp", "expert", "tensor", "sequence")

RULES = {
    "batch": ("data", "fsdp", "expert"),
    "length": "sequence",
    "length_between_layers": ("sequence", "tensor"),
    "embed_activation": None,
    "embed": ("fsdp", "sequence"),  # devices that share a sequence need not have the same parameters
    "vocab": "tensor",
    "heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "experts": "expert",
    "expert_mlp": "tensor",
    "q_lora": None,
    "kv_lora": None,
    # Of the matrices that lead out of a compression; those that lead into it are cut along "embed".
    "lora": ("fsdp", "sequence"),
    "layers": None,
    "as_it_lies": PartitionSpec.UNCONSTRAINED,
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis. One axis may be -1: whatever is left."""

    data: int = 1
    """Replicas of the parameters."""
    fsdp: int = -1
    """Parameters, gradients and optimizer state are cut along this axis; the batch too."""
    expert: int = 1
    """Experts are spread along this axis; the batch too."""
    tensor: int = 1
    """Heads, hidden widths and the vocabulary are cut along this axis."""
    sequence: int = 1
    """Tokens of a sequence are cut along this axis; parameters, gradients and optimizer state too."""


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
    """Arrange the devices as a mesh with all five axes, axes of length 1 included.

    Raises:
      UserError: the axes do not multiply to the number of devices, or this is one of several hosts and knows it not.
    """
    if devices is None and jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(f"this slice has {jax.process_count()} hosts, which must join each other: add --distributed")
    devices = jax.devices() if devices is None else devices
    sizes = _axis_sizes(config, len(devices))
    types = (AxisType.Auto,) * len(sizes)
    try:
        return jax.make_mesh(sizes, MESH_AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # an axis is no product of sides of the slice: parts of a side, then
        devices = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        return Mesh(devices, MESH_AXES, axis_types=types)


def reshape_mesh(mesh: Mesh, config: MeshConfig) -> Mesh:
    """Another mesh of the same devices in the same order, so that one program can move arrays from one to the other.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    sizes = _axis_sizes(config, mesh.size)
    return Mesh(mesh.devices.reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))


def _axis_sizes(config: MeshConfig, devices: int) -> list[int]:
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    shown = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes))
    known = 1
    for size in sizes:
        known *= max(size, 1)
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"mesh {shown}: every axis must be a positive number, at most one of them -1")
    if devices % known or (-1 not in sizes and known != devices):
        raise UserError(f"mesh {shown} asks for a multiple of {known} devices, and there are {devices}; change --mesh")
    return [devices // known if size == -1 else size for size in sizes]


def make_abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """The mesh of devices that are not there, to find out how arrays would lie on it.

    Raises:
      UserError: an axis is not a positive number; without devices nothing is left for an axis of -1.
    """
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    for axis, size in sizes.items():
        if size < 1:
            raise UserError(f"--mesh.{axis} must be a positive number, not {size}")
    return AbstractMesh(tuple(sizes.values()), MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))


def mesh_of_one(device) -> Mesh:
    """A mesh of this device alone."""
    return make_mesh(MeshConfig(), [device])


def partition_spec(axes) -> PartitionSpec:
    """Mesh axes for a tuple of logical axes; None stays None."""
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def constrain(x: jax.Array, axes) -> jax.Array:
    """Ask that `x` lie as its logical `axes` say on the mesh in force; without a mesh, do nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes))


def on_several_devices() -> bool:
    """Whether a mesh of more than one device is in force."""
    return jax.sharding.get_abstract_mesh().size > 1


def count_ways(axis: str) -> int:
    """Into how many parts a logical axis is cut on the mesh in force; 1 without a mesh."""
    mesh, mesh_axes = jax.sharding.get_abstract_mesh(), RULES[axis] or ()
    names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in names)


def cut_axes(axis: str, size: int):
    """Mesh axes along which `size` of a logical axis is cut on the mesh in force; None where it does not divide."""
    return None if size % count_ways(axis) else RULES[axis]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over every axis that carries the batch, the rest replicated."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def in_memory(kind: Literal["device", "pinned_host"], tree):
    """Arrays laid out as they are, in the memory of the devices or of their hosts; what is there is not copied."""
    return jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind(kind)), tree)


def tree_shardings(abstract, mesh: Mesh | AbstractMesh):
    """A sharding for each leaf: from its logical axes where Flax metadata gives them, replicated elsewhere.

    Args:
      abstract: a pytree of shapes, its parameters boxed with logical axes, as `jax.eval_shape` of an init function
        gives it.

    Returns:
      The same tree, unboxed, with a NamedSharding at each leaf.

    Raises:
      UserError: a dimension is not divisible by the mesh axes it is cut along; says which.
    """

    def place(path, leaf):
        if not isinstance(leaf, nn.LogicallyPartitioned):
            return replicated(mesh)
        for dim, (size, axis) in enumerate(zip(leaf.value.shape, leaf.names)):
            check_divides(mesh, size, axis, f"dimension {dim} ({axis}) of {jax.tree_util.keystr(path)}")
        return NamedSharding(mesh, partition_spec(leaf.names))

    boxed = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    return jax.tree_util.tree_map_with_path(place, abstract, is_leaf=boxed)


def abstract_arrays(abstract, mesh: Mesh):
    """Shapes with their shardings, unboxed, from the same argument as `tree_shardings`; for loading into."""
    shardings = tree_shardings(abstract, mesh)
    with_sharding = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(with_sharding, nn.meta.unbox(abstract), shardings)


def check_divides(mesh: Mesh | AbstractMesh, size: int, axis: str, what: str) -> None:
    """Raise UserError where `size` of the logical `axis` does not divide over the mesh; `what` names it."""
    mesh_axes = RULES[axis] or ()
    mesh_axes = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
    ways = 1
    for name in mesh_axes:
        ways *= mesh.shape[name]
    if size % ways:
        raise UserError(
            f"{what} has size {size}, which does not divide over the {ways} devices of mesh axes "
            f"{' x '.join(mesh_axes)}; change --mesh, or that size"
        )
