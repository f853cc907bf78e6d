"""Every finding of the paper as a row, judged by runs in the miniature: claim, paper, here, holds?

Runs that have finished are kept, those that several rows need are made once, and docs/findings.md is written from
whatever has all its seeds. `--dry-run` prints the commands and how long they take; `--only 1 9 10` chooses rows.
"""

import dataclasses
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from r1jax import launch
from r1jax.chain import Stage, chosen, run_stages, seeded_stages, show_plan, shown_command, stage_states
from r1jax.config import UserError
from r1jax.report import verdicts
from r1jax.report.findings import Finding, draw_seeds, findings_page
from r1jax.tasks import BASE_MODEL

EXPERIMENTS = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """The findings."""

    workdir: str = "runs/findings"
    """Every run has a folder NAME/SEED in here."""
    only: tuple[int, ...] = ()
    """Numbers of the findings to run; by default all."""
    page: str = "docs/findings.md"
    """Where the table is written; plots go into a folder beside it."""
    seed: int = 0
    """The first of the seeds."""
    seeds: int = 0
    """How many, three or more; by default as many as each finding asks for."""
    jobs: int = 2
    """Runs at a time, each with its share of the processors: those of the miniature hardly use a second one."""
    dry_run: bool = False
    """Print the commands and the minutes they are expected to take, and run nothing."""
    no_runs: bool = False
    """Judge what is there and write the page, and run nothing."""


FEW = "--evaluation-problems 128 --training-problems 16"
JUDGED = "r1_zero cold_start reasoning_rl sft general_rl distill student_rl".split()
CHAIN = "r1 --problems 650 --only " + " ".join(f"evaluate_{name}" for name in JUDGED)
BASE = shlex.quote(os.path.relpath(BASE_MODEL))
PRETRAIN = f"pretrain --tokenizer {BASE}"
SEARCH = f"{PRETRAIN} --population.blurt 0.55 --population.single"
SMALL = "ablations/base_size --embed-dim"
RL = f"r1_zero --grpo.iterations 20 {FEW} --init"
PPO = f"ablations/ppo --grpo.iterations 24 {FEW} --critic.trace"
ARMS = {
    "chain": (CHAIN, 30.5),
    "no_language": ("reasoning_rl --init {chain}/cold_start --language-weight 0", 5),
    "preferences": (
        "general_rl --init {chain}/sft --helpful {chain}/helpful_rm --safe {chain}/safety_rm --preferences-from 1 "
        "--reasoning-parts --grpo.iterations 60 --evaluation-problems 64 --training-problems 16", 5.6,
    ),
    "r1_zero": ("r1_zero", 7.6), "random": ("ablations/random_reward", 3.5),
    "ppo_1": (f"{PPO} 1", 5.5), "ppo_95": (f"{PPO} 0.95", 4.6),
    "bias": (f"{PRETRAIN} --updates 200 --router-bias-rate 0.005", 4.4),
    "aux": (f"{PRETRAIN} --updates 200 --router-bias-rate 0 --balance-weight 0.01", 4.4),
    "unbalanced": (f"{PRETRAIN} --updates 200 --router-bias-rate 0", 4.4),
    "search_0": (f"{SEARCH} 0.45", 24), "search_5": (f"{SEARCH} 0.40", 24),
    "width_16": (f"{SMALL} 16", 7.5), "width_32": (f"{SMALL} 32", 8),
    "rl_0": (f"{RL} {{first search_0}}", 0.9), "rl_5": (f"{RL} {{first search_5}}", 1.8), "rl_15": (f"{RL} {BASE}", 2.2),
    "rl_16": (f"{RL} {{first width_16}}", 0.8), "rl_32": (f"{RL} {{first width_32}}", 1),
    "long": (f"r1_zero --init {{r1_zero}} --grpo.iterations 40 {FEW}", 5),
}  # fmt: skip
"""Runs by name: an experiment with options, {NAME} being another run of the same seed and {first NAME} one that all seeds
share, and an estimate of its minutes on a free processor."""


FINDINGS = (
    Finding(
        1, "Accuracy and length rise together under outcome reward; accuracy does not under a random one",
        "AIME 2024 15.6% to 77.9%, length 500 to 14,000 tokens (figure 1)", ("r1_zero", "random"),
        "under outcome reward the intervals of the gains of accuracy and of length are above 0, and under a random reward "
        "that of accuracy is not.", verdicts.outcome_against_random,
        "The paper has no random reward: it is the control, for length alone can drift under any.",
    ),
    Finding(
        2, "Reflection rises several-fold", "ten reflection words, 5 to 7 times as many (extended data)", ("r1_zero",),
        "the share of responses that check again after a check is at least 3 times what it was, by its interval.",
        verdicts.reflection,
        "What is counted is the behaviour. The corpus has one word of reflection, which costs a token and adds nothing; "
        "the ratio of words is given beside it and decides nothing.",
    ),
    Finding(
        3, "R1-Zero mixes languages and breaks the format more than R1", "poor readability, language mixing (section 2.3)",
        ("chain",), "language consistency and format of R1 are above those of R1-Zero by their intervals.", verdicts.mixing,
        "R1-Zero mixes languages on every seed. It breaks the format in 2% of responses, as R1 does: the corpus teaches the "
        "format to the base, which keeps it in nearly all at the temperature of evaluation.",
    ),
    Finding(
        4, "The cold start mends format and readability, and may cost accuracy",
        "IF-Eval 46.6 to 71.7, AIME 77.9 to 59.0 (table 3, R1-Zero and Dev1)", ("chain",),
        "language consistency and format of Dev1 are above those of R1-Zero by their intervals; the cost is shown.",
        verdicts.cold_start,
        "Language is mended on every seed. Format is not: at the temperature of evaluation the base has it in nearly all "
        "responses, R1-Zero in 98%, and little is left to mend.",
    ),
    Finding(
        5, "The language reward holds consistency at a small cost",
        "consistency drifts down without it; mathematics equal, code slightly worse (supplement, figure 7)",
        ("chain", "no_language"),
        "consistency with it is above that without by its interval, and the mean cost in accuracy is below 5 points.",
        verdicts.language_reward,
    ),
    Finding(
        6, "The last stage gains on general problems and keeps reasoning",
        "AlpacaEval 62.1 to 87.6, ArenaHard 75.6 to 92.3; AIME 78.1 to 79.8 (table 3, Dev3 and R1)", ("chain",),
        "general accuracy of R1 is above that of Dev3 by its interval, and reasoning is not 5 points below Dev2 by its.",
        verdicts.last_stage,
        "Every seed gains, by 2, 8 and 8 points, which three seeds do not tell from chance at 95%: the least gain is that of "
        "the chain whose Dev3 was best before. Safety reaches 100% on every seed; what is left are requests. With two more "
        "seeds it holds, general +5.5 ± 3.5 points, reasoning +3.7 ± 2.7: `--only 6 --seeds 5 --page FILE`, which takes half "
        "an hour more on two processors and would take the whole beyond three.",
    ),
    Finding(
        7, "Preference reward optimised for long drifts from accuracy",
        "reward rises while Codeforces falls (supplement, figure 6)", ("chain", "preferences"),
        "the helpfulness reward rises from the first to the last ten iterations, and by more than the share of requests "
        "that the rule calls right, both by their intervals.", verdicts.preference_drift,
        "Requests stand in for Codeforces: the rule that defines helpfulness here is measured and never rewarded. General "
        "prompts alone, for 60 iterations: short answers get better, but lists of four or more with one thing left out are "
        "right in 70% of cases at first and in 39 to 56% at the end, for they repeat a word or name what was excluded, which "
        "the reward models, right on 88 to 93% of held-out pairs, overlook. With half of the prompts reasoning and 32 "
        "iterations, as this row was run first, reward and rule rose together (+5.0 ± 3.0 and +5.0 ± 5.9 points).",
    ),
    Finding(
        8, "Distillation beats RL on the same small student",
        "Qwen2.5-32B, AIME: 72.6 distilled, 47.0 by RL (section 4.1)", ("chain",),
        "reasoning of the distilled student is above that of the one trained by RL, by the interval of the difference.",
        verdicts.distillation,
    ),
    Finding(
        9, "A majority vote beats single samples, more so on hard problems", "AIME 77.9 to 86.7 by cons@16 (figure 1)",
        ("r1_zero",),
        "with four numbers the vote of 16 is above one sample, and by more than with three, by their intervals.",
        verdicts.majority,
        "Answers vote as they are written: 3 * 4 and 4 * 3 are two answers, and a target may have several.",
    ),
    Finding(
        10, "Harder problems get longer thinking", "below 7,000 tokens for easy, above 18,000 for the hardest (supplement)",
        ("r1_zero",),
        "four numbers take more tokens than three after training, and the difference is above that before, by intervals.",
        verdicts.harder_is_longer,
        "Problems with four numbers have more to try; the difference before training is what that makes without RL.",
    ),
    Finding(
        11, "GRPO reaches PPO's accuracy without a critic's memory; PPO with a trace of 0.95 lags",
        "MATH: lambda 1.0 near GRPO, 0.95 far below (supplement, figure 4)", ("r1_zero", "ppo_1", "ppo_95"),
        "GRPO is not 5 points below PPO with trace 1, and this is above PPO with 0.95, by the intervals of the differences.",
        verdicts.ppo,
        "A response has some fifty tokens here and thousands in the paper: a reward at its end fades to 0.95^50 = 8%, and "
        "not to nothing.",
    ),
    Finding(
        12, "Balancing without a loss keeps the load even and does not hurt the loss",
        "better loss and lower MaxVio than an auxiliary loss (arXiv 2408.15664, table 2)", ("bias", "aux", "unbalanced"),
        "MaxVio with the bias is below that without balancing by its interval, and the loss is nowhere 0.01 nats above "
        "that of another arm, by its.", verdicts.balancing,
        "Means over the last tenth of 200 updates, with eight experts. Five seeds, because the first three did not tell "
        "whether it costs less than 0.01 nats beside no balancing at all (+0.002 ± 0.010). The bias moves by 0.005 an update: "
        "at V3's 0.001, as this row was run first, it is still on its way after so few (MaxVio 0.55, 0.22, 0.71 and falling; "
        "the loss -0.000 ± 0.007 beside no balancing).",
        seeds=5,
    ),
    Finding(
        13, "The base must be able to carry it", "7B and 16B bases did not improve, 32B and more did (supplement, G.1)",
        ("rl_16", "rl_32", "rl_15"),
        "the widest base gains, and by more than the narrowest, which does not gain 5 points, by their intervals.",
        verdicts.base_capacity,
        "Width of the residual stream, with all other widths in proportion. One base of each, pre-trained for 1,000 updates "
        "on the same corpus (that of width 128 comes with the package), then 20 iterations of RL on three seeds.",
    ),
    Finding(
        14, "RL amplifies rare habits of the base, and does not invent those it lacks",
        "no figure; the base's capabilities bound RL (supplement, G)", ("rl_0", "rl_5", "rl_15"),
        "gain of accuracy and share of responses that try again are higher with 15% of authors who search than with none, "
        "and with none the gain is below 10 points, by their intervals.", verdicts.what_the_base_brings,
        "One base of each share, RL on three seeds. Worksheets show several marked sums after each other, in every base: "
        "what is missing at 0% is doing so in a response. After RL such a base still makes one try: `13 + 9 = 4 no`, and then "
        "answers `13 + 9`; that of 5% writes `3 + 7 = 10 no 7 - 3 = 4 no 15 - 3 = 12 yes`, and answers `15 - 3`. Bases of an "
        "eighth of the corpus gained nothing by RL at any share, 15% included: having seen a habit is not enough, it must pay "
        "when it is used.",
    ),
    Finding(
        15, "Pure RL grows unstable over long training", "readability and repetition (section 2.3; supplement, G.1)",
        ("r1_zero", "long"), "format or accuracy of the rollouts falls from iterations 31 to 60 to 91 to 100, by its "
        "interval.", verdicts.long_training,
        "A hundred iterations are 200 updates of half a million parameters, and still make everything better; the paper's run "
        "has 10,400. The last 40 start from the weights of the first 60 with fresh moments and a fresh reference.",
    ),
)  # fmt: skip

INTRO = """# Findings

What the paper reports, and what the miniature shows: `python experiments/findings.py` makes this page. Every number is a
mean over three seeds, five in row 12, ± half of its 95% interval (Student's t); what is shared between rows is run once,
and what has finished is kept. Criteria stand in `experiments/findings.py` and were written before these runs, though not before those
of the tables in the README, which bear on rows 1 to 4, 6, 8 and 10. The runs of rows 7, 12, 13 and 14 were changed after a
first attempt, which stands with each; their criteria were not. Shares are in percent, their differences in points.
"""


def main(config: Config) -> None:
    if unknown := set(config.only) - {finding.number for finding in FINDINGS}:
        raise UserError(f"--only {min(unknown)}: the findings are 1 to {len(FINDINGS)}")
    if config.seeds and config.seeds < 3:
        raise UserError(f"--seeds must be 3 or more, not {config.seeds}: fewer do not tell a finding from chance")
    findings = [dataclasses.replace(finding, seeds=config.seeds or finding.seeds) for finding in FINDINGS]
    most = max(finding.seeds for finding in findings)
    root, lines = Path(config.workdir), {name: line for name, (line, _) in ARMS.items()}
    stages = seeded_stages(root, lines, range(config.seed, config.seed + most))
    rows = [finding for finding in findings if not config.only or finding.number in config.only]
    wanted = chosen(stages, [name for finding in rows for name in names_of(finding, config.seed)])
    if config.dry_run:
        show_plan(root, wanted, stage_states(root, stages, EXPERIMENTS))
        return launch.console.print(
            f"about {minutes(wanted) / config.jobs:.0f} minutes on {config.jobs} free processors"
        )
    try:
        if not config.no_runs:
            run_stages(root, stages, wanted, EXPERIMENTS, config.jobs)
    finally:  # of whatever has finished
        states = stage_states(root, stages, EXPERIMENTS)
        write_page(Path(config.page), root, findings, stages, states, config.seed)


def minutes(stages: list[Stage]) -> float:
    """What stages are expected to take on one processor."""
    return sum(ARMS[stage.name.partition("/")[0]][1] for stage in stages)


def runs_of(finding: Finding, first: int) -> dict[str, list[str]]:
    """The names of the runs that a finding is judged by, one a seed, by arm."""
    return {arm: [f"{arm}/{seed}" for seed in range(first, first + finding.seeds)] for arm in finding.arms}


def names_of(finding: Finding, first: int) -> list[str]:
    """All of these names."""
    return sum(runs_of(finding, first).values(), [])


def write_page(
    page: Path, root: Path, findings: list[Finding], stages: list[Stage], states: Mapping[str, str], first: int
) -> None:
    """Judge every finding whose runs have all finished, and write the page and the plots of those that do not hold."""
    finished = [f for f in findings if all(states[name] == "done" for name in names_of(f, first))]
    workdirs = lambda f: {arm: [root / name for name in names] for arm, names in runs_of(f, first).items()}
    judged = {f.number: f.judge(workdirs(f)) for f in finished}
    commands = {}
    for finding in findings:
        needed = chosen(stages, [f"{arm}/{first}" for arm in finding.arms])
        lines = [f"# {shown_command(root, stage)}" for stage in needed]
        commands[finding.number] = [f"python experiments/findings.py --only {finding.number}  # of each seed:", *lines]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(findings_page(findings, judged, commands, INTRO), encoding="utf-8")
    for number, verdict in judged.items():
        plot = page.parent / page.stem / f"{number}.svg"
        if verdict.holds:
            plot.unlink(missing_ok=True)
        else:
            draw_seeds(plot, verdict)
    launch.console.print(
        f"{sum(v.holds for v in judged.values())} of {len(judged)} judged hold: {page}", soft_wrap=True
    )


if __name__ == "__main__":
    launch.run(main, Config)
