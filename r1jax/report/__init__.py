"""Self-contained HTML reports: of a run of reinforcement learning, of the whole chain, of arms side by side."""

from r1jax.report.chain import chain_table, mean_interval, seeds_table, write_chain_report
from r1jax.report.comparison import comparison_table, read_figures, write_comparison
from r1jax.report.page import write_report

__all__ = [
    "chain_table", "comparison_table", "mean_interval", "read_figures", "seeds_table", "write_chain_report",
    "write_comparison", "write_report",
]  # fmt: skip
