"""Ablations: a baseline and variants that change one thing, over seeds, in one table and one report.

`--preset NAME` is one of the paper's ablations. Your own: copy a file of this folder, change a line, and name it,
`--variants mine=ablations/mine`; or change options, `--variants "no_kl=--grpo.kl-coef 0"` (docs/ablations.md). Runs
that have finished are kept, so that a variant can be added to a comparison.
"""

import dataclasses
from pathlib import Path

from r1jax import launch
from r1jax.chain import run_stages, seeded_stages, show_plan, stage_states
from r1jax.config import UserError
from r1jax.report import comparison_table, write_comparison
from r1jax.tasks import BASE_MODEL, WORLD_MODEL

EXPERIMENTS = Path(__file__).resolve().parents[1]
BASELINE = "baseline"


@dataclasses.dataclass(frozen=True)
class Config:
    """A comparison. A run is an experiment with options, as on a command line; {NAME} in it is the workdir of another
    run of the same seed."""

    workdir: str = "runs/compare"
    """Every run has a folder NAME/SEED in here; so have table.md and report.html."""
    baseline: str = "r1_zero"
    """What the variants are compared with."""
    variants: tuple[str, ...] = ("random=ablations/random_reward",)
    """NAME=EXPERIMENT OPTIONS, or NAME=OPTIONS that are given to the baseline's experiment besides its own."""
    parents: tuple[str, ...] = ()
    """NAME=EXPERIMENT OPTIONS: runs that others start from, and that are not compared."""
    seed: int = 0
    """The first seed; seeds follow each other."""
    seeds: int = 3
    """Runs of each arm. With one there are no intervals."""
    quick: bool = False
    """Two seeds and a few small iterations: two arms take less than five minutes on two cores, and show no more than a
    beginning."""
    dry_run: bool = False
    """Print the runs and what is done of them, and run nothing."""


QUICK_RL = (
    "--grpo.iterations 10 --grpo.sampling.prompts 16 --grpo.micro-batches 2 --evaluation-problems 64 "
    "--training-problems 8"
)
QUICK = {
    "pretrain": "--updates 60", "cold_start": "--data.problems 128", "rejection_sampling": "--data.problems 128",
    "sft": "", "distill": "--sft.epochs 1", "evaluate": "--problems 65",
}  # fmt: skip
"""What an experiment is told besides where it is to be quick; of all others, which are of RL, QUICK_RL."""

COLD_START = ("teacher=r1_zero --preset world", "dev1=cold_start --teacher {teacher}")
SAMPLES = (*COLD_START, "dev2=reasoning_rl --init {dev1}", "samples=rejection_sampling --init {dev2}")
SHORT = "--grpo.sampling.max-new-tokens 40"
LONG = "--grpo.sampling.max-new-tokens 128"
PRETRAIN = f"pretrain --tokenizer {BASE_MODEL} --updates 300"
PRESETS = {
    "random_reward": Config(),
    "kl": Config(variants=("no_kl=--grpo.kl-coef 0", "kl_0.1=--grpo.kl-coef 0.1")),
    "clip": Config(
        variants=("clip_0.05=--grpo.clip-epsilon 0.05", "clip_10=--grpo.clip-epsilon 10",
                  "clip_higher=--grpo.clip-epsilon-high 0.28"),
    ),
    "group_size": Config(  # the completions of a rollout stay 512
        variants=("group_4=--grpo.sampling.group-size 4 --grpo.sampling.prompts 128",
                  "group_64=--grpo.sampling.group-size 64 --grpo.sampling.prompts 8"),
    ),
    "std": Config(variants=("no_std=ablations/no_std",)),
    "process": Config(variants=("process=ablations/process_reward",)),
    "ppo": Config(variants=("ppo_1=ablations/ppo --critic.trace 1", "ppo_0.95=ablations/ppo --critic.trace 0.95")),
    "cold_start": Config(
        parents=COLD_START,
        baseline=f"reasoning_rl --init {WORLD_MODEL}", variants=("cold=reasoning_rl --init {dev1}",),
    ),
    "language": Config(
        parents=COLD_START,
        baseline="reasoning_rl --init {dev1}", variants=("no_language=--language-weight 0",),
    ),
    "distillation": Config(
        parents=(*SAMPLES, "student_rl=r1_zero --preset student", "distill=distill --data {samples}/records"),
        baseline="evaluate --preset world --init {student_rl}",
        variants=("distilled=evaluate --preset world --prompt chat --init {distill}",),
    ),
    "balancing": Config(
        baseline=PRETRAIN,
        variants=("aux_loss=--router-bias-rate 0 --balance-weight 0.01", "none=--router-bias-rate 0"),
    ),
    "length_limit": Config(
        parents=(f"short=r1_zero {SHORT} --grpo.iterations 30",),
        baseline=f"r1_zero --init {{short}} {SHORT} --grpo.iterations 30", variants=(f"raised={LONG}",),
    ),
}  # fmt: skip


def main(config: Config) -> None:
    root, arms, compared = Path(config.workdir), *read_arms(config)
    count = 2 if config.quick and config.seeds == Config.seeds else config.seeds
    if count < 1:
        raise UserError(f"--seeds must be 1 or more, not {count}")
    seeds = range(config.seed, config.seed + count)
    stages = seeded_stages(root, arms, seeds)
    if config.dry_run:
        return show_plan(root, stages, stage_states(root, stages, EXPERIMENTS))
    run_stages(root, stages, stages, EXPERIMENTS)
    runs = {name: [root / name / str(seed) for seed in seeds] for name in compared}
    table = comparison_table(runs)
    (root / "table.md").write_text(table + "\n")
    launch.console.print(table, soft_wrap=True, markup=False)
    launch.console.print(f"report: {write_comparison(root, ' / '.join(compared), runs)}", soft_wrap=True)


def read_arms(config: Config) -> tuple[dict[str, str], list[str]]:
    """Command lines by name, in an order in which they can run, and the names that are compared, baseline first.

    Raises:
      UserError: a variant is not NAME=..., or two have one name.
    """
    lines = [f"{BASELINE}={config.baseline}", *config.variants]
    arms: dict[str, str] = {}
    for text in (*config.parents, *lines):
        name, equals, line = text.partition("=")
        name, line = name.strip(), line.strip()
        if not equals or not name.replace(".", "").replace("_", "").isalnum() or not line:
            raise UserError(f"{text!r} is not NAME=EXPERIMENT OPTIONS or NAME=OPTIONS, such as no_kl=--grpo.kl-coef 0")
        if name in arms:
            raise UserError(f"there are two runs called {name}; give one another name")
        arms[name] = f"{config.baseline} {line}" if line.startswith("-") else line
    if config.quick:
        arms = {name: quickened(line) for name, line in arms.items()}
    return arms, [text.partition("=")[0].strip() for text in lines]


def quickened(line: str) -> str:
    """A command line with the options of a quick run, which its own override."""
    experiment, _, options = line.partition(" ")
    return f"{experiment} {QUICK.get(experiment, QUICK_RL)} {options}"


if __name__ == "__main__":
    launch.run(main, Config, PRESETS)
