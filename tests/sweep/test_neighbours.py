"""When a search stays with a running start, and when it pays for another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.plan.planner import Job, Planner
from sweeper.records import Model
from sweeper.schedule.durations import Prediction, Predictor
from sweeper.space.domains import Choice
from sweeper.space.space import Space
from sweeper.sweep.neighbours import Neighbours
from tests.stand_ins import planner_of_three_series


class Told(Predictor):
    """Every trial takes 40 s for its start and 10 s for its load."""

    def predict(self, spec: object) -> Prediction:
        return Prediction(start_s=40.0, load_s=10.0, basis="told")


@pytest.fixture
def jobs(tmp_path: Path, llama_70b: Model) -> list[Job]:
    space = Space(
        base={"tensor_parallel_size": 8},
        domains={"max_num_seqs": Choice(values=tuple(range(1, 9))), "enforce_eager": Choice(values=(True,))},
    )
    planner: Planner = replace(planner_of_three_series(tmp_path, llama_70b), space=space)
    start = {"tensor_parallel_size": 8, "max_num_seqs": 8, "enforce_eager": True}
    return [replace(job, spec=replace(job.spec, live_start=start)) for job in planner.grid()]


def test_start_is_used_for_as_long_as_it_took(jobs: list[Job]) -> None:
    neighbours, key = Neighbours(Told()), str(jobs[0].spec.start_key)
    asked = 0
    neighbours.note(jobs[0])
    while (held := neighbours.held([key])) is not None:
        assert held == {"enforce_eager": True}
        asked += 1
        neighbours.note(jobs[asked])
    # 40 s of start are worth four loads of 10 s, besides the one that it was made for.
    assert asked == 4


def test_start_that_is_busy_or_gone_or_has_no_neighbour_left_holds_nothing(jobs: list[Job]) -> None:
    neighbours, key = Neighbours(Told()), str(jobs[0].spec.start_key)
    assert neighbours.held([key]) is None
    neighbours.note(jobs[0])
    assert neighbours.held([]) is None
    assert neighbours.held(["another"]) is None
    neighbours.exhaust({"enforce_eager": True})
    assert neighbours.held([key]) is None


def test_trial_of_its_own_start_has_no_neighbours(jobs: list[Job]) -> None:
    neighbours = Neighbours(Told())
    fresh = replace(jobs[0], spec=jobs[0].spec.fresh)
    neighbours.note(fresh)
    assert neighbours.held([jobs[0].spec.key, str(jobs[0].spec.start_key)]) is None
