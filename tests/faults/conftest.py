"""Runs the studies of the matrix side by side, once for all rows, and writes down what was seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults import scenarios
from tests.faults.rows import DISK_ROWS, DRIVER_ROWS, ENGINE_ROWS, RAY_ROWS, Row
from tests.faults.studies import Seen
from tests.faults.table import as_markdown

See = Callable[[Row], Seen]

TABLE_VARIABLE = "FAULTS_TABLE"
"""Names the file that takes the table of what was seen."""


@pytest.fixture(scope="session")
def see(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[See]:
    """What was seen of a row; the first to ask starts every study that some test needs."""
    wanted = {
        id(item.callspec.params["row"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "row" in item.callspec.params
    }
    folder = tmp_path_factory.mktemp("faults")
    told: dict[int, Seen] = {}
    with ExitStack() as stack:
        # Not below pytest's own folder: a disk that a killed run left there breaks the next one's clean-up.
        small = Path(stack.enter_context(TemporaryDirectory(prefix="sweeper-faults-"))) / "small"
        no_disk = stack.enter_context(scenarios.small_disk(small))
        left_out: dict[tuple[Row, ...], str] = {}
        if no_disk is not None:
            left_out[DISK_ROWS] = f"no small disk can be mounted here: {no_disk}"
        studies: tuple[tuple[tuple[Row, ...], Callable[[], dict[str, Seen]]], ...] = (
            (RAY_ROWS, lambda: scenarios.ray_faults(folder / "ray")),
            (ENGINE_ROWS, lambda: scenarios.engine_faults(folder / "engines")),
            (DRIVER_ROWS, lambda: scenarios.driver_faults(folder / "drivers")),
            (DISK_ROWS, lambda: scenarios.full_disk(folder / "disk", small)),
        )
        # Two at a time, or a machine of two processors starts no Ray within Ray's own limit.
        pool = stack.enter_context(ThreadPoolExecutor(2))
        futures: dict[int, Future[dict[str, Seen]]] = {}
        for rows, run in studies:
            if rows not in left_out and wanted & {id(row) for row in rows}:
                future = pool.submit(run)
                futures.update({id(row): future for row in rows})

        def seen(row: Row) -> Seen:
            for rows, reason in left_out.items():
                if row in rows:
                    pytest.skip(reason)
            told[id(row)] = futures[id(row)].result()[row.fault]
            return told[id(row)]

        yield seen
    if TABLE_VARIABLE in os.environ:
        Path(os.environ[TABLE_VARIABLE]).write_text(as_markdown(told), encoding="utf-8")
