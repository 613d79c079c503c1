"""What the Optuna dashboard shows of a study: its note, its charts, and the command that serves them.

The dashboard reads a study's database and a folder of files next to it (*artifacts*). It greys out what
breaks a constraint and yet counts it: its "best trial", and its best trials of several objectives, may break
a bound. So it is served with those corrected (``dashboard_server``), and the note, which is read wherever the
database is opened, says so and names the answer of the report.

A chart of a trial has to be there before the trial's end is reported: Optuna refuses any change after it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from sweeper.errors import ConfigError
from sweeper.records import Objective
from sweeper.search import database
from sweeper.text import confidential
from sweeper.text.tables import markdown_table

HOST = "127.0.0.1"
"""Loopback only: the dashboard has no login, and everybody who reaches it can delete a study."""

DEFAULT_PORT = 8080

CAVEAT = (
    "Grey trials break a bound. `python -m sweeper dashboard` calls only those best that keep every bound; "
    "opened otherwise, the dashboard looks at no bound for its best trial, and its Pareto front leaves out "
    "what a grey trial beats. The answer that keeps to the bounds stands in the report."
)


def artifacts_folder(outputs: Path) -> Path:
    """Return the folder of all studies' artifacts, next to their database."""
    return outputs / "artifacts"


def attach(
    target: optuna.Study | optuna.trial.FrozenTrial,
    files: Iterable[Path],
    *,
    storage: optuna.storages.BaseStorage,
    folder: Path,
) -> None:
    """Show files next to a study or a trial that is still running.

    A file of a name that is there already takes its place, so that a chart drawn anew is not shown twice.

    Args:
        target: The study or the running trial.
        files: PNG charts and the like; those that do not exist are left out.
        storage: The storage that the target is of.
        folder: Where artifacts are kept; it is made.
    """
    # A chart that cannot be kept, on a full disk, is no reason to lose a trial's numbers.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        store = FileSystemArtifactStore(str(folder))
        known = {meta.filename: meta.artifact_id for meta in get_all_artifact_meta(target, storage=storage)}
        for path in filter(Path.is_file, files):
            if path.name in known:
                with path.open("rb") as content:
                    store.write(known[path.name], content)
            else:
                upload_artifact(
                    artifact_store=store, file_path=str(path), study_or_trial=target, storage=storage
                )


def show_study(url: str, name: str, *, note: str, files: Sequence[Path], folder: Path) -> None:
    """Put a finished study's note and charts on its page.

    Args:
        url: The study's database.
        name: The study's name.
        note: Markdown, from ``note``.
        files: Its charts.
        folder: Where artifacts are kept.

    Raises:
        StoreError: The database does not answer.
    """
    from optuna_dashboard import save_note

    storage = database.open_storage(url)
    ownership = database.Ownership(storage, name)
    try:
        with database.answering(url):
            study = optuna.load_study(study_name=name, storage=storage)
            attach(study, files, storage=storage, folder=folder)
            save_note(study, note)
    finally:
        ownership.release()


def note(
    *,
    question: str,
    is_simulated: bool,
    objectives: Sequence[Objective],
    bounds: Sequence[str],
    environment: str,
    results: str,
    source: str,
    answers: Sequence[str] = (),
) -> str:
    """Write the note of a study's page as Markdown.

    Args:
        question: What the study asks.
        is_simulated: Whether its numbers come from a model of a machine.
        objectives: What is better.
        bounds: What a setting has to keep, in words.
        environment: On what and with what it runs: a Markdown table.
        results: Where its results lie.
        source: Where the question comes from; may be empty.
        answers: What the report found best, a sentence each; empty before the end.
    """
    wanted = [f"{goal.direction} `{goal.name}`" for goal in objectives]
    kept = [f"keep `{bound}`" for bound in bounds]
    parts = [
        f"# {question}",
        "**Simulated: no GPU was measured.**" if is_simulated else "",
        "\n".join(f"- {line}" for line in wanted + kept),
        f"> {CAVEAT}" if bounds else "",
        "\n".join(["## Best by the report", "", *(f"- {answer}" for answer in answers)]) if answers else "",
        f"## Environment\n\n{environment}",
        "## Where to look\n\n"
        "- A failed trial says why under *User Attributes*, in `fail_reason`.\n"
        "- A finished trial has its latencies as a chart under *Artifacts*; the study has its own there.\n"
        f"- Results: `{results}` (Parquet, charts, `report.md`). Source: {source or 'none given'}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(facts: Mapping[str, str]) -> str:
    """Lay out facts by name as a Markdown table."""
    return markdown_table(("what", "value"), facts.items())


def command(url: str, *, outputs: Path, port: int) -> list[str]:
    """Return the command line that serves the dashboard of a database on loopback.

    Raises:
        ConfigError: The URL holds a password, which every user of the machine could read in the list of
            processes.
    """
    if confidential.has_password(url):
        raise ConfigError(
            f"--storage: '{confidential.masked(url)}' holds a password, which would stand in the list of "
            "processes; expected none. Leave it out, and give it in PGPASSWORD or ~/.pgpass."
        )
    places = ["--artifact-dir", str(artifacts_folder(outputs)), "--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "sweeper.search.dashboard_server", url, *places]


def choose_port(wanted: int | None) -> int:
    """Return the port to serve on: the wanted one, else the usual one, or any that is free.

    Raises:
        ConfigError: The wanted port is taken, or none.
    """
    for port in (DEFAULT_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            # As the server does: connections that are closing do not keep it from the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError) as exc:
                if wanted is not None:
                    raise ConfigError(
                        f"--port: {wanted} cannot be listened on ({exc}); expected a free port. "
                        "Choose another, or leave it out."
                    ) from exc
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"{HOST}: has no free port. End what listens there.")
