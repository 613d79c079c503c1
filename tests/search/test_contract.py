"""What holds for every method that asks and tells: distinct points of the space, none lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sweeper.errors import ConfigError
from sweeper.kinds import SEARCH_METHODS
from sweeper.records import Objective
from sweeper.search import Search, check_method, storage_url
from sweeper.space.domains import Choice
from sweeper.space.rules import Rule
from sweeper.space.space import Space

SPACE = Space(
    domains={"a": Choice(values=(1, 2, 4)), "b": Choice(values=(True, False))},
    rules=(Rule(text="b or a < 4"),),
)
POINTS = {(1, True), (2, True), (4, True), (1, False), (2, False)}
"""Worked out by hand: of six combinations the rule forbids a=4 without b."""


@pytest.fixture(params=[name for name in SEARCH_METHODS if not SEARCH_METHODS[name].is_exhaustive])
def method(request: pytest.FixtureRequest) -> str:
    """A method that proposes; the points of a grid are begun by whoever enumerates them."""
    try:
        check_method(request.param)
    except ConfigError as exc:
        pytest.skip(str(exc))
    return str(request.param)


@contextmanager
def opened(folder: Path, method: str) -> Iterator[Search]:
    objective = Objective(metric="request_throughput_per_s", direction="maximize")
    search = Search(
        storage=storage_url(folder), name="here", space=SPACE, objectives=[objective], method=method, seed=0
    )
    with closing(search):
        yield search


def step(search: Search) -> tuple[object, object] | None:
    candidate = search.ask()
    if candidate is None:
        return None
    a, b = candidate.point.choices["a"], candidate.point.choices["b"]
    search.tell(candidate.number, [float(a)], {})
    return a, b


def test_every_point_of_small_space_is_proposed_once_and_then_none(method: str, tmp_path: Path) -> None:
    with opened(tmp_path, method) as search:
        proposed = [step(search) for _ in range(6)]
    assert proposed[5] is None
    assert set(proposed[:5]) == POINTS


def test_search_that_is_opened_again_proposes_what_it_has_not(method: str, tmp_path: Path) -> None:
    with opened(tmp_path, method) as search:
        first = [step(search) for _ in range(2)]
    with opened(tmp_path, method) as search:
        then = [step(search) for _ in range(4)]
    assert then[3] is None
    assert {*first, *then[:3]} == POINTS


def test_point_that_failed_is_not_proposed_again(method: str, tmp_path: Path) -> None:
    with opened(tmp_path, method) as search:
        candidate = search.ask()
        assert candidate is not None
        search.tell(candidate.number, None, {})
        proposed = [step(search) for _ in range(5)]
    lost = (candidate.point.choices["a"], candidate.point.choices["b"])
    assert proposed[4] is None
    assert set(proposed[:4]) == POINTS - {lost}
