"""`python -m r1jax.report WORKDIR` writes the report of a run and prints its path; of several chains, as in
`python -m r1jax.report runs/r1_0 runs/r1_1 runs/r1_2`, it prints the stage table over their seeds."""

import sys
from pathlib import Path

from r1jax.report import seeds_table, write_report


def main() -> None:
    """Report the workdirs on the command line."""
    roots = sys.argv[1:]
    if not roots:
        sys.exit("usage: python -m r1jax.report WORKDIR, or the folders of several chains")
    if len(roots) > 1:
        if missing := [root for root in roots if not (Path(root) / "chain.json").is_file()]:
            sys.exit(f"report: {' '.join(missing)} is not the folder of a chain: it has no chain.json")
        return print(seeds_table(roots))
    try:
        print(write_report(roots[0]))
    except ValueError as error:
        sys.exit(f"report: {error}")


if __name__ == "__main__":
    main()
