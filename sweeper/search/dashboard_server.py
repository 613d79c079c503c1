"""The Optuna dashboard, served so that what it calls best keeps every bound.

optuna-dashboard 0.21 takes the best value of all complete trials, whether or not it keeps the constraints
that it draws in grey. This serves the same pages and answers, and exchanges the list of best trials in a
study's answer: the best, or the Pareto front, of those that keep every bound; none where none does. It can go
once the dashboard does so itself.

    python -m sweeper.search.dashboard_server URL --artifact-dir DIR --host HOST --port PORT
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from sweeper.goals.objectives import front
from sweeper.records import Objective
from sweeper.search import database

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_OF_A_STUDY = re.compile(r"/api/studies/\d+")


def best_trials(trials: Sequence[Mapping[str, Any]], directions: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the complete trials that keep every bound and that no other such trial beats.

    Args:
        trials: As the dashboard lists them: ``state``, ``values`` and ``constraints``, of which those above 0
            are broken.
        directions: ``maximize`` or ``minimize``, one per value.

    Returns:
        The best one, the first of equals, where there is one direction; else the Pareto front.
    """
    objectives = [Objective(metric="", direction=direction) for direction in directions]
    kept = {
        place: [float(value) for value in trial["values"]]
        for place, trial in enumerate(trials)
        if trial["state"] == "Complete" and all(share <= 0 for share in trial["constraints"])
    }
    best = [trials[place] for place in front(kept, objectives=objectives)]
    return best if len(directions) > 1 else best[:1]


def keeping_bounds(application: Wsgi) -> Wsgi:
    """Exchange the best trials in what the dashboard answers about a study."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or not _OF_A_STUDY.fullmatch(environ["PATH_INFO"]):
            return application(environ, start_response)
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[0]
        told: dict[str, Any] = {}
        first = int(after) if after.isdecimal() else 0

        def keep(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], None]:
            told.update(status=status, headers=headers)
            return lambda _: None

        # A page that is open asks for new trials only; which is best depends on all.
        whole = b"".join(application({**environ, "QUERY_STRING": "after=0"}, keep))
        content = _exchanged(whole, after=first) if told["status"].startswith("200") else whole
        others = [(name, value) for name, value in told["headers"] if name.lower() != "content-length"]
        start_response(told["status"], [*others, ("Content-Length", str(len(content)))])
        return [content]

    return answer


def _exchanged(content: bytes, *, after: int) -> bytes:
    study = json.loads(content)
    if not study["is_preferential"]:
        study["best_trials"] = best_trials(study["trials"], study["directions"])
    study["trials"] = study["trials"][after:]
    return json.dumps(study).encode()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log no request: a page that is open asks every few seconds."""


def main(arguments: Sequence[str]) -> None:
    """Serve until the process is ended."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    parser = argparse.ArgumentParser(prog="python -m sweeper.search.dashboard_server")
    parser.add_argument("storage")
    parser.add_argument("--artifact-dir", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    application = wsgi(
        database.open_storage(options.storage), artifact_store=FileSystemArtifactStore(options.artifact_dir)
    )
    with make_server(
        options.host, options.port, keeping_bounds(application), server_class=_Server, handler_class=_Quiet
    ) as server:
        server.serve_forever()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
