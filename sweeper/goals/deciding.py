"""Which load decides what is better: the one that an objective names, or the mean over all, said aloud.

Where a study has several load points and an objective names none of them, the mean of all decides, each
counting the same. That is a choice that nobody made, so a plan says so, and how to make another.
"""

from __future__ import annotations

from collections.abc import Sequence

from sweeper.goals.objectives import counts_load
from sweeper.kinds import DATASETS
from sweeper.records import SEARCH_SLOS, Constraint, LoadPoint, Objective
from sweeper.records.plurals import amount

_MOST_NAMED = 6

BOUNDED_BY_LOAD = frozenset(
    (
        *("request_throughput_per_s", "output_throughput_tok_per_s", "total_throughput_tok_per_s"),
        *("steady_request_throughput_per_s", "steady_output_throughput_tok_per_s"),
        # The price of the GPUs by the tokens.
        *("cost_per_million_output_tokens", "cost_per_million_total_tokens"),
    )
)
"""Metrics that are no better than what is sent allows."""


def counted_points(quantity: Objective | Constraint, points: Sequence[LoadPoint]) -> list[LoadPoint]:
    """Return the load points whose mean a quantity is."""
    return [
        point
        for point in points
        if counts_load(
            quantity,
            request_rate_per_s=point.request_rate_per_s,
            max_concurrency=point.max_concurrency,
            dataset=point.dataset,
            keeps_prefix_cache=point.keeps_prefix_cache,
            answer=None if point.search is None else point.search.answer,
        )
    ]


def deciding_texts(objectives: Sequence[Objective], points: Sequence[LoadPoint]) -> list[str]:
    """Return for each objective which load points decide and why; none where a study has one load point.

    Args:
        objectives: What is better.
        points: All load points of the study.
    """
    return [_text(objective, points) for objective in objectives] if len(points) > 1 else []


def clocked_texts(objectives: Sequence[Objective], points: Sequence[LoadPoint]) -> list[str]:
    """Return for each objective that it is bounded by what a log sends at its own times, where it is."""
    texts = []
    for objective in objectives:
        counted = counted_points(objective, points)
        own = [point for point in counted if DATASETS[point.dataset].times is not None]
        if objective.metric in BOUNDED_BY_LOAD and own and len(own) == len(counted):
            others = sorted(filter(None, {DATASETS[point.dataset].without_times for point in own}))
            texts.append(
                f"{objective.metric}: requests come at their own times, so settings that keep up have the "
                "same: it does not tell which serves the most. "
                f"For that: workload.dataset={' or '.join(others)}, all at once"
            )
    return texts


def _text(objective: Objective, points: Sequence[LoadPoint]) -> str:
    if objective.metric in SEARCH_SLOS:
        return f"{objective.metric}: what the search over loads finds"
    counted = counted_points(objective, points)
    labels = list(dict.fromkeys(point.label for point in counted))
    if len(labels) == 1:
        is_named = (objective.request_rate_per_s, objective.max_concurrency) != (None, None)
        why = "as the objective says" if is_named else "the only load point that reports it"
        return f"{objective.metric}: {labels[0]} alone, {why}"
    shown = "; ".join(labels if len(labels) <= _MOST_NAMED else [labels[0], "...", labels[-1]])
    return (
        f"{objective.metric}: the mean over {amount(len(labels), 'load point')} ({shown}), each "
        f"counting the same, because the objective names no load. {_advice(counted)}"
    )


def _advice(counted: Sequence[LoadPoint]) -> str:
    """Name the key that lets the heaviest of several loads decide alone."""
    rates = [one.request_rate_per_s for one in counted if one.request_rate_per_s is not None]
    users = [one.max_concurrency for one in counted if one.max_concurrency is not None]
    advice = "To let one decide, name it in the objective"
    if len(set(rates)) > 1 or (rates and not users):
        return f"{advice}, such as request_rate_per_s: {max(rates):g}"
    return f"{advice}, such as max_concurrency: {max(users)}" if users else advice
