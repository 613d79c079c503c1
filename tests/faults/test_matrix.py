"""Each row of the matrix: nothing left behind, nothing lost, nothing under a wrong name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.rows import DISK_ROWS, DRIVER_ROWS, ENGINE_ROWS, RAY_ROWS, ROWS, Row
from tests.faults.studies import Seen
from tests.faults.table import TABLE, rows_in

# It is 10 s on a machine with a processor to spare; tests run on others, too.
_GONE_WITHIN_S = 30

See = Callable[[Row], Seen]


def check(row: Row, seen: Seen) -> None:
    assert seen.failure == row.failure
    assert row.line in seen.line
    assert seen.again == "complete"
    assert seen.exits == row.exits
    assert seen.gone_s is None or seen.gone_s < _GONE_WITHIN_S


@pytest.mark.slow
@pytest.mark.parametrize("row", ENGINE_ROWS, ids=lambda row: row.fault)
def test_fault_of_engine_is_row_with_its_class_and_line(row: Row, see: See) -> None:
    check(row, see(row))


@pytest.mark.slow
@pytest.mark.parametrize("row", DRIVER_ROWS, ids=lambda row: row.fault)
def test_study_whose_driver_ends_leaves_nobody_and_goes_on(row: Row, see: See) -> None:
    check(row, see(row))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("row", RAY_ROWS, ids=lambda row: row.fault)
def test_study_outlives_its_ray(row: Row, see: See) -> None:
    check(row, see(row))


@pytest.mark.slow
@pytest.mark.parametrize("row", DISK_ROWS, ids=lambda row: row.fault)
def test_full_disk_costs_no_finished_trial(row: Row, see: See) -> None:
    check(row, see(row))


def test_documentation_has_every_row_and_no_other() -> None:
    assert rows_in(TABLE.read_text(encoding="utf-8")) == [(row.fault, row.where) for row in ROWS]
