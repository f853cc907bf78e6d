"""How figures were measured: all that they depend on, in a file and in sentences."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from r1jax.config import UserError, differences
from r1jax.generation.sampler import SamplingConfig
from r1jax.metrics import read_json, write_json

JUDGED_BY = ("r1jax", "numpy", "sympy", "math-verify")
SAMPLED_BY = ("jax", "jaxlib", "flax")


def describe_protocol(paths: Sequence[str], policy: dict | None, *, problems: int, samples: int) -> dict:
    """What the figures depend on besides the configuration: the checkpoint, the contents of files, and versions.

    Args:
      paths: benchmark files, as path or name=path, and completions.
      policy: where the checkpoint came from; None where nothing is sampled.
      problems, samples: how many, and how many of each.
    """
    packages = (*JUDGED_BY, *(SAMPLED_BY if policy else ()))
    return {
        "problems": problems,
        "samples_per_problem": samples,
        "policy": policy,
        "files": [file_facts(text.rpartition("=")[2]) for text in paths],
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def claim_protocol(workdir: Path, protocol: dict) -> None:
    """Write protocol.json, or check that it says the same as when the evaluation began.

    Raises:
      UserError: a file, version or checkpoint is another one.
    """
    path = workdir / "protocol.json"
    changed = differences(read_json(path), protocol) if path.exists() else []
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(f"{workdir} was begun with something else:\n  {listed}\nUse another --workdir.")
    write_json(path, protocol)


def protocol_lines(protocol: dict, problems: str, prompt: str, sampling: SamplingConfig, seed: int) -> list[str]:
    """The protocol in sentences.

    Args:
      protocol: from `describe_protocol`.
      problems: where they are from.
      prompt: the form of the prompt.
      sampling, seed: how responses were drawn; not said where they were not drawn here.
    """
    policy, files = protocol["policy"], protocol["files"]
    lines = [f"{protocol['problems']} problems: {problems}; k = {protocol['samples_per_problem']} samples each."]
    if policy is None:
        lines.append(f"Completions from {files[-1]['name']}, sampled elsewhere; format judged as of prompt {prompt}.")
    else:
        lines.append(
            f"Temperature {sampling.temperature}, top-p {sampling.top_p}, at most {sampling.max_new_tokens} tokens, "
            f"prompt {prompt}, seed {seed}; checkpoint {policy['folder']} at step {policy['step']}."
        )
    versions = ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())
    lines.append(f"Judged by r1jax.tasks.families.family_reward; {versions}.")
    hashes = "; ".join(f"{fact['name']} {fact['sha256'][:16]}" for fact in files)
    return [*lines, *([f"SHA-256: {hashes}."] if files else [])]


def file_facts(path: str | Path) -> dict:
    """Name, size in bytes and SHA-256 of a file, or of all files below a folder."""
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest, size = hashlib.sha256(), 0
    for file in files:
        content = file.read_bytes()
        size += len(content)
        digest.update(content)
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}
