"""Context extension: pre-train on a short context, extend it by YaRN in two phases, retrieve a key from anywhere in it.

DeepSeek-V3 (arXiv 2412.19437, section 4.3): YaRN on the decoupled rotary key alone, with s = 40, alpha = 1, beta = 32
in both phases; the first makes the context 8 times as long (4K to 32K), the second 4 times more (128K). Tokens a batch
and the learning rate are those that pre-training ended with. The passkey is looked for as greedy decoding finds it.
"""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from r1jax import launch
from r1jax.checkpoint import Parent
from r1jax.config import UserError, claim_workdir, to_dict
from r1jax.data.documents import Document
from r1jax.data.tokenizer import Tokenizer, train_tokenizer
from r1jax.evaluation import encode_prompts, respond
from r1jax.generation.sampler import SamplingConfig, make_sampler
from r1jax.metrics import read_json, write_json
from r1jax.models.config import ModelConfig, Yarn
from r1jax.models.presets import passkey_model
from r1jax.models.transformer import forward, init_params, target_logprobs
from r1jax.objectives import next_token_sums
from r1jax.optimizer import OptimizerConfig, make_optimizer
from r1jax.policy import Policy, load_policy
from r1jax.provenance import provenance
from r1jax.report.passkey import Grid, write_passkey_report
from r1jax.sft_stage import Lesson, SftConfig, fine_tune
from r1jax.sharding import MeshConfig, check_divides, make_mesh
from r1jax.tasks.passkey import SYMBOLS, Passkey, draw_passkey
from r1jax.train import LossOutput, init_train_state

YARN_FACTOR = 40.0  # of DeepSeek-V3, whose 128K are 32 times 4K
PHASES = ("short", "phase_1", "phase_2")
TRAINING, HELD_OUT = 0, 1  # streams of problems


@dataclasses.dataclass(frozen=True)
class Config:
    """Context extension of a model that retrieves a passkey."""

    workdir: str = "runs/context_extension"
    """A folder for each phase, evaluations, heat_map.svg, summary.json, report.html; a stopped run resumes here."""
    seed: int = 0
    """Initial weights and all problems follow from it."""
    lengths: tuple[int, int, int] = (32, 256, 1024)
    """Context of pre-training and of the two phases, in tokens; by default as 4K, 32K and 128K."""
    updates: tuple[int, int, int] = (1500, 300, 300)
    """Optimizer updates of pre-training and of the two phases (1000 each in the paper)."""
    batch_tokens: int = 1024
    """Tokens an update, the same in every phase, as in the paper."""
    key_digits: int = 4
    """Digits of the key, all different, 2 to 10."""
    filler_weight: float = 1.0
    """Weight of the loss on the filler beside that on the key, each a mean over its tokens."""
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=5e-3, schedule="cosine", warmup_updates=50, final_fraction=0.06
    )
    """Of pre-training; the phases go on with its last learning rate and fresh moments."""
    save_every: int = 200
    """Updates between checkpoints."""
    depths: int = 5
    """At how many depths of the context the key is looked for."""
    problems: int = 10
    """Held-out problems for each length and depth."""
    mesh: MeshConfig = MeshConfig()


def main(config: Config) -> None:
    short, middle, full = config.lengths
    least, whole = 2 * config.key_digits + 3, not any(config.batch_tokens % length for length in config.lengths)
    if not (2 <= config.key_digits <= 10 and least <= short < middle < full and whole):
        raise UserError(
            f"--key-digits must be from 2 to 10, not {config.key_digits}; --lengths {short} {middle} {full} must rise "
            f"from at least {least}, and --batch-tokens {config.batch_tokens} be a multiple of each"
        )
    mesh = make_mesh(config.mesh)
    check_divides(mesh, config.depths * config.problems, "batch", "--depths times --problems")
    workdir = claim_workdir(config.workdir, "context_extension", config)
    for number, phase in enumerate(PHASES):
        if not (workdir / phase / "summary.json").exists():
            train(config, start_of(config, number, workdir, mesh), number, workdir / phase, mesh)
    grids = [
        evaluate_once(config, f"{short} tokens, as it is", workdir, "short", False, mesh),
        evaluate_once(config, f"{short} tokens, YaRN, not trained", workdir, "short", True, mesh),
        evaluate_once(config, f"phase 1: YaRN, {middle} tokens", workdir, "phase_1", True, mesh),
        evaluate_once(config, f"phase 2: YaRN, {full} tokens", workdir, "phase_2", True, mesh),
    ]
    titles = (f"{phase.replace('_', ' ')}: {length} tokens" for phase, length in zip(PHASES, config.lengths))
    table = write_passkey_report(workdir, grids, dict(zip(titles, (workdir / phase for phase in PHASES))))
    launch.console.print(f"{table}\n{workdir / 'heat_map.svg'}, {workdir / 'report.html'}", soft_wrap=True)


def start_of(config: Config, phase: int, workdir: Path, mesh) -> Policy:
    """What a phase starts from: new weights, or those of the phase before it, with YaRN."""
    if phase:
        return extended(load_policy(workdir / PHASES[phase - 1], mesh), config.lengths[0], config.lengths[phase])
    tokenizer = train_tokenizer([" ".join(SYMBOLS)], vocab_size=1024, symbols=SYMBOLS)
    model = dataclasses.replace(passkey_model(tokenizer.vocab_size), max_positions=config.lengths[0])
    optimizer = make_optimizer(config.optimizer, 1)
    with jax.set_mesh(mesh):
        state, _ = init_train_state(jax.random.key(config.seed), partial(init_params, model), optimizer, mesh)
    return Policy(model, tokenizer, state.params, state.router_bias, Parent(Path(), None, 0, to_dict(model), {}))


def extended(policy: Policy, original_length: int, length: int) -> Policy:
    """The policy with YaRN as DeepSeek-V3 has it; its weights are as they were."""
    yarn = Yarn(YARN_FACTOR, original_length, beta_fast=32.0, beta_slow=1.0)
    return policy._replace(model=dataclasses.replace(policy.model, yarn=yarn, max_positions=length))


def train(config: Config, policy: Policy, phase: int, workdir: Path, mesh) -> None:
    """One phase, on rows that documents of several lengths fill."""
    length, rate = config.lengths[phase], config.optimizer.learning_rate * config.optimizer.final_fraction
    constant = dataclasses.replace(config.optimizer, learning_rate=rate, schedule="constant", warmup_updates=0)
    settings = SftConfig(
        optimizer=constant if phase else config.optimizer, epochs=1, batch_size=config.batch_tokens // length,
        sequence_length=length, router_bias_rate=0.001, save_every=config.save_every,
    )  # fmt: skip
    claim_workdir(workdir, f"context_extension, {PHASES[phase]}", config)
    run = provenance("context_extension", config, policy.parent.provenance)
    lesson = Lesson(partial(passkey_loss, policy.model), {"filler_weight": config.filler_weight}, {})
    documents = training_documents(config, policy.tokenizer, phase)
    fine_tune(policy, documents, settings, workdir=workdir, mesh=mesh, seed=config.seed, run=run, lesson=lesson)


def training_documents(config: Config, tokenizer: Tokenizer, phase: int) -> Iterator[Document]:
    """Problems of the lengths from pre-training's to the phase's, each as likely, for as many tokens as its updates take.

    What is learned of them is the answer, and by its own weight the rest.
    """
    lengths = doubled(config.lengths[0], config.lengths[phase])
    number, room = 0, config.updates[phase] * config.batch_tokens
    while room > 0:
        rng = np.random.default_rng((config.seed, TRAINING, phase, number))
        length = max(min(int(rng.choice(lengths)), room), config.lengths[0])
        drawn = draw_passkey(rng, "train", length=length + 1, key_digits=config.key_digits)
        learned = np.arange(length + 1) > length - config.key_digits
        yield Document(np.array(tokenizer.encode_prompt(" ".join(drawn.document)), np.int32), learned)
        number, room = number + 1, room - length


def doubled(short: int, full: int) -> list[int]:
    """Lengths from the short to the full one, each twice the one before it."""
    return [short * 2**power for power in range(math.ceil(math.log2(full / short)))] + [full]


def passkey_loss(model: ModelConfig, params, router_bias, batch, scalars) -> LossOutput:
    """Negative log-likelihood of the answer, plus by weight that of the rest of the text; a mean over tokens each."""
    hidden, _, load = forward(model, params, router_bias, batch.tokens, batch.positions, segments=batch.segments)
    logprobs, _ = target_logprobs(model, params, hidden, batch.targets)
    key, count = next_token_sums(logprobs, batch.loss_mask)
    filler, rest = next_token_sums(logprobs, (batch.segments > 0) & (batch.loss_mask == 0))
    filler *= count / rest
    return LossOutput(key + scalars["filler_weight"] * filler, count, {"key_nll": key, "filler_nll": filler}, load)


def evaluate_once(config: Config, title: str, workdir: Path, phase: str, yarn: bool, mesh) -> Grid:
    """How many keys the model of a phase retrieves, with YaRN or as it is; what is done is read."""
    path = workdir / f"passkeys_{phase}{'_yarn' if yarn else ''}.json"
    if not path.exists():
        policy = load_policy(workdir / phase, mesh)
        if yarn:
            policy = extended(policy, config.lengths[0], config.lengths[-1])
        write_json(path, evaluate(config, title, policy, config.lengths[PHASES.index(phase)], mesh)._asdict())
    return Grid(**read_json(path))


def evaluate(config: Config, title: str, policy: Policy, trained: int, mesh) -> Grid:
    """Decode the keys of held-out problems greedily from the latent cache, at every length and depth."""
    short, _, full = config.lengths
    lengths = doubled(short, full)
    depths = np.linspace(0, 1, config.depths).tolist()
    # One program for all lengths: prompts are fed in chunks, of which short ones need fewer.
    settings = SamplingConfig(
        prompts=config.depths * config.problems, group_size=1, prompt_slots=full, max_new_tokens=config.key_digits,
        temperature=0.0, prefill_rows=config.depths * config.problems, prefill_chunk=short,
    )  # fmt: skip
    sampler = make_sampler(policy.model, settings, mesh, eos_ids=policy.tokenizer.eos_ids)
    sample = partial(sampler, (policy.params, policy.router_bias), key=jax.random.key(0))
    correct = []
    with jax.set_mesh(mesh), launch.progress_bar() as progress:
        task = progress.add_task(title, total=len(lengths), figures="")
        for length in lengths:
            problems = list(held_out_problems(config, length, depths))
            prompts = encode_prompts(policy.tokenizer, [" ".join(problem.prompt) for problem in problems], full)
            _, texts = respond(sample, policy.tokenizer, *prompts)
            right = [text == " ".join(problem.key) for (text,), problem in zip(texts, problems, strict=True)]
            correct.append(np.reshape(right, (config.problems, config.depths)).sum(0).tolist())
            progress.update(task, advance=1, figures=f"{length} tokens: {np.mean(right):.0%}")
    return Grid(title, trained, lengths, depths, correct, config.problems)


def held_out_problems(config: Config, length: int, depths: list[float]) -> Iterator[Passkey]:
    """The same for every model: by number, and of each number one a depth."""
    for number in range(config.problems):
        for place, depth in enumerate(depths):
            rng = np.random.default_rng((config.seed, HELD_OUT, length, number, place))
            yield draw_passkey(rng, "held_out", length=length, key_digits=config.key_digits, depth=depth)


if __name__ == "__main__":
    launch.run(main, Config)
