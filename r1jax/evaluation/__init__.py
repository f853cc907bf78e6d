"""Sampling responses to problems, judging them, and what is measured on them; docs/evaluation.md."""

from r1jax.evaluation.measures import describe_responses, judge_outcomes
from r1jax.evaluation.responses import (
    Codec,
    Response,
    encode_prompts,
    evaluation_batches,
    judged_groups,
    respond,
    submit_groups,
)
from r1jax.evaluation.statistics import accuracy_ci95, majority_vote, pass_at_k
from r1jax.evaluation.summary import sample_record, summarize, summarize_answers
from r1jax.evaluation.tables import comparison_table, evaluation_markdown

__all__ = [
    "Codec",
    "Response",
    "accuracy_ci95",
    "comparison_table",
    "describe_responses",
    "encode_prompts",
    "evaluation_batches",
    "evaluation_markdown",
    "judge_outcomes",
    "judged_groups",
    "majority_vote",
    "pass_at_k",
    "respond",
    "sample_record",
    "submit_groups",
    "summarize",
    "summarize_answers",
]
