"""A client of another project, which lies in an environment of its own and is run once for each load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TypeVar

from sweeper.clients import own_environment, plausibility
from sweeper.clients.measuring import Load, ProgramClient
from sweeper.engines import Cancelled, Server
from sweeper.engines.environment import client_environment, find_interpreter
from sweeper.kinds import CLIENTS, ENGINES
from sweeper.processes import process
from sweeper.records import LoadPoint, Placement, TrialSpec
from sweeper.text import trial_files

Sent = TypeVar("Sent")


class ForeignClient(ProgramClient[Sent]):
    """Knows its interpreter and version, and the files of a load beside its raw JSON."""

    def __init__(self, spec: TrialSpec, placement: Placement) -> None:
        """Open one for a trial; nothing is started yet.

        Raises:
            ConfigError: The client is not installed, or too old.
        """
        super().__init__(spec, placement)
        kind = CLIENTS[spec.client.kind]
        python = own_environment.find_python(kind, spec.client.python)
        self._version = own_environment.version_at(kind, python)
        self._python = find_interpreter(python, key="client.python")

    def warm_up(self, server: Server, point: LoadPoint, *, prompts: int, cancelled: Cancelled) -> float:
        """Send some requests at once whose numbers are thrown away; return the seconds it took."""
        took_s = super().warm_up(server, point, prompts=prompts, cancelled=cancelled)
        for path in (self._folder / "raw").glob(f"{self._spec.attempt}-warm-up.*"):
            _remove(path)
        return took_s

    def _environment(self) -> dict[str, str]:
        """Return the environment of a load's program, without a secret."""
        return client_environment(
            self._spec, surroundings=os.environ, python=self._python, owner=process.current(), stub=None
        )

    def _heeds_ignore_eos(self) -> bool:
        return ENGINES[self._spec.engine.kind].heeds_ignore_eos

    def _check_version(self, told: object, *, log_path: str) -> None:
        """Check that a report is of the client that was found.

        Raises:
            MeasurementError: It is of another version.
        """
        if told != self._version:
            plausibility.refuse(
                f"it is of version {told}, and {self._version} was found when the study was planned",
                log_path=log_path,
            )

    def _beside(self, load: Load, name: str) -> Path:
        """Return the path of a file of a load beside its raw JSON."""
        return self._raw(load).with_name(f"{load.name}.{name}")

    def _emptied(self, load: Load, name: str) -> Path:
        """Return a folder of a load beside its raw JSON, empty of what an earlier attempt left."""
        folder = self._beside(load, name)
        shutil.rmtree(folder, ignore_errors=True)
        return trial_files.make_folder(folder)

    def _remove(self, load: Load, *names: str) -> None:
        """Remove files and folders of a load that nothing needs any more."""
        for name in names:
            _remove(self._beside(load, name))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
