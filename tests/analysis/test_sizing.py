"""What one instance serves, read off a study's load points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import sizing
from analysis.study import Study
from sweeper.records import Constraint, LoadPoint, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


def test_rates_under_different_limits_of_users_are_not_averaged(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    """With 8 at once all wait 100 ms, with 64 they wait 900: the mean of both would keep no bound of 400."""
    points = tuple(
        LoadPoint(dataset="random", num_prompts=100, request_rate_per_s=rate, max_concurrency=limit)
        for rate in (1.0, 4.0)
        for limit in (8, 64)
    )
    waited = {8: 100.0, 64: 900.0}
    made = trial(
        points=points,
        runs_at=lambda point: [
            [
                {
                    "request_throughput_per_s": point.request_rate_per_s or 0.0,
                    "p99_ttft_ms": waited[point.max_concurrency or 0],
                }
            ]
        ],
    )
    bound = Constraint(metric="p99_ttft_ms", limit=400.0, is_upper=True)

    found = sizing.capacities(Study.load(study_folder(made)), [bound])

    assert [one.per_s for one in found.capacities] == [4.0]
