"""A self-contained HTML report of an R1-Zero run: what changed from before to after, and the curves between."""

from r1jax.report.page import write_report

__all__ = ["write_report"]
