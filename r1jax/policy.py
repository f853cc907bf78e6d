"""A policy as the stages hand it on: model, tokenizer, weights; started, resumed, frozen."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from r1jax.checkpoint import FOLDER, Parent, load_parent, open_parent, restore
from r1jax.config import UserError, as_path, to_dict
from r1jax.data.tokenizer import Tokenizer, check_vocabulary, load_tokenizer
from r1jax.interop.hf_config import is_hf_folder, read_hf_config
from r1jax.interop.loading import has_mtp, load_checkpoint
from r1jax.models.config import Dtype, ModelConfig, read_model_config
from r1jax.models.layers import cast_params, cast_shapes
from r1jax.models.presets import for_tpu
from r1jax.models.transformer import init_params
from r1jax.provenance import file_hash
from r1jax.sharding import abstract_arrays
from r1jax.train import TrainState, init_train_state

REWARD_MODEL = "reward_model"
"""The experiment, by its checkpoint's provenance, that makes a reward model (r1jax.reward_model) and no policy."""


class Policy(NamedTuple):
    """A model that can be sampled."""

    model: ModelConfig
    tokenizer: Tokenizer
    params: dict
    router_bias: jax.Array
    parent: Parent
    """Where it came from."""


def load_policy(folder: str | Path, mesh, *, dtype: Dtype | None = None) -> Policy:
    """Read a stage's latest weights and tokenizer onto the mesh, or those of a Hugging Face folder.

    Args:
      folder: workdir of a stage, or a Hugging Face folder.
      mesh: to lay the weights out on; need not be the stage's own.
      dtype: of activations and matrix products, by default the stage's own; parameters are float32 in any case.

    Raises:
      UserError: the folder is neither a finished stage's workdir nor a model that r1jax has, holds a reward model, or
        its model does not divide over the mesh.
    """
    if is_hf_folder(folder) and not (as_path(folder) / FOLDER).exists():
        return import_policy(folder, mesh, dtype=dtype)
    parent = open_parent(folder)
    if parent.provenance["run"].get("experiment") == REWARD_MODEL:
        raise UserError(f"--init={folder} holds a reward model, not a policy: it scores texts and cannot write any")
    tokenizer = load_tokenizer(folder)
    try:
        model = read_model_config(parent.model)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--init={folder}: its model description is not one of this version of r1jax: {error}"
        ) from error
    model = dataclasses.replace(model, dtype=dtype or model.dtype)
    return Policy(model, tokenizer, *load_parent(parent, *_shapes(model, mesh)), parent)


def import_policy(folder: str | Path, mesh, *, dtype: Dtype | None = None) -> Policy:
    """Read a model in the form of Hugging Face (docs/interop.md) onto the mesh.

    Raises:
      UserError: a file is broken, something in it is not what r1jax has, or tokenizer and vocabulary disagree.
    """
    folder = Path(folder)
    model, tokenizer = read_hf_config(folder), load_tokenizer(folder)
    check_vocabulary(tokenizer, model.vocab_size, folder)
    if not has_mtp(folder, model):
        model = dataclasses.replace(model, num_mtp_layers=0)
    if mesh.devices.flat[0].platform == "cpu":
        layout = {"dtype": "float32", "unroll_layers": True, "remat": False, "expert_dispatch": "dense"}
        model = dataclasses.replace(model, **layout)
    elif mesh.devices.flat[0].platform == "tpu":
        model = for_tpu(model)
    model = dataclasses.replace(model, dtype=dtype or model.dtype)
    weights = load_checkpoint(folder, model, *_shapes(model, mesh))
    return Policy(model, tokenizer, *weights, Parent(folder, None, 0, to_dict(model), _origin(folder)))


def _origin(folder: Path) -> dict:
    """Provenance of a Hugging Face folder: which files, of which size, with which configuration."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    run = {"experiment": "import", "config_sha256": file_hash(folder / "config.json"), "files": sizes}
    return {"folder": folder.name, "step": 0, "run": run}


def _shapes(model: ModelConfig, mesh):
    """Abstract parameters and router bias, for loading into."""
    return abstract_arrays(jax.eval_shape(partial(init_params, model), jax.random.key(0)), mesh)


def start_training(policy: Policy, optimizer, mesh, manager):
    """The state to train: from the run's own latest checkpoint, else with the policy's weights and a fresh optimizer.

    Args:
      manager: the run's checkpoints.

    Returns:
      state, its shardings, and the step of the checkpoint, None for a fresh run.
    """
    init = partial(init_params, policy.model)
    state, shardings = init_train_state(jax.random.key(0), init, optimizer, mesh)
    step = manager.latest_step()
    if step is None:
        # Copied, because the state is donated to its first update and the policy is not.
        params, bias = jax.tree.map(jnp.copy, (policy.params, policy.router_bias))
        return state._replace(params=params, router_bias=bias), shardings, None
    return TrainState(**restore(manager, arrays=state._asdict())), shardings, step


def start_reference(model: ModelConfig, state: TrainState, manager):
    """The reference policy as (params, router_bias): from the run's latest checkpoint, else the state's own weights."""
    if manager.latest_step() is None:
        return freeze(model, state)
    wanted = cast_shapes(model, state.params), state.router_bias
    return tuple(restore(manager, arrays={"reference": wanted})["reference"])


def freeze(model: ModelConfig, state: TrainState):
    """A copy of the policy as (params, router_bias), which later updates of the state do not touch.

    It is kept in the compute dtype, in which the model uses it: half the bytes where that is bfloat16.
    """
    cast = cast_params(model, state.params)
    params = jax.tree.map(lambda new, old: jnp.copy(old) if new.dtype == old.dtype else new, cast, state.params)
    return params, jnp.copy(state.router_bias)
