"""A study's folder: its one owner, its description, and the record of each invocation.

    outputs/<study>/study.json       what was asked, of what, on what
    outputs/<study>/driver.lock      held by the process that owns the study
    outputs/<study>/runs/<time>/     resolved configuration and overrides of one invocation

Measurements themselves are the store's business (``store``).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import sweeper
from sweeper import urls
from sweeper.errors import ConfigError, StoreError
from sweeper.files import open_folder
from sweeper.records import LoadPoint, Model, Objective, Platform
from sweeper.space import Space
from sweeper.topology import Node


class StudyFolder:
    """The folder of one study, owned by one driver at a time."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when the study is opened."""
        self.path = folder
        self._lock: TextIO | None = None

    def __enter__(self) -> StudyFolder:
        """Own the study.

        Raises:
            StoreError: Another driver owns it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "driver.lock").open("a+", encoding="utf-8")
        except OSError as exc:
            raise StoreError(
                f"{self.path}: cannot be written: {exc.strerror}. Choose another place with study.outputs=..."
            ) from exc
        try:
            # The kernel drops the lock with its owner, however that ends: a stale file locks nobody out.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StoreError(
                f"{self.path}: another sweep (pid {owner}) runs this study. Wait for it, stop it with "
                f"'kill -INT {owner}', or give this one another name with study.name=..."
            ) from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the study."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def begin_run(self, *, resolved: Mapping[str, Any], overrides: Sequence[str]) -> Path:
        """Make the folder of one invocation and write down what was asked of it."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        run = self.path / "runs" / f"{stamp}-{os.getpid()}"
        (run / ".hydra").mkdir(parents=True)
        write_json(run / ".hydra" / "config.json", urls.masked(resolved))
        write_json(run / ".hydra" / "overrides.json", urls.masked(list(overrides)))
        return run

    def describe(
        self,
        *,
        name: str,
        experiment: str,
        question: str,
        source: str,
        platform: Platform,
        platform_reason: str,
        node: Node,
        engine_release: str,
        model: Model,
        space: Space,
        objectives: Sequence[Objective],
        load_points: Sequence[LoadPoint],
        resolved: Mapping[str, Any],
        results: str | None = None,
    ) -> None:
        """Write ``study.json``, which everything that reads the study later starts from.

        Args:
            results: Folder or URL of its measurements, where that is not this folder.

        Raises:
            ConfigError: The folder holds a study of another platform, or one whose results lie elsewhere.
        """
        path = self.path / "study.json"
        stored = _read(path)
        if stored is not None and stored.get("platform") != str(platform):
            raise ConfigError(
                f"{path}: the study was made on platform '{stored.get('platform')}', now it is '{platform}'. "
                "Numbers of two platforms never share a study: give this one another name with study.name=..."
            )
        if stored is not None and stored.get("results") != results:
            raise ConfigError(
                f"{path}: the study keeps its results in '{stored.get('results') or self.path}', now they "
                f"are to go to '{results or self.path}'. Results of one study lie in one place: leave "
                "study.results as it was, or give this one another name with study.name=..."
            )
        description = {
            "schema_version": 1,
            "sweeper": sweeper.__version__,
            "name": name,
            "experiment": experiment,
            "question": question,
            "source": source,
            "platform": str(platform),
            "platform_reason": platform_reason,
            "node": node.summary,
            "engine_release": engine_release,
            "model": model.name,
            "series": {
                series.name: {
                    "label": series.label,
                    "published": series.published,
                    "run": series.run,
                    "engine": series.engine,
                    "order": order,
                }
                for order, series in enumerate(space.series)
            },
            "objectives": [{**asdict(objective), "name": objective.name} for objective in objectives],
            "load_points": [{**asdict(point), "label": point.label} for point in load_points],
            "results": results,
            "config": urls.masked(dict(resolved)),
        }
        write_json(path, description)
        if results is not None:
            # Beside the measurements too, so that whoever has only those reads them as a study.
            open_folder(results, where="study.results").write("study.json", _json(description).encode())


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(_json(content), encoding="utf-8")
    partial.replace(path)


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise StoreError(f"{path}: is not JSON: {exc}. Move it away; it is written anew.") from exc
        if isinstance(content, dict):
            return content
    return None
