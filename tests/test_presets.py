"""The presets: all can be built and shown, the paper's fit a pod, and hold the numbers that the paper prints.

Nature 645:633 (Methods) and its supplement; what is not published is not checked.
"""

import dataclasses
import importlib
from functools import partial

import jax
import pytest
import tyro
from conftest import ROOT
from jax.sharding import AbstractMesh

from experiments import (
    cold_start,
    distill,
    evaluate,
    general_rl,
    preference_data,
    r1_zero,
    reasoning_rl,
    rejection_sampling,
    reward_model,
    sft,
)
from r1jax.launch import _preset
from r1jax.models.presets import deepseek_v3
from r1jax.models.transformer import init_params
from r1jax.sharding import MESH_AXES, check_divides, tree_shardings

POD = AbstractMesh((1, 16, 4, 8, 1), MESH_AXES)  # 512 devices
NAMES = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
STAGES = {name: importlib.import_module(f"experiments.{name}") for name in NAMES}
PRESETS = {
    (name, preset): config
    for name, module in STAGES.items()
    for preset, config in getattr(module, "PRESETS", {}).items()
}
STUDENTS = {
    "qwen2.5-math-1.5b": 1e-4, "qwen2.5-math-7b": 8e-5, "qwen2.5-14b": 7e-5, "qwen2.5-32b": 6e-5, "llama-3.1-8b": 5e-5,
    "llama-3.3-70b-instruct": 2e-5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "preset"), PRESETS, ids=["-".join(names) for names in PRESETS])
def test_every_preset_is_the_default_that_the_command_line_shows(name, preset):
    module, config = STAGES[name], PRESETS[name, preset]
    assert type(config) is module.Config
    chosen, left = _preset(module.PRESETS, ["--preset", preset, "--seed", "7"])
    assert chosen is config and left == ["--seed", "7"]
    assert tyro.cli(module.Config, args=left, default=chosen) == dataclasses.replace(config, seed=7)
    shown = tyro.extras.get_parser(module.Config, default=config).format_help()
    assert "--workdir" in shown and config.workdir.split("/")[-1] in shown


def test_every_stage_of_the_paper_has_its_preset():
    assert {name for name, preset in PRESETS if preset == "paper"} == {
        "r1_zero", "cold_start", "reasoning_rl", "rejection_sampling", "sft", "preference_data", "reward_model",
        "general_rl", "evaluate",
    }  # fmt: skip
    assert {preset for name, preset in PRESETS if name == "distill"} == {"miniature", *STUDENTS}


def test_the_full_model_fits_the_pod():
    shapes = jax.eval_shape(partial(init_params, deepseek_v3()), jax.random.key(0))
    shardings = jax.tree.leaves(tree_shardings(shapes, POD))
    assert sum("fsdp" in str(sharding.spec) for sharding in shardings) > 10


RL = {"r1_zero": r1_zero, "reasoning_rl": reasoning_rl, "general_rl": general_rl}


@pytest.mark.parametrize("name", RL)
def test_reinforcement_learning(name):
    grpo = RL[name].PRESETS["paper"].grpo
    grpo.check(POD)
    assert grpo.optimizer.learning_rate == 3e-6 and grpo.kl_coef == 0.001 and grpo.reference_every == 400
    sampling = grpo.sampling
    assert (sampling.prompts, sampling.group_size, sampling.max_new_tokens) == (512, 16, 32768)
    assert sampling.prompts * sampling.group_size == 8192 and grpo.mini_batches == 16
    assert grpo.rows_at_a_time * grpo.micro_batches == 32 * 16 == 512
    assert grpo.optimizer.schedule == "constant" and sampling.top_p == 1


def test_what_the_stages_of_reinforcement_learning_differ_in():
    zero, reasoning, general = (module.PRESETS["paper"] for module in RL.values())
    assert zero.grpo.iterations * zero.grpo.mini_batches == 10_400
    assert [stage.grpo.sampling.temperature for stage in (zero, reasoning, general)] == [1.0, 1.0, 0.7]
    assert [stage.grpo.clip_epsilon for stage in (reasoning, general)] == [10.0, 10.0]
    assert r1_zero.TERMS.keys() == {"accuracy", "format"} and len({term.weight for term in r1_zero.TERMS.values()}) == 1
    assert reasoning.language_weight == 1.0  # "directly adding" (eq. 7)
    updates = general.grpo.iterations * general.grpo.mini_batches
    assert abs(updates - 1700) < 16
    assert updates - (general.preferences_from - 1) * general.grpo.mini_batches == 400
    assert general.scored_length > general.grpo.sampling.max_new_tokens + general.grpo.sampling.prompt_slots
    assert general_rl.GENERAL.keys() == {"format", "language"} == general_rl.REASONING.keys() - {"accuracy"}


@pytest.mark.parametrize("config", [cold_start.PRESETS["paper"].sft, sft.PRESETS["paper"].sft], ids=["first", "second"])
def test_fine_tuning(config):
    assert config.optimizer.learning_rate == 5e-5 and config.optimizer.schedule == "cosine"
    assert config.optimizer.learning_rate * config.optimizer.final_fraction == pytest.approx(5e-6)
    assert config.epochs in (2, 3) and config.batch_size == 128 and config.sequence_length == 32768
    check_divides(POD, config.batch_size // config.micro_batches, "batch", "a micro-batch")


@pytest.mark.parametrize(("student", "rate"), STUDENTS.items())
def test_distillation(student, rate):
    config = distill.PRESETS[student]
    optimizer = config.sft.optimizer
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.final_fraction) == (rate, "cosine", 0.1)
    assert config.sft.batch_size == 64 and config.sft.epochs in (2, 3) and config.sft.sequence_length == 32768
    assert config.teacher is None  # samples alone
    check_divides(POD, config.sft.batch_size // config.sft.micro_batches, "batch", "a micro-batch")


def test_data():
    cold, rejection = cold_start.PRESETS["paper"].data, rejection_sampling.PRESETS["paper"]
    assert cold.sampling.temperature == 1.0 and 1000 <= cold.problems < 10_000  # "thousands"
    for sampling in (cold.sampling, rejection.data.sampling, preference_data.PRESETS["paper"].sampling):
        assert sampling.max_new_tokens == 32768
        sampling.check(POD)
    assert rejection.general == 200_000 and rejection.data.one_language
    assert rejection.data.problems * rejection.data.per_problem >= 600_000
    preferences = preference_data.PRESETS["paper"]
    safety = sum(part.startswith("safety") for part in preferences.parts) / len(preferences.parts)
    assert preferences.prompts * safety == pytest.approx(106_000, rel=0.05)
    assert preferences.prompts * (1 - safety) * preferences.pairs_per_prompt == pytest.approx(66_000, rel=0.05)


def test_reward_models():
    config = reward_model.PRESETS["paper"]
    reward_model.check(dataclasses.replace(config, pairs=("pairs.jsonl",)))
    assert (config.batch_size, config.epochs, config.sequence_length) == (256, 1, 8192)
    assert config.optimizer.learning_rate == 6e-6
    check_divides(POD, config.batch_size // config.micro_batches, "batch", "a micro-batch")


def test_evaluation():
    sampling = evaluate.PRESETS["paper"].sampling
    sampling.check(POD)
    assert (sampling.temperature, sampling.top_p) == (0.6, 0.95)
    assert (sampling.group_size, sampling.max_new_tokens) == (64, 32768)
    world = evaluate.PRESETS["world"].sampling  # of the stage table
    assert (world.temperature, world.top_p) == (0.6, 0.95)
