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
from sweeper.errors import ConfigError, StoreError
from sweeper.processes import process as processes
from sweeper.records import Constraint, LoadPoint, Model, Objective, Platform
from sweeper.simulation.device import model_name
from sweeper.space.space import Space
from sweeper.store.description import FILE, Description, Series, json_text, read_content
from sweeper.store.files import open_folder
from sweeper.text import confidential
from sweeper.topology import Node

_NEW_QUESTION = (
    "Trials of one search never answer for two questions: give the new one a name of its own with "
    "study.name=..."
)
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
            StoreError: Another driver owns it, or the folder cannot be written or has no locks.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "driver.lock").open("a+", encoding="utf-8")
        except OSError as exc:
            raise StoreError(
                f"{self.path}: cannot be written: {exc.strerror}. Choose another place with study.outputs=..."
            ) from exc
        try:
            # The kernel drops the lock with its owner, however that ends: a stale file locks no one out.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = _read_owner(lock)
            lock.close()
            raise StoreError(
                f"{self.path}: {_owner_text(owner)}, or give this one another name with study.name=..."
            ) from exc
        except OSError as exc:
            lock.close()
            raise StoreError(
                f"{self.path / 'driver.lock'}: cannot be locked: {exc.strerror}; expected a file system "
                "with locks (flock), so that no two sweeps write one study. Choose another place with "
                "study.outputs=..., or have it mounted with locks."
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
        """Release the study."""
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
        write_json(run / ".hydra" / "config.json", confidential.masked(resolved))
        write_json(run / ".hydra" / "overrides.json", confidential.masked(list(overrides)))
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
        refuse_other_study(self.path, platform=platform, node=node, results=results)
        own = open_folder(self.path, where="study.outputs")
        text = Description(
            sweeper=sweeper.__version__,
            name=name,
            experiment=experiment,
            question=question,
            source=source,
            platform=str(platform),
            platform_reason=platform_reason,
            node=node.summary,
            engine_release=engine_release,
            model=model.name,
            series={
                series.name: Series(
                    name=series.name,
                    label=series.label,
                    published=series.published,
                    run=series.run,
                    engine=series.engine,
                    order=order,
                )
                for order, series in enumerate(space.series)
            },
            objectives=tuple(objectives),
            constraints=tuple(constraints),
            load_points=tuple(map(_described, load_points)),
            results=results,
            config=confidential.masked(dict(resolved)),
        ).as_json.encode()
        own.write(FILE, text)
        if results is not None:
            # Beside the measurements too, so that a reader who has only those reads them as a study.
            open_folder(results, where="study.results").write(FILE, text)


def refuse_other_study(folder: Path, *, platform: Platform, node: Node, results: str | None) -> None:
    """Refuse to go on with a study of another platform or GPU, or one whose results lie elsewhere.

    Args:
        folder: Of the study; one that is not there yet holds none.
        platform: On which it would go on.
        node: On which it would go on.
        results: Folder or URL of its measurements as asked for now, where that is not the folder.

    Raises:
        ConfigError: The folder holds a study that is.
        StoreError: ``study.json`` is damaged or of a later format.
    """
    path = folder / FILE
    # One that cannot be understood is never written over.
    stored = read_content(
        open_folder(folder, where="study.outputs"), remedy="Move it away; it is written anew"
    )
    if stored is None:
        return
    if stored.get("platform") != str(platform):
        raise ConfigError(
            f"{path}: the study was made on platform '{stored.get('platform')}', now it is '{platform}'. "
            "Numbers of two platforms never share a study: give this one another name with study.name=..."
        )
    if platform is not Platform.SIMULATED:
        _refuse_other_gpus(path, str(stored.get("node") or ""), node)
    if stored.get("results") != results:
        raise ConfigError(
            f"{path}: the study keeps its results in '{stored.get('results') or folder}', now they "
            f"are to go to '{results or folder}'. Results of one study lie in one place: leave "
            "study.results as it was, or give this one another name with study.name=..."
        )


def refuse_other_question(folder: Path, *, model: Model, load_points: Sequence[LoadPoint]) -> None:
    """Refuse to go on with a search on another model or load: its trials would be the answer for both.

    A grid has no such budget: it measures each of its points anew.

    Args:
        folder: Of the study.
        model: That is asked for now.
        load_points: That are asked for now.

    Raises:
        ConfigError: The folder holds trials of a search on others.
        StoreError: ``study.json`` is damaged or of a later format.
    """
    path = folder / FILE
    stored = read_content(open_folder(folder, where="study.outputs"), remedy="Restore it")
    if stored is None or not (stored.get("results") or any((folder / "measurements").glob("*.parquet"))):
        return
    was = stored.get("model")
    if was is not None and was != model.name:
        raise ConfigError(
            f"{path}: the search was made on model '{was}', now it is '{model.name}'. {_NEW_QUESTION}"
        )
    loads = json.loads(json_text([_described(point) for point in load_points]))
    known = stored.get("load_points") or loads
    differs = len(known) != len(loads) or any(_differing(*pair) for pair in zip(known, loads, strict=True))
    if differs:
        before, now = ("; ".join(map(_load_text, points)) for points in (known, loads))
        raise ConfigError(
            f"{path}: the search was made with the load {before}, now it is {now}. {_NEW_QUESTION}"
        )


def _described(point: LoadPoint) -> dict[str, Any]:
    return {**asdict(point), "label": point.label}


def _differing(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two load points differ; one that an earlier version did not write is alike.

    A study that was moved finds its dataset elsewhere, so of a path the file's name counts.
    """
    shared = stored.keys() & wanted.keys()
    return [key for key in shared if _place_aside(key, stored[key]) != _place_aside(key, wanted[key])]


def _place_aside(key: str, value: object) -> object:
    return Path(value).name if key == "dataset_path" and isinstance(value, str) else value


def _load_text(point: Mapping[str, Any]) -> str:
    told = ("dataset", "num_prompts", "input_len", "output_len", "dataset_path")
    parts = [f"{key}={point[key]}" for key in told if point.get(key) is not None]
    return ", ".join([str(point.get("label") or "?"), *parts])


def write_json(path: Path, content: object) -> None:
    """Write JSON whole or not at all.

    Raises:
        StoreError: It cannot be written; what was there before is untouched.
    """
    open_folder(path.parent, where=str(path)).write(path.name, json_text(content).encode())


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
    """Describe which process holds the study and how to stop it.

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


def _refuse_other_gpus(path: Path, stored: str, node: Node) -> None:
    """Refuse to go on with a study on another GPU, as far as the summary of its node shows which it was.

    A trial's key says the platform only, so what was measured on one would count as measured on the other.
    """
    was, now = model_name(stored.partition(": ")[2]), model_name(node.device_name)
    if was is not None and now is not None and was != now:
        raise ConfigError(
            f"{path}: the study was made on {was}, now it is {now}. Numbers of two GPUs never share a study: "
            "give this one another name with study.name=..."
        )
