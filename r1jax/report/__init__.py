"""Self-contained HTML reports: of a run of reinforcement learning, and of the whole chain."""

from r1jax.report.chain import chain_table, seeds_table, write_chain_report
from r1jax.report.page import write_report

__all__ = ["chain_table", "seeds_table", "write_chain_report", "write_report"]
