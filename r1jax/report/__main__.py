"""`python -m r1jax.report WORKDIR` writes the report of a run and prints its path."""

import sys

from r1jax.report import write_report


def main() -> None:
    """Write the report of the workdir on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m r1jax.report WORKDIR")
    try:
        print(write_report(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"report: {error}")


if __name__ == "__main__":
    main()
