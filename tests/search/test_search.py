"""The Optuna study: asked, told, resumed, and seen by the dashboard."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sweeper.errors import ConfigError, StoreError
from sweeper.records import Objective
from sweeper.search import Candidate, Hints, Search, storage_url
from sweeper.space.domains import Choice, Range
from sweeper.space.rules import Rule
from sweeper.space.space import Series, Space

THROUGHPUT = Objective(metric="request_throughput_per_s", direction="maximize")
LATENCY = Objective(metric="p99_tpot_ms", direction="minimize", request_rate_per_s=16.0)
SPACE = Space(
    base={"dtype": "auto"},
    series=(Series(name="a", label="A", knobs={}), Series(name="b", label="B", knobs={"dtype": "half"})),
    domains={"max_num_seqs": Choice(values=(64, 256))},
)
NUMBERS = Space(domains={"max_num_seqs": Range(low=1, high=64, is_int=True), "x": Range(low=0.0, high=1.0)})


def opened(
    folder: Path, *, space: Space = SPACE, method: str = "grid", name: str = "study", **more: object
) -> Search:
    return Search(
        storage=storage_url(folder),
        name=name,
        space=space,
        objectives=more.pop("objectives", (THROUGHPUT,)),
        method=method,
        seed=0,
        **more,
    )


def asked(search: Search) -> Candidate:
    candidate = search.ask()
    assert candidate is not None
    return candidate


def stored(folder: Path, name: str = "study") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage_url(folder))


def test_point_of_grid_is_begun_and_told(tmp_path: Path) -> None:
    search = opened(tmp_path)
    points = list(SPACE.grid())
    candidate = search.begin(points[3])
    assert candidate.point == points[3]
    assert not search.has(points[3])
    search.tell(candidate.number, [12.5], {"mean_ttft_ms": 3.0, "nothing": None})
    assert search.has(points[3])
    assert not search.has(points[0])
    assert search.counts()["complete"] == 1
    search.close()
    trial = stored(tmp_path).trials[0]
    assert trial.value == 12.5
    assert trial.params == {"series": "b", "max_num_seqs": 256}
    assert trial.user_attrs["mean_ttft_ms"] == 3.0
    assert "nothing" not in trial.user_attrs


def test_metrics_have_their_names_on_dashboards_axes(tmp_path: Path) -> None:
    opened(tmp_path, objectives=(THROUGHPUT, LATENCY)).note("# Why?")
    study = stored(tmp_path)
    assert study.metric_names == ["request_throughput_per_s", "p99_tpot_ms at 16 QPS"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    notes = study._storage.get_study_system_attrs(study._study_id)
    assert any("Why?" in str(text) for key, text in notes.items() if "note" in key)


def test_failed_trial_keeps_its_reason(tmp_path: Path) -> None:
    search = opened(tmp_path)
    candidate = search.begin(next(SPACE.grid()))
    search.tell(candidate.number, None, {"fail_reason": "out_of_memory: HIP out of memory"})
    search.close()
    trial = stored(tmp_path).trials[0]
    assert trial.state is optuna.trial.TrialState.FAIL
    assert trial.user_attrs["fail_reason"] == "out_of_memory: HIP out of memory"


def test_what_kill_left_running_is_closed_and_can_be_begun_again(tmp_path: Path) -> None:
    point = next(SPACE.grid())
    opened(tmp_path).begin(point)
    again = opened(tmp_path)
    assert stored(tmp_path).trials[0].state is optuna.trial.TrialState.FAIL
    assert not again.has(point)
    again.tell(again.begin(point).number, [1.0], {})
    assert again.has(point)


def test_search_repeats_first_what_kill_left_running(tmp_path: Path) -> None:
    first = asked(opened(tmp_path, space=NUMBERS, method="tpe"))
    assert asked(opened(tmp_path, space=NUMBERS, method="tpe")).point == first.point


def test_seeded_search_proposes_same_points_again(tmp_path: Path) -> None:
    def proposals(folder: Path) -> list[object]:
        folder.mkdir()
        search = opened(folder, space=NUMBERS, method="random")
        return [asked(search).point.assignment for _ in range(3)]

    assert proposals(tmp_path / "one") == proposals(tmp_path / "two")


def test_search_starts_with_points_it_is_given(tmp_path: Path) -> None:
    start = NUMBERS.point({"max_num_seqs": 7, "x": 0.25})
    hints = Hints(defaults={"max_num_seqs": 3}, starts=({"max_num_seqs": 7, "x": 0.25},))
    search = opened(tmp_path, space=NUMBERS, method="tpe", hints=hints)
    assert asked(search).point == NUMBERS.point({"max_num_seqs": 3, "x": 0.0})
    assert asked(search).point == start


def test_tpe_moves_to_where_best_values_are(tmp_path: Path) -> None:
    space = Space(domains={"x": Range(low=0.0, high=1.0)})
    search = opened(tmp_path, space=space, method="tpe")
    tried = []
    for _ in range(40):
        candidate = asked(search)
        x = float(candidate.point.assignment["x"])
        tried.append(x)
        search.tell(candidate.number, [-((x - 0.8) ** 2)], {})
    late, early = tried[-10:], tried[:10]
    assert sum(abs(x - 0.8) for x in late) < sum(abs(x - 0.8) for x in early) / 2


def test_grid_that_gains_series_goes_on(tmp_path: Path) -> None:
    opened(tmp_path).begin(next(SPACE.grid()))
    more = Space(series=(*SPACE.series, Series(name="c", label="C", knobs={})), domains=SPACE.domains)
    search = opened(tmp_path, space=more)
    search.tell(search.begin(list(more.grid())[-1]).number, [1.0], {})
    assert stored(tmp_path).trials[0].params["series"] == "c"


def test_search_over_another_space_needs_another_name(tmp_path: Path) -> None:
    opened(tmp_path, space=NUMBERS, method="tpe").ask()
    other = Space(domains={"x": Choice(values=(1, 2))})
    with pytest.raises(ConfigError, match=r"started with another space of knobs.*study\.name="):
        opened(tmp_path, space=other, method="tpe")


def test_other_objectives_need_another_name(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(
        ConfigError, match=r"it was started with the objectives \['request_throughput_per_s'\]"
    ):
        opened(tmp_path, objectives=(LATENCY,))


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("not a database, but long enough to look like one" * 10)
    with pytest.raises(StoreError, match=r"optuna\.db: cannot be opened as an Optuna study database"):
        opened(tmp_path)


def test_space_without_anything_to_vary_has_its_one_trial(tmp_path: Path) -> None:
    single = Space(base={"a": 1}, rules=(Rule(text="a > 0"),))
    search = opened(tmp_path, space=single)
    candidate = search.begin(next(single.grid()))
    assert candidate.point.assignment == {"a": 1}


@pytest.mark.parametrize("method", ["tpe", "random", "guided"])
def test_proposal_keeps_what_is_held_as_long_as_such_points_are_left(tmp_path: Path, method: str) -> None:
    space = Space(
        domains={"max_num_seqs": Choice(values=(8, 16, 32)), "enforce_eager": Choice(values=(True, False))}
    )
    search = opened(tmp_path, space=space, method=method)
    first = asked(search)
    rest = {"enforce_eager": first.point.choices["enforce_eager"]}
    search.tell(first.number, [1.0], {})
    for _ in range(2):
        candidate = search.ask(held=rest)
        assert candidate is not None
        assert rest.items() <= candidate.point.choices.items()
        search.tell(candidate.number, [1.0], {})
    assert search.ask(held=rest) is None
    assert asked(search).point.choices["enforce_eager"] is not rest["enforce_eager"]
