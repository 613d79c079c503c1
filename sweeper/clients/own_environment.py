"""The environment that a client of another project lies in: made by a command, found, and asked its version.

Such a client has requirements of its own, which must not meet those of the sweeper or of the engine. It is
installed once, over the network; from then on nothing is fetched.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version

from sweeper.engines.environment import find_interpreter
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, LM_EVAL, ClientKind, ClientPackage
from sweeper.processes import virtual_environment
from sweeper.processes.virtual_environment import find_uv

_STAMP = "sweeper-client.json"
_PROBE_TIMEOUT_S = 60.0
_PROBE = """
import importlib.metadata as metadata, json, sys
try:
    print(json.dumps(metadata.version(sys.argv[1])))
except metadata.PackageNotFoundError:
    print("null")
"""


def installable() -> tuple[str, ...]:
    """Return the names of the clients that are installed into an environment of their own."""
    return tuple(_kinds())


def kind_named(name: str) -> ClientKind:
    """Return what has an environment of its own by its name, which is one of ``installable``."""
    return _kinds()[name]


def package_of(kind: ClientKind) -> ClientPackage:
    """Return what a client is installed from.

    Raises:
        ConfigError: It needs no environment of its own.
    """
    if kind.package is None:
        raise ConfigError(
            f"install-client: '{kind.name}' needs no environment of its own; expected one of "
            f"{', '.join(installable())}. Choose one of them."
        )
    return kind.package


def install(
    kind: ClientKind, folder: Path | None = None, *, release: str | None = None, installer: str = "auto"
) -> Path:
    """Make the environment of a client, or find it made before.

    Args:
        kind: The client.
        folder: The environment, made when absent; None takes the usual one.
        release: What is installed; None takes the release that was tried here.
        installer: ``uv``, ``pip``, or ``auto``: uv where there is one.

    Returns:
        The environment's interpreter.

    Raises:
        ConfigError: The release is too old or none, there is no such installer, or a step failed.
    """
    package = package_of(kind)
    release = release or package.release
    check_version(kind, release, where="install-client --release")
    extras = f"[{package.extras}]" if package.extras else ""
    uv = virtual_environment.chosen_uv(installer, uv=find_uv())
    folder = (folder or Path(package.folder)).absolute()
    python, stamp = folder / "bin" / "python", folder / _STAMP
    wanted = {"client": kind.name, "release": release}
    if python.exists() and _read(stamp) == wanted:
        return python
    stamp.unlink(missing_ok=True)
    # uv needs no pip inside, and making one takes a while.
    virtual_environment.make(folder, with_pip=uv is None)
    virtual_environment.run(
        install_command(
            python,
            f"{package.distribution}{extras}=={release}",
            uv=uv,
            links=virtual_environment.find_links(),
        ),
        of=f"install-client {kind.name}",
        size=package.size,
    )
    stamp.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return python


def install_command(python: Path, requirement: str, *, uv: str | None, links: str | None) -> tuple[str, ...]:
    """Return what installs a requirement into an environment.

    Args:
        python: Interpreter of the environment.
        requirement: Such as ``aiperf==0.13.0``.
        uv: Path of uv; None takes the environment's pip.
        links: Where pip is set to look for wheels besides the index; None for nowhere.
    """
    if uv is None:
        return (str(python), "-m", "pip", "install", requirement)
    # uv does not read pip's settings.
    source = [word for place in (links or "").split() for word in ("--find-links", place)]
    if not links and "--torch-backend" in virtual_environment.output((uv, "pip", "install", "--help")):
        # No client computes on a device.
        source = ["--torch-backend", "cpu"]
    return (uv, "pip", "install", "--python", str(python), *source, requirement)


def find_python(kind: ClientKind, given: str | None, *, surroundings: Mapping[str, str] = os.environ) -> str:
    """Find the interpreter of a client's environment.

    Looked at in this order: ``client.python``, the variable that the client's declaration names, and the
    folder that ``install-client`` makes.

    Raises:
        ConfigError: None of them is there; the message has the command that makes one.
    """
    package = package_of(kind)
    if given:
        return given
    if surroundings.get(package.variable):
        return surroundings[package.variable]
    usual = Path(package.folder) / "bin" / "python"
    if usual.exists():
        # Not resolved: a virtual environment's interpreter is a link, and the link is what names it.
        return str(usual.absolute())
    raise ConfigError(
        f"{package.asked} {kind.name}, and it is not installed; expected {usual}, or an interpreter named by "
        f"{package.key}.python or {package.variable}. Install it into an environment of its own: "
        f"{_remedy(kind)}"
    )


def version_at(kind: ClientKind, python: str) -> str:
    """Return the version of a client that an interpreter has.

    Raises:
        ConfigError: The interpreter is missing or does not run, the client is not there, or too old.
    """
    key = f"{package_of(kind).key}.python"
    found = _version(python, package_of(kind).distribution, key)
    if found is None:
        raise ConfigError(
            f"{key}: {python} has no {package_of(kind).distribution}; expected it in that "
            f"environment. Install it there, or into one of its own: {_remedy(kind)}"
        )
    check_version(kind, found, where=f"{key}: {python}")
    return found


def check_version(kind: ClientKind, found: str, *, where: str) -> None:
    """Check that a version is one whose configuration and report are known.

    Raises:
        ConfigError: It is older, or no version.
    """
    package = package_of(kind)
    try:
        is_known = Version(found) >= Version(package.since)
    except InvalidVersion:
        is_known = False
    if not is_known:
        raise ConfigError(
            f"{where}: has {package.distribution} {found}; expected {package.since} or later, whose "
            f"configuration and report are known here. Install that release: {_remedy(kind)}"
        )


def _kinds() -> dict[str, ClientKind]:
    """Return them by name; clients of other packages are known once they are asked for."""
    return {kind.name: kind for kind in (*CLIENTS.values(), LM_EVAL) if kind.package is not None}


@functools.cache
def _version(python: str, distribution: str, key: str) -> str | None:
    path = find_interpreter(python, key=key)
    try:
        answer = subprocess.run(
            [path, "-c", _PROBE, distribution],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise ConfigError(
            f"{key}: {python} does not run a short program ({exc}); expected a working Python. "
            f"Name the interpreter of the environment that {distribution} is installed in."
        ) from exc
    return None if found is None else str(found)


def _remedy(kind: ClientKind) -> str:
    return f"python -m sweeper install-client {kind.name}"


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
