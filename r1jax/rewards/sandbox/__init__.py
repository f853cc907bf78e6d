"""Untrusted Python programs, run where they can neither harm nor see the host; docs/sandbox.md has the threat model."""

from r1jax.rewards.sandbox.isolation import (
    LEVELS,
    UNSAFE,
    Isolation,
    SandboxUnavailable,
    probe,
    require_isolation,
    try_level,
)
from r1jax.rewards.sandbox.limits import Limits, Run, Status
from r1jax.rewards.sandbox.python import Conversation, open_python, run_python

__all__ = [
    "LEVELS", "UNSAFE", "Conversation", "Isolation", "Limits", "Run", "SandboxUnavailable", "Status", "open_python",
    "probe", "require_isolation", "run_python", "try_level",
]  # fmt: skip
