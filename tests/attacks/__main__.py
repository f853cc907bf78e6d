"""Run attacks at one level and print those that are not contained: python -m attacks FOLDER LEVEL [MODULE ...]."""

import sys
from pathlib import Path

from attacks import ATTACKS
from attacks.field import find_escapes
from r1jax.rewards.sandbox import Isolation, try_level

if __name__ == "__main__":
    isolation, modules = try_level(sys.argv[2]), {f"attacks.{name}" for name in sys.argv[3:]}
    if not isinstance(isolation, Isolation):
        sys.exit(f"unavailable: {isolation}")
    names = [name for name, attack in ATTACKS.items() if not modules or attack.__module__ in modules]
    escapes = find_escapes(names, Path(sys.argv[1]), isolation)
    print(len(names), "attacks,", "all contained" if not escapes else escapes)
    sys.exit(bool(escapes))
