"""What the runs of each finding show: pure functions of what they have written, each of which can say no."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from r1jax.report.findings import (
    Runs,
    Verdict,
    ends,
    gains,
    high,
    last_iteration,
    less,
    low,
    number,
    over_iterations,
    points,
    read_summary,
)  # fmt: skip
from r1jax.report.run import read_evaluation

REASONING, GENERAL = ("countdown", "chains", "functions"), ("requests", "safety")
BALANCED = {"bias": "bias", "aux": "auxiliary loss", "unbalanced": "neither"}


def outcome_against_random(runs: Runs) -> Verdict:
    """Finding 1: under outcome reward accuracy and length rise, under a random one accuracy does not."""
    accuracy, length = gains(runs["r1_zero"], "accuracy"), gains(runs["r1_zero"], "mean_response_tokens")
    chance, drift = gains(runs["random"], "accuracy"), gains(runs["random"], "mean_response_tokens")
    values = {"accuracy, gain": accuracy, "tokens, gain": length}
    values |= {"random reward, accuracy, gain": chance, "random reward, tokens, gain": drift}
    statement = (
        f"accuracy {points(accuracy, '+')} points, length {number(length, 1, '+')} tokens; under a random reward "
        f"{points(chance, '+')} and {number(drift, 1, '+')}"
    )
    return Verdict(values, statement, low(accuracy) > 0 and low(length) > 0 and not low(chance) > 0)


def reflection(runs: Runs) -> Verdict:
    """Finding 2: responses check and try again several times as often."""
    ratio = lambda name: [
        a / max(b, 1e-9) for a, b in zip(ends(runs["r1_zero"], name), ends(runs["r1_zero"], name, "before"))
    ]
    tries, words = ratio("retry_share"), ratio("reflection_words")
    statement = f"responses that try again after a check x {number(tries)}, reflection words x {number(words)}"
    return Verdict({"try again, ratio": tries, "reflection words, ratio": words}, statement, low(tries) > 3)


def stage(runs: Runs, name: str) -> list[dict]:
    """The evaluation of a checkpoint of every chain."""
    return [read_evaluation(workdir / f"evaluate_{name}") for workdir in runs["chain"]]


def of(results: Sequence[dict], name: str) -> list[float]:
    """One number of every result."""
    return [result[name] for result in results]


def mean_of(results: Sequence[dict], families: Sequence[str]) -> list[float]:
    """The mean accuracy over families of every result."""
    return [float(np.mean([result["breakdown"][f]["accuracy"] for f in families])) for result in results]


def readability(runs: Runs, name: str, title: str) -> tuple[dict, str, bool]:
    """Language and format of a stage, less R1-Zero's."""
    zero, later = stage(runs, "r1_zero"), stage(runs, name)
    language = less(of(later, "language_score"), of(zero, "language_score"))
    form = less(of(later, "format_share"), of(zero, "format_share"))
    values = {f"language, {title} less R1-Zero": language, f"format, {title} less R1-Zero": form}
    statement = f"{title} less R1-Zero: language {points(language, '+')} points, format {points(form, '+')}"
    return values, statement, low(language) > 0 and low(form) > 0


def mixing(runs: Runs) -> Verdict:
    """Finding 3: R1 keeps one language and the format better than R1-Zero."""
    return Verdict(*readability(runs, "general_rl", "R1"))


def cold_start(runs: Runs) -> Verdict:
    """Finding 4: the cold start mends both; what it costs in reasoning stands beside it."""
    values, statement, holds = readability(runs, "cold_start", "Dev1")
    cost = less(mean_of(stage(runs, "cold_start"), REASONING), mean_of(stage(runs, "r1_zero"), REASONING))
    return Verdict(
        values | {"reasoning, Dev1 less R1-Zero": cost}, f"{statement}, reasoning {points(cost, '+')}", holds
    )


def language_reward(runs: Runs) -> Verdict:
    """Finding 5: the reward for one language holds it, at a small cost of accuracy."""
    with_it = [workdir / "reasoning_rl" for workdir in runs["chain"]]
    language = less(ends(with_it, "language_score"), ends(runs["no_language"], "language_score"))
    accuracy = less(ends(with_it, "accuracy"), ends(runs["no_language"], "accuracy"))
    statement = f"with less without: language {points(language, '+')} points, accuracy {points(accuracy, '+')}"
    values = {"language, with less without": language, "accuracy, with less without": accuracy}
    return Verdict(values, statement, low(language) > 0 and float(np.mean(accuracy)) > -0.05)


def last_stage(runs: Runs) -> Verdict:
    """Finding 6: the last stage gains on general problems and keeps reasoning."""
    general = less(mean_of(stage(runs, "general_rl"), GENERAL), mean_of(stage(runs, "sft"), GENERAL))
    reasoning = less(mean_of(stage(runs, "general_rl"), REASONING), mean_of(stage(runs, "reasoning_rl"), REASONING))
    statement = f"general {points(general, '+')} points over Dev3, reasoning {points(reasoning, '+')} over Dev2"
    values = {"general, R1 less Dev3": general, "reasoning, R1 less Dev2": reasoning}
    return Verdict(values, statement, low(general) > 0 and low(reasoning) > -0.05)


def preference_drift(runs: Runs) -> Verdict:
    """Finding 7: the reward model's score rises more than what it stands for."""
    def change(workdir: Path, name: str) -> float:
        last = last_iteration(workdir)
        return over_iterations(workdir, name, last - 9, last) - over_iterations(workdir, name, 1, 10)

    helpful = [change(workdir, "helpful") for workdir in runs["preferences"]]
    accuracy = [change(workdir, "accuracy_requests") for workdir in runs["preferences"]]
    statement = (
        f"helpfulness reward {points(helpful, '+')} points, requests that are answered rightly {points(accuracy, '+')}"
    )
    gap = less(helpful, accuracy)
    return Verdict({"reward, change": helpful, "rule, change": accuracy}, statement, low(helpful) > 0 and low(gap) > 0)


def distillation(runs: Runs) -> Verdict:
    """Finding 8: the distilled student reasons better than the one trained by RL."""
    distilled, trained = (mean_of(stage(runs, name), REASONING) for name in ("distill", "student_rl"))
    statement = f"reasoning: distilled {points(distilled)}, RL {points(trained)}"
    return Verdict({"distilled": distilled, "RL": trained}, statement, low(less(distilled, trained)) > 0)


def level(workdir: Path, name: str) -> dict:
    """The evaluation of one level of a run on a single family."""
    (family,) = read_summary(workdir)["breakdown"].values()
    return family["levels"][name]


def majority(runs: Runs) -> Verdict:
    """Finding 9: a vote of sixteen gains over one sample, on hard problems more."""
    won = lambda name: [level(w, name)["majority_at_16"] - level(w, name)["accuracy"] for w in runs["r1_zero"]]
    easy, hard = won("1"), won("2")
    statement = (
        f"vote of 16 less one sample: {points(easy, '+')} points with three numbers, {points(hard, '+')} with four"
    )
    return Verdict({"level 1": easy, "level 2": hard}, statement, low(hard) > 0 and low(less(hard, easy)) > 0)


def harder_is_longer(runs: Runs) -> Verdict:
    """Finding 10: harder problems take more tokens, more so after training."""
    longer = lambda part: less(*(ends(runs["r1_zero"], f"mean_response_tokens_level_{n}", part) for n in (2, 1)))
    after, before = longer("after"), longer("before")
    statement = f"four numbers take {number(after, 1, '+')} tokens over three, {number(before, 1, '+')} before training"
    holds = low(after) > 0 and low(less(after, before)) > 0
    return Verdict({"tokens, after": after, "tokens, before": before}, statement, holds)


def ppo(runs: Runs) -> Verdict:
    """Finding 11: GRPO reaches PPO with a trace of 1, which is ahead of PPO with one of 0.95."""
    at_24 = lambda name: [over_iterations(workdir, "accuracy", 20, 24) for workdir in runs[name]]
    grpo, ppo_1, ppo_95 = at_24("r1_zero"), at_24("ppo_1"), at_24("ppo_95")
    megabytes = [over_iterations(workdir, "critic_bytes", 20, 24) / 1e6 for workdir in runs["ppo_1"]]
    statement = (
        f"accuracy in iterations 20 to 24: GRPO {points(grpo)}, PPO {points(ppo_1)} with trace 1 and {points(ppo_95)} "
        f"with 0.95; the critic holds {np.mean(megabytes):.1f} MB more"
    )
    holds = low(less(grpo, ppo_1)) > -0.05 and low(less(ppo_1, ppo_95)) > 0
    return Verdict({"GRPO": grpo, "PPO, trace 1": ppo_1, "PPO, trace 0.95": ppo_95}, statement, holds)


def balancing(runs: Runs) -> Verdict:
    """Finding 12: the bias keeps the load even and does not cost loss."""
    violation = {name: ends(runs[name], "max_violation") for name in ("bias", "aux", "unbalanced")}
    loss = {name: ends(runs[name], "loss") for name in violation}
    cost = {name: less(loss["bias"], loss[name]) for name in ("aux", "unbalanced")}
    shown = ", ".join(f"{title} {number(violation[name], 2)}" for name, title in BALANCED.items())
    statement = f"MaxVio: {shown}; loss of the bias less that of the others {number(cost['aux'], 3, '+')}, {number(cost['unbalanced'], 3, '+')}"
    values = {f"MaxVio, {title}": violation[name] for name, title in BALANCED.items()}
    values |= {f"loss, bias less {BALANCED[name]}": some for name, some in cost.items()}
    lower = low(less(violation["unbalanced"], violation["bias"])) > 0
    return Verdict(values, statement, lower and all(high(some) < 0.01 for some in cost.values()))


def base_capacity(runs: Runs) -> Verdict:
    """Finding 13: RL helps a wide base and not a narrow one."""
    found = {
        title: gains(runs[name], "accuracy")
        for name, title in (("rl_16", "width 16"), ("rl_32", "width 32"), ("rl_15", "width 128"))
    }
    statement = "gain of accuracy by RL: " + ", ".join(
        f"{title} {points(gain, '+')} points" for title, gain in found.items()
    )
    more = less(found["width 128"], found["width 16"])
    return Verdict(found, statement, low(found["width 128"]) > 0 and low(more) > 0 and high(found["width 16"]) < 0.05)


def what_the_base_brings(runs: Runs) -> Verdict:
    """Finding 14: RL amplifies searching where the corpus has some, and not where it has none."""
    shares = {"rl_0": "0%", "rl_5": "5%", "rl_15": "15%"}
    accuracy = {share: gains(runs[name], "accuracy") for name, share in shares.items()}
    tries = {share: ends(runs[name], "retry_share") for name, share in shares.items()}
    statement = "authors who search: " + "; ".join(
        f"{share}: accuracy {points(accuracy[share], '+')} points, tries again {points(tries[share])}"
        for share in tries
    )
    values = {f"accuracy, gain, {s}": v for s, v in accuracy.items()} | {
        f"tries again, {s}": v for s, v in tries.items()
    }
    holds = low(less(accuracy["15%"], accuracy["0%"])) > 0 and low(less(tries["15%"], tries["0%"])) > 0
    return Verdict(values, statement, holds and high(accuracy["0%"]) < 0.1)


def long_training(runs: Runs) -> Verdict:
    """Finding 15: in long training format or accuracy fall."""
    def change(name: str) -> list[float]:
        return [
            over_iterations(later, name, last_iteration(later) - 9, last_iteration(later))
            - over_iterations(first, name, 31, 60)
            for first, later in zip(runs["r1_zero"], runs["long"], strict=True)
        ]

    form, length, entropy, accuracy = map(change, ("format_share", "mean_response_tokens", "entropy", "accuracy"))
    statement = (
        f"iterations 91 to 100 less 31 to 60: format {points(form, '+')} points, length {number(length, 1, '+')} tokens, "
        f"entropy {number(entropy, 3, '+')} nats, accuracy {points(accuracy, '+')}"
    )
    values = {
        "format, change": form,
        "tokens, change": length,
        "entropy, change": entropy,
        "accuracy, change": accuracy,
    }
    return Verdict(values, statement, high(form) < 0 or high(accuracy) < 0)
