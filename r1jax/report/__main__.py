"""Print the stage table over several chains: `python -m r1jax.report runs/r1_0 runs/r1_1 runs/r1_2`."""

import sys
from pathlib import Path

from r1jax.report.chain import seeds_table

if __name__ == "__main__":
    roots = sys.argv[1:]
    if len(roots) < 2 or not all((Path(root) / "chain.json").is_file() for root in roots):
        sys.exit(f"expected the folders of two or more finished chains, found {' '.join(roots) or 'none'}")
    print(seeds_table(roots))
