"""Comparisons of arms, and what ablations put in the place of GRPO's advantages: steps, a critic."""

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from conftest import ROOT
from tiny_policy import CONFIG, ask, kept, start, tiny_policy

from experiments import findings
from experiments.ablations import base_size, compare, process_reward
from r1jax import checkpoint, launch
from r1jax.chain import seeded_stages
from r1jax.config import UserError
from r1jax.critic import Critic, CriticConfig, ppo_batch_loss, row_values
from r1jax.data.tokenizer import load_tokenizer
from r1jax.models.presets import miniature
from r1jax.models.reward_model import token_values
from r1jax.models.transformer import init_params
from r1jax.objectives import group_advantages
from r1jax.optimizer import OptimizerConfig
from r1jax.report import comparison_table, read_figures, write_comparison
from r1jax.rewards.combine import GroupRewards
from r1jax.rewards.verdict import judge_inline
from r1jax.rl import GrpoRows, Rows
from r1jax.rl_loop import Asked, Scored
from r1jax.sharding import MeshConfig, make_mesh
from r1jax.tasks import BASE_MODEL
from r1jax.tasks.behaviour import check_ends, read_checks
from r1jax.tasks.countdown import countdown_reward


def finished(folder, accuracy: float, **more):
    """A workdir as a finished run leaves it."""
    folder.mkdir(parents=True)
    after = {"accuracy": accuracy, "mean_response_tokens": 10.0, "breakdown": {}} | more
    (folder / "summary.json").write_text(json.dumps({"before": {"accuracy": 0.0}, "after": after, "seconds": {}}))
    rows = [{"step": step, "accuracy": accuracy * step / 4, "entropy": 1.0} for step in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def arms(tmp_path):
    base = [finished(tmp_path / "base" / str(seed), value) for seed, value in enumerate((0.5, 0.6, 0.7))]
    other = [finished(tmp_path / "other" / str(seed), value) for seed, value in enumerate((0.6, 0.7, 0.8))]
    return {"base": base, "<other>": other}


def test_the_table_has_means_and_students_intervals_and_pairs_the_seeds(arms):
    half = 4.302653 * 10 / 3**0.5  # t with two degrees of freedom, 97.5%; standard deviation 10
    lines = comparison_table(arms).splitlines()
    assert lines[0] == "| | base | <other> |"
    assert f"| accuracy | 60.0 ± {half:.1f} | 70.0 ± {half:.1f} |" in lines
    assert "| accuracy, less base's |  | +10.0 ± 0.0 |" in lines, "every seed gained ten points"
    assert "| mean response, tokens | 10.0 ± 0.0 | 10.0 ± 0.0 |" in lines


def test_a_metric_that_one_seed_lacks_is_a_dash_and_one_seed_has_no_interval(arms, tmp_path):
    extra = finished(tmp_path / "x", 0.5, retry_share=0.25)
    assert "| retry | – | – | 25.0 |" in comparison_table(arms | {"x": [extra]})
    with pytest.raises(ValueError, match="has not finished"):
        read_figures(tmp_path)


def test_the_report_overlays_the_arms(arms, tmp_path):
    page = write_comparison(tmp_path, "a & b", arms).read_text()
    assert "a &amp; b" in page and "<th>&lt;other&gt;</th>" in page and "<other>" not in page
    titles = re.findall(r"<figure><h3>(.*?)</h3>", page)
    assert titles == ["accuracy", "entropy, nats a token"]
    assert page.count("&lt;other&gt;</text>") == 2, "each figure names the arms"


def test_a_variant_is_options_of_the_baseline_or_an_experiment():
    config = compare.Config(baseline="r1_zero --levels 1", variants=("a=--grpo.kl-coef 0", "b=ablations/x --y 2"))
    arms, compared = compare.read_arms(config)
    assert arms == {
        "baseline": "r1_zero --levels 1", "a": "r1_zero --levels 1 --grpo.kl-coef 0", "b": "ablations/x --y 2"
    }  # fmt: skip
    assert compared == ["baseline", "a", "b"]
    for wrong in ("--grpo.kl-coef 0", "a=", "a/b=--x 1"):
        with pytest.raises(UserError, match="NAME="):
            compare.read_arms(compare.Config(variants=(wrong,)))
    with pytest.raises(UserError, match="two runs called a"):
        compare.read_arms(compare.Config(variants=("a=--x 1", "a=--x 2")))


def test_runs_read_each_others_workdirs_seed_by_seed():
    stages = seeded_stages("root", {"a": "pretrain --x 'two words'", "b": "r1_zero --init {a} --data {a}/y"}, (3, 4))
    assert [stage.name for stage in stages] == ["a/3", "a/4", "b/3", "b/4"]
    assert stages[0].options == ("--x", "two words", "--seed", "3") and stages[0].needs == ()
    assert stages[3].options == ("--init", "root/a/4", "--data", "root/a/4/y", "--seed", "4")
    assert stages[3].needs == ("a/4",)
    shared = seeded_stages("root", {"a": "pretrain", "b": "r1_zero --init {first a}"}, (3, 4))[3]
    assert shared.options == ("--init", "root/a/3", "--seed", "4") and shared.needs == ("a/3",)
    with pytest.raises(UserError, match="no arm before it is called b"):
        seeded_stages("root", {"a": "r1_zero --init {b}", "b": "pretrain"}, (0,))


def plans():
    """Every run of every preset, quick or not, and of the findings."""
    for name, preset in compare.PRESETS.items():
        for quick in (False, True):
            arms, _ = compare.read_arms(dataclasses.replace(preset, quick=quick))
            yield f"{name}{'-quick' * quick}", arms
    yield "findings", {name: line for name, (line, _) in findings.ARMS.items()}


@pytest.mark.parametrize("arms", [pytest.param(arms, id=name) for name, arms in plans()])
def test_every_option_of_every_plan_is_one_of_its_experiment(arms):
    for stage in seeded_stages("root", arms, (1,)):
        module = importlib.import_module(f"experiments.{stage.experiment.replace('/', '.')}")
        default, options = module.Config(), ["--workdir", "w", *stage.options]
        if hasattr(module, "PRESETS"):
            default, options = launch._preset(module.PRESETS, options)
        config = tyro.cli(module.Config, args=options, default=default)
        assert config.seed == 1 and config.workdir == "w"
        if hasattr(config, "grpo"):
            config.grpo.check(make_mesh(MeshConfig()))


TEXT = "<think> 3 + 9 = 12 no 3 * 9 = 28 no wait 9 - 3 = 6 yes </think> <answer> 9 - 3 </answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(BASE_MODEL)


def scored(tokenizer, texts, rewards) -> Scored:
    """One group of completions of the problem 3, 9, 5 -> 6, without log-probabilities."""
    ids = [[*tokenizer.encode_prompt(text), tokenizer.eos_id] for text in texts]
    width = max(map(len, ids))
    tokens = np.array([[*row, *[0] * (width - len(row))] for row in ids], np.int32)
    mask = np.arange(width) < np.array([len(row) for row in ids])[:, None]
    groups = [[SimpleNamespace(text=tokenizer.decode(row)) for row in ids]]
    rewarded = GroupRewards(np.array([rewards], np.float32), np.ones((1, len(ids)), bool), {})
    rows = Rows(np.zeros((len(ids), 2), np.int32), np.full(len(ids), 2), tokens, mask)
    return Scored(Asked([{"target": 6, "numbers": [3, 9, 5]}], [""]), groups, rewarded, rows, None, None)


def test_a_step_ends_in_the_token_that_completes_it(tokenizer):
    ids = np.array(tokenizer.encode_prompt(TEXT))
    text = tokenizer.decode(ids.tolist())
    checks = read_checks(text, 6)
    ends = check_ends(tokenizer.decode, ids, text, checks)
    assert len(ends) == 3 and ends == sorted(ends)
    for check, end in zip(checks, ends):
        assert check.text in tokenizer.decode(ids[: end + 1].tolist())
        assert check.text not in tokenizer.decode(ids[:end].tolist())


def test_process_advantages_follow_from_the_steps_by_a_loop(tokenizer):
    rollout = scored(tokenizer, [TEXT, "<think> 5 </think> <answer> 3 + 5 </answer>"], [2.0, 1.0])
    advantages, _ = process_reward.by_steps(tokenizer, rollout, np.random.default_rng(0))
    steps = [[1.0, 0.0, 1.0, 2.0], [1.0]]  # a right check, a wrong value, a right one, the outcome; the outcome alone
    flat = np.array(sum(steps, []))
    length, first = rollout.rows.mask.shape[1], rollout.rows.tokens[0]
    ids, text = first[rollout.rows.mask[0]], rollout.groups[0][0].text
    ends = [*check_ends(tokenizer.decode, ids, text, read_checks(text, 6)), len(ids) - 1]
    for row, row_ends in enumerate((ends, [rollout.rows.mask[1].sum() - 1])):
        for token in range(length):
            left = [(r - flat.mean()) / flat.std() for r, end in zip(steps[row], row_ends) if end >= token]
            np.testing.assert_allclose(advantages[0, row, token], sum(left), atol=1e-4)


SUBMIT = partial(judge_inline, {"accuracy": countdown_reward, "format": kept})


def coin(step, asked, groups, rng) -> GroupRewards:
    return GroupRewards(rng.integers(0, 2, (2, 4)).astype(np.float32), np.ones((2, 4), bool), {})


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig())


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["none", "rows"])
def test_advantages_of_tokens_that_are_all_alike_are_those_of_completions(mesh, packing):
    def by_token(scored, rng):
        advantages = np.asarray(group_advantages(scored.rewards.rewards, scored.rewards.known))
        return np.repeat(advantages[..., None], scored.rows.mask.shape[1], -1), {"mine": 1.0}

    config, results = dataclasses.replace(CONFIG, packing=packing), []
    for options in ({}, {"advantages_of": by_token}):
        with jax.set_mesh(mesh):
            state, iteration = start(tiny_policy(), mesh, config, submit=SUBMIT, reward=coin, **options)
            reference = jax.tree.map(jnp.copy, (state.params, state.router_bias))
            results.append(iteration(state, reference, 1, ask(1)))
    (plain, metrics, _), (other, others, _) = results
    assert others["mine"] == 1.0 and metrics["zero_variance_groups"] == others["zero_variance_groups"]
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(other.params)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def critic_of(mesh):
    policy = tiny_policy()
    params, bias = jax.tree.map(lambda x: getattr(x, "value", x), init_params(policy.model, jax.random.key(1)),
                                is_leaf=lambda x: hasattr(x, "value"))  # fmt: skip
    policy = policy._replace(params=params, router_bias=bias)

    config = CriticConfig(optimizer=OptimizerConfig(learning_rate=0.02, weight_decay=0.0))
    critic = Critic(policy, mesh, config, CONFIG)
    fresh = jax.tree.map(np.asarray, critic.state)

    def make(trace: float = 1.0) -> Critic:
        """As it begins; one object, so that its programs are compiled once."""
        critic.state = jax.tree.map(jnp.array, fresh)
        critic._config = dataclasses.replace(config, trace=trace)
        return critic

    return policy, make


def rollout(kl: float = 0.0) -> Scored:
    """Two groups of four completions of 1 to 8 tokens, the first rewarded for being even in length."""
    rng = np.random.default_rng(0)
    mask = np.arange(8) < np.arange(1, 9)[:, None]
    rows = Rows(
        rng.integers(5, 40, (8, 3)).astype(np.int32),
        np.full(8, 3),
        rng.integers(5, 40, (8, 8)).astype(np.int32) * mask,
        mask,
    )
    rewards = (np.arange(8) % 2).astype(np.float32).reshape(2, 4)
    rewarded = GroupRewards(rewards, np.ones((2, 4), bool), {})
    old = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)
    return Scored(Asked([], []), [], rewarded, rows, old, old - kl)


@pytest.mark.slow
def test_values_of_padded_rows_are_those_of_each_row_alone(critic_of):
    policy, make = critic_of
    params = make().state.params | {"score": jnp.arange(16.0)}
    rows = rollout().rows
    values, _ = row_values(policy.model, params, policy.router_bias, rows)
    for row in range(8):
        length = int(rows.mask[row].sum())
        tokens = np.concatenate([rows.prompts[row], rows.tokens[row, : length - 1]])[None]
        alone, _ = token_values(policy.model, params, policy.router_bias, tokens, np.arange(len(tokens[0]))[None])
        np.testing.assert_allclose(values[row, :length], alone[0, 2:], atol=1e-4)


def test_an_untrained_critic_gives_what_is_still_to_come_brought_to_one_scale(critic_of, mesh):
    critic = critic_of[1]()
    with jax.set_mesh(mesh):
        advantages, metrics = critic(rollout(kl=3.0), np.random.default_rng(0))
    to_come = np.zeros((8, 8))  # by hand: the reward at the end, less 0.001 x 3 nats at every token that is left
    for row in range(8):
        for token in range(row + 1):
            to_come[row, token] = row % 2 - 0.003 * (row + 1 - token)
    mask = rollout().rows.mask
    expected = np.where(mask, (to_come - to_come[mask].mean()) / to_come[mask].std(), 0)
    np.testing.assert_allclose(advantages.reshape(8, 8), expected, atol=1e-3)
    assert abs(metrics["explained_variance"]) < 2 and metrics["critic_bytes"] > 3 * 4 * 1000


def test_the_critic_learns_the_returns_and_resumes_from_a_checkpoint(critic_of, mesh, tmp_path):
    policy, make = critic_of
    critic, rng = make(), np.random.default_rng(0)
    with jax.set_mesh(mesh):
        explained = [critic(rollout(), rng)[1]["explained_variance"] for _ in range(30)]
        assert explained[0] < 0.1 and explained[-1] > 0.8
        manager = checkpoint.open_checkpoints(tmp_path)
        facts = {"model": {}, "run": {}}
        checkpoint.save(manager, 1, arrays=critic.arrays(), facts=facts, wait=True)
        learnt = jax.tree.map(np.asarray, critic.state)
        other = make()
        other.resume(manager)
    for a, b in zip(jax.tree.leaves(learnt), jax.tree.leaves(other.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_trace_below_one_forgets_the_end(critic_of, mesh):
    with jax.set_mesh(mesh):
        whole, fading = (critic_of[1](trace)(rollout(), np.random.default_rng(0))[0] for trace in (1.0, 0.5))
    row = whole.reshape(8, 8)[7], fading.reshape(8, 8)[7]
    assert np.ptp(row[0]) < 1e-5 and row[1][7] > row[1][6] > row[1][0]


def test_the_policy_of_ppo_minimises_the_clipped_surrogate_over_tokens_by_a_loop():
    rng = np.random.default_rng(1)
    new, old, ref, advantages = rng.normal(-2, 0.5, (4, 3, 5)).astype(np.float32)
    mask = np.arange(5) < np.array([[5], [2], [0]])
    batch = GrpoRows(Rows(None, None, None, mask), old, ref, advantages)
    logprobs_of = lambda *_, temperature: (new, np.full((3, 5), 0.5, np.float32), SimpleNamespace(load=jnp.zeros(1)))
    scalars = {"temperature": 1.0, "clip_epsilon": 0.2}
    output = ppo_batch_loss(None, None, None, batch, scalars, logprobs_of=logprobs_of)
    total, kl = 0.0, 0.0
    for place in zip(*np.nonzero(mask)):
        ratio, gain, apart = np.exp(new[place] - old[place]), advantages[place], ref[place] - new[place]
        total -= min(ratio * gain, np.clip(ratio, 0.8, 1.2) * gain)
        kl += np.exp(apart) - apart - 1
    assert output.count == 7 and output.metric_sums["entropy"] == pytest.approx(3.5)
    assert output.loss_sum == pytest.approx(total, rel=1e-5) and output.metric_sums["kl"] == pytest.approx(kl, rel=1e-4)


def test_ppo_needs_the_log_probabilities_of_the_sampled_tokens(critic_of):
    with pytest.raises(UserError, match="watch-mismatch"):
        critic_of[1]()(rollout()._replace(old_logprobs=None), np.random.default_rng(0))


def test_smaller_bases_are_the_miniature_with_all_widths_scaled():
    full = miniature(300)
    assert base_size.scaled(full, full.embed_dim) == full
    count = lambda model: sum(
        x.size for x in jax.tree.leaves(jax.eval_shape(partial(init_params, model), jax.random.key(0)))
    )
    sizes = [count(base_size.scaled(full, width)) for width in (16, 32, 64, 128)]
    assert all(3 * small < 2 * large for small, large in zip(sizes, sizes[1:]))


def walk() -> str:
    """The commands of the walk in docs/ablations.md."""
    return re.findall(r"```bash\n(.*?)```", (ROOT / "docs/ablations.md").read_text(), re.DOTALL)[0]


def walked(folder):
    """A tree in which the walk's first two commands have been run."""
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    copy, change, _ = walk().strip().splitlines()
    subprocess.run(f"{copy}\n{change}", shell=True, check=True, cwd=folder)
    return folder / "experiments/ablations/mine.py"


def test_the_walk_changes_one_line_and_that_line_pays_for_length(tmp_path):
    mine = walked(tmp_path).read_text().splitlines()
    original = (ROOT / "experiments/ablations/random_reward.py").read_text().splitlines()
    assert sum(a != b for a, b in zip(mine, original, strict=True)) == 1
    groups = [[SimpleNamespace(tokens=3), SimpleNamespace(tokens=5)]]
    source = "def random_reward" + "\n".join(mine).partition("def random_reward")[2].partition("\n\n\ndef main")[0]
    space = {"np": np, "GroupRewards": GroupRewards}
    exec("from __future__ import annotations\n" + source, space)
    assert space["random_reward"](1, None, groups, np.random.default_rng(0)).rewards.tolist() == [[3.0, 5.0]]


@pytest.mark.slow
def test_the_walk_of_the_page_runs(tmp_path, environment):
    walked(tmp_path)
    command = walk().strip().splitlines()[2]
    environment = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "runs/walk/table.md").read_text()
    assert table.startswith("| | baseline | length |") and "accuracy, less baseline's" in table
    page = (tmp_path / "runs/walk/report.html").read_text()
    assert "length</text>" in page and "baseline</text>" in page


@pytest.mark.slow
def test_ppo_resumes_with_the_same_bits(tmp_path, experiment):
    small = "--grpo.sampling.prompts 4 --grpo.sampling.group-size 4 --grpo.sampling.max-new-tokens 16 --grpo.micro-batches 2 "
    small += "--grpo.sampling.halvings 1 --grpo.reference-every 4 --evaluation-problems 4 --training-problems 4 --save-every 1"
    for name in ("whole", "stopped"):
        process = experiment("ablations/ppo", "--workdir", tmp_path / name, "--grpo.iterations", 3, *small.split())
        if name == "stopped":
            while not (tmp_path / name / "checkpoints" / "1").exists():
                assert process.poll() is None
            process.kill()
            process.communicate()
            process = experiment("ablations/ppo", "--workdir", tmp_path / name, "--grpo.iterations", 3, *small.split())
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, output + errors
    strip = lambda line: {key: value for key, value in json.loads(line).items() if key != "seconds"}
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "stopped")]
    assert list(map(strip, lines[0])) == list(map(strip, lines[1])) and "value_loss" in strip(lines[0][0])
