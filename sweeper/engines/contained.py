"""A launched engine in its container: what is started for it, and how it is proven ours."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sweeper.engines import containers
from sweeper.engines.endpoint import Endpoint
from sweeper.errors import MeasurementError
from sweeper.processes import ports
from sweeper.processes.supervisor import Program
from sweeper.records import FailureClass, Placement, TrialSpec
from sweeper.text import trial_files
from sweeper.topology.shown_devices import shown_devices


def inside(
    spec: TrialSpec, placement: Placement, command: Sequence[str], env: Mapping[str, str], *, folder: Path
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command that runs an engine in its container, and the environment of that command."""
    container = spec.engine.container
    assert container is not None
    # An engine that is run by an interpreter is given a program of this machine that asks the image's.
    program = container.python if command[0] == spec.engine.python else command[0]
    caches = [
        value
        for name, value in env.items()
        if value != os.environ.get(name) and name.endswith(("_DIR", "_ROOT")) and Path(value).is_absolute()
    ]
    for cache in caches:
        trial_files.make_folder(Path(cache))
    inside = containers.run(
        container,
        [program, *command[1:]],
        environment=env,
        surroundings=os.environ,
        folder=folder,
        writable=caches,
        devices=shown_devices(spec.platform, placement.devices),
    )
    return inside.command, inside.environment


def is_unseen(process: Program, port: int) -> bool:
    """Whether a server listens in a container of a user whose files we may not read, such as root's."""
    is_inside = process.container is not None
    return is_inside and bool(process.pids()) and ports.is_listened_on(port)


def prove_key(endpoint: Endpoint, port: int, *, log_path: str | None) -> None:
    """Check that a server knows our key and no other: nobody else was given it.

    Raises:
        MeasurementError: It takes any key, or not ours, or was given none.
    """
    if not endpoint.api_key:
        raise MeasurementError(
            f"engine: port {port} is listened on in a container whose processes this user may not look into, "
            "and the engine has no key that would prove it ours; expected one of both. Run it with a runtime "
            "that needs no root (podman, apptainer), or start the sweeper as root.",
            failure=FailureClass.WRONG_ENGINE,
            log_path=log_path,
        )
    stranger = replace(endpoint, api_key=secrets.token_urlsafe(24)).get("/v1/models").status
    ours = endpoint.get("/v1/models").status
    if stranger not in (401, 403) or ours != 200:
        raise MeasurementError(
            f"engine: port {port} answers a wrong key with status {stranger} and ours with {ours}; expected "
            "401 and 200, which prove that we started it. End the other program.",
            failure=FailureClass.WRONG_ENGINE,
            log_path=log_path,
        )
