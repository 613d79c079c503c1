"""``python -m sweeper watch STUDY``: the page of a study while it runs, for a browser on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.cli import progress
from sweeper.cli.arguments import ConsoleCommand
from sweeper.cli.exit_codes import OK
from sweeper.errors import ConfigError, SweeperError
from sweeper.processes import process as processes
from sweeper.trial import stages

if TYPE_CHECKING:
    from rich.console import Console

HOST = "127.0.0.1"
"""Loopback only: the page has no login."""

NEWS = "/news"
Parts = tuple[tuple[str, int], ...]
"""Names of stored parts with the times of their last change."""

_HTML, _JSON = "text/html; charset=utf-8", "application/json"


class Watched:
    """A study that may be running: its results so far, read again beside the answers when there are more."""

    def __init__(self, folder: Path) -> None:
        """Watch the study in a folder.

        Raises:
            ConfigError: There is no study in it.
            StoreError: Its ``study.json`` cannot be read.
        """
        if not (folder / "study.json").is_file():
            raise ConfigError(
                f"{folder}: holds no study; expected a study's folder, such as outputs/case2_sched_steps. "
                "Look into outputs/ for its name, or start the study first."
            )
        from analysis.browser import contents

        self._folder = folder
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._seen: Parts = ()
        self._results = contents.before_results(folder)
        self._number = 0

    def page(self) -> str:
        """Return the page with what is known at this moment; it asks for the rest itself."""
        from analysis.browser import document

        stands = self._look()
        with self._lock:
            return document.page({**self._results, "live": stands}, refreshed_from=NEWS)

    def news(self, known: int) -> dict[str, Any]:
        """Return how the study stands, and its results where they are newer than number ``known``."""
        stands = self._look()
        with self._lock:
            results = self._results if known != self._number else None
            return {"number": self._number, "live": stands, "results": results}

    def _look(self) -> dict[str, Any] | None:
        """Return how the study stands, and have its results read where there are more."""
        stands = live(self._folder)
        finished = sum(stands["counts"].values()) if stands else 0
        self._read_if_changed((*self._parts(), ("finished", finished)))
        return stands

    def _read_if_changed(self, seen: Parts) -> None:
        """Read the results in a thread of its own: of a large study that takes longer than a reader waits."""
        with self._lock:
            is_reading = self._reader is not None and self._reader.is_alive()
            if is_reading or seen == self._seen:
                return
            self._reader = threading.Thread(target=self._read, args=(seen,), daemon=True)
            self._reader.start()

    def _read(self, seen: Parts) -> None:
        from analysis.browser import contents
        from analysis.study import Study

        try:
            results = contents.contents(Study.load(self._folder))
        except SweeperError:
            # Nothing is stored yet, or a part is just being written: it is tried again.
            return
        with self._lock:
            self._seen, self._results, self._number = seen, results, self._number + 1

    def _parts(self) -> Parts:
        paths = [*self._folder.glob("measurements/*.parquet"), self._folder / "study.json"]
        found = []
        for path in sorted(paths):
            with contextlib.suppress(OSError):
                found.append((path.name, path.stat().st_mtime_ns))
        return tuple(found)


def live(folder: Path) -> dict[str, Any] | None:
    """Return how the newest invocation of a study stands; None where none wrote anything.

    Returns:
        What ``progress.Progress`` wrote, with the ``stage`` of each running trial, and ``state``:
        ``running``, ``over``, or ``gone`` where its process ended without a word.
    """
    for path in sorted(folder.glob(f"runs/*/{progress.FILE}"), reverse=True):
        try:
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for trial in told["running"]:
            trial["stage"] = stages.read(Path(trial.pop("folder"))) or "begins"
        is_there = processes.is_alive(processes.Process(**told.pop("process")))
        told["state"] = "over" if told["is_over"] else "running" if is_there else "gone"
        return told
    return None


def server_of(watched: Watched, *, port: int) -> ThreadingHTTPServer:
    """Return the server of a study's page, bound and not yet serving.

    Args:
        watched: The study.
        port: Where to listen; 0 takes any free port.

    Raises:
        ConfigError: The port is taken, or none.
    """

    class Handler(_Handler):
        study = watched

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as exc:
        raise ConfigError(
            f"--port: {port} cannot be listened on ({exc}); expected a free port. Leave it out to take any."
        ) from exc


class _Handler(BaseHTTPRequestHandler):
    study: Watched

    def do_GET(self) -> None:
        """Answer with the page, or with what is new."""
        path, _, query = self.path.partition("?")
        if not self._is_asked_by_this_machine():
            self._answer(HTTPStatus.FORBIDDEN, b"This page is asked for by its loopback address.", _JSON)
        elif path == "/":
            self._answer(HTTPStatus.OK, self.study.page().encode("utf-8", "backslashreplace"), _HTML)
        elif path == NEWS:
            known = query.removeprefix("known=")
            news = self.study.news(int(known) if known.isdecimal() else -1)
            self._answer(HTTPStatus.OK, json.dumps(news).encode(), _JSON)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"Nothing is here; the page is at /.", _JSON)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page that asks every few seconds would fill the terminal."""

    def _is_asked_by_this_machine(self) -> bool:
        """Refuse a page of another site whose name was made to point here."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        return host in (HOST, "localhost")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        headers: Mapping[str, str] = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)


class WatchStudy(ConsoleCommand):
    """Show a study's page while it runs."""

    name = "watch"
    summary = "show a study's page in a browser while it runs"
    description = (
        "Serve the page of a study (report.html) on loopback, refreshed while the study runs: devices, what "
        "runs, the leaderboard so far, the time left. It reads and never changes the study."
    )

    def declare(self, parser: ArgumentParser) -> None:
        """Declare the study's folder and the port."""
        parser.add_argument("study", type=Path, help="the study's folder, such as outputs/tune_cpu-cpu")
        parser.add_argument("--port", type=int, default=0, help="default: any free one")

    def run(self, options: Namespace, console: Console) -> int:
        """Print the address, and serve until Ctrl-C."""
        with server_of(Watched(options.study), port=options.port) as server:
            console.print(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)", markup=False)
            console.file.flush()
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
        return OK
