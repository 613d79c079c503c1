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
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import sweeper
from sweeper import processes, urls
from sweeper.errors import ConfigError, StoreError
from sweeper.files import open_folder
from sweeper.records import Constraint, LoadPoint, Model, Objective, Platform
from sweeper.space import Space
from sweeper.topology import Node

SCHEMA_VERSION = 1
"""Version of ``study.json``, raised when the meaning of a key changes; later ones read all earlier ones."""

_OWNER_READS = 5
_OWNER_PAUSE_S = 0.05


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
            owner = _read_owner(lock)
            lock.close()
            raise StoreError(
                f"{self.path}: {_owner_text(owner)}, or give this one another name with study.name=..."
            ) from exc
        try:
            lock.truncate(0)
            lock.write(f"{processes.current()} {socket.gethostname()}")
            lock.flush()
        except OSError as exc:
            lock.close()
            raise StoreError(_not_written(self.path / "driver.lock", exc)) from exc
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
        """Make the folder of one invocation and write down what was asked of it.

        Raises:
            StoreError: It cannot be written.
        """
        # Down to the millisecond: one process may run the same study twice within a second.
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        run = self.path / "runs" / f"{stamp}-{os.getpid()}"
        try:
            (run / ".hydra").mkdir(parents=True)
        except OSError as exc:
            raise StoreError(_not_written(run, exc)) from exc
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
        constraints: Sequence[Constraint] = (),
    ) -> None:
        """Write ``study.json``, which everything that reads the study later starts from.

        Args:
            results: Folder or URL of its measurements, where that is not this folder.

        Raises:
            ConfigError: The folder holds a study of another platform, or one whose results lie elsewhere.
            StoreError: ``study.json`` is damaged or of a later format, which is left as it is, or it cannot
                be written.
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
            "schema_version": SCHEMA_VERSION,
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
            "constraints": [{**asdict(constraint), "name": constraint.name} for constraint in constraints],
            "load_points": [{**asdict(point), "label": point.label} for point in load_points],
            "results": results,
            "config": urls.masked(dict(resolved)),
        }
        write_json(path, description)
        if results is not None:
            # Beside the measurements too, so that whoever has only those reads them as a study.
            open_folder(results, where="study.results").write("study.json", _json(description))


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all.

    Raises:
        StoreError: It cannot be written; what was there before is untouched.
    """
    open_folder(path.parent, where=str(path)).write(path.name, _json(content))


def _json(content: object) -> bytes:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    # Half a character is no UTF-8; its code is the same character in JSON.
    return text.encode("utf-8", "backslashreplace")


def _read(path: Path) -> dict[str, Any] | None:
    """Read the description that is there; one that cannot be understood is nobody's to write over."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreError(
            f"{path}: cannot be read: {exc.strerror}; expected a file. Mend its rights, or move it away."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise StoreError(f"{path}: is not JSON: {exc}. Move it away; it is written anew.") from exc
    if not isinstance(content, dict):
        raise StoreError(
            f"{path}: holds a {type(content).__name__}; expected a JSON object. Move it away; it is written "
            "anew."
        )
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: is of schema version {version!r}; expected at most {SCHEMA_VERSION}. It was written by "
            "a later sweeper: install that one, or give this study another name with study.name=..."
        )
    return content


def _not_written(path: Path, exc: OSError) -> str:
    return (
        f"{path}: cannot be written: {exc.strerror}. Make room or mend its rights, then start again: what is "
        "finished is kept."
    )


# ---- who owns a study ----


def _read_owner(lock: TextIO) -> str:
    """Read what the owner wrote; it locks first and writes then, so it is given a moment."""
    for _ in range(_OWNER_READS):
        lock.seek(0)
        text = lock.read().strip()
        if text:
            return text
        time.sleep(_OWNER_PAUSE_S)
    return ""


def _owner_text(owner: str) -> str:
    """Say who holds the study and how to stop it.

    A process id alone would not do: the driver may be gone and its id given to another process, which must
    not be stopped. So its start time is looked at, too.
    """
    written, _, host = owner.partition(" ")
    try:
        process = processes.Process.parse(written)
    except ValueError:
        return f"another sweep (pid {written or 'unknown'}) runs this study. Wait for it"
    if host != socket.gethostname():
        return f"another sweep (pid {process.pid} on {host}) runs this study. Wait for it or stop it there"
    if not processes.is_alive(process):
        return (
            f"a process that the ended sweep (pid {process.pid}) left behind holds this study. End it with "
            "'python -m sweeper cleanup', or find it with 'fuser driver.lock'"
        )
    return (
        f"another sweep (pid {process.pid}) runs this study. Wait for it, stop it with "
        f"'kill -INT {process.pid}'"
    )
