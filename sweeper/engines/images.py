"""Container images: what runs them, what they hold, and their interpreters as programs of this machine.

An image is known by its digest, since a tag may mean another image tomorrow. It is the digest of its registry
where there is one, which ``docker pull NAME@sha256:...`` takes, else that of the local image.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from sweeper.engines import containers
from sweeper.engines.containers import APPTAINER, RUNTIMES
from sweeper.engines.environment import IMAGE_FILE
from sweeper.errors import ConfigError
from sweeper.processes.containers import ask, follow
from sweeper.records import ContainerSpec, EngineSpec, content_key
from sweeper.text import trial_files
from sweeper.text.durations import duration_text
from sweeper.text.output import Stream
from sweeper.text.printable import legible

_ANSWER_S = 60.0
_PULL_S = 4 * 3600.0
_ROOT = Path(__file__).resolve().parents[2]
_BLOCK = 2**20


def find_runtime(given: str | None) -> str:
    """Return the program that runs images: the named one, else the first of `RUNTIMES` that works.

    Raises:
        ConfigError: It is not installed, or is installed and does not run, which are told apart.
    """
    named = (given,) if given else RUNTIMES
    problems = []
    for runtime in named:
        problem = why_unusable(runtime)
        if problem is None:
            return runtime
        problems.append(problem)
    where = "engine.container_runtime" if given else "engine.image"
    raise ConfigError(
        f"{where}: {'; '.join(problems)}; expected one that runs. Install or start it, or leave engine.image "
        "out to run the engine as a process of this machine."
    )


@functools.cache
def why_unusable(runtime: str) -> str | None:
    """Return why a runtime cannot be used, in words; None where it can."""
    if shutil.which(runtime) is None:
        return f"{runtime} is not installed"
    is_apptainer = containers.name_of(runtime) == APPTAINER
    question = (runtime, "--version") if is_apptainer else (runtime, "ps", "--quiet")
    answer = ask(question, within_s=_ANSWER_S)
    return None if answer.is_ok else f"{runtime} is installed and not running ({answer.text})"


def provided(engine: EngineSpec, *, image: str | None = None, may_pull: bool) -> EngineSpec:
    """Return an engine with its container's runtime found, its image looked up, and its interpreter written.

    Args:
        engine: With a container that names an image, unless one is given.
        image: Reference of the image; None takes the container's own.
        may_pull: Whether an image that is not here is fetched.

    Raises:
        ConfigError: There is no runtime, or no such image.
    """
    assert engine.container is not None
    wanted = image or engine.container.image
    runtime = find_runtime(engine.container.runtime)
    inspected = _inspected(str(wanted), runtime, may_pull=may_pull)
    container = replace(
        engine.container,
        image=wanted,
        runtime=runtime,
        digest=_digest(str(wanted), runtime, inspected),
        python_path=read_python_path(inspected),
    )
    return with_mounts(replace(engine, container=container), container.mounts)


def with_mounts(engine: EngineSpec, mounts: Iterable[str]) -> EngineSpec:
    """Return an engine whose container may read more files and folders of this machine."""
    assert engine.container is not None
    known = (*engine.container.mounts, *(str(Path(mount).absolute()) for mount in mounts), str(_ROOT))
    container = replace(engine.container, mounts=tuple(dict.fromkeys(known)))
    return replace(engine, container=container, python=str(write_python(container)))


def digest_of(image: str, runtime: str, *, may_pull: bool) -> str:
    """Return the digest of an image, as ``sha256:`` and 64 hex digits.

    Raises:
        ConfigError: It is not on this machine and cannot be fetched, or must not be.
    """
    return _digest(image, runtime, _inspected(image, runtime, may_pull=may_pull))


def _inspected(image: str, runtime: str, *, may_pull: bool) -> str:
    """Return what a runtime tells of an image; nothing where an image is a file."""
    if containers.name_of(runtime) == APPTAINER:
        return ""
    answer = ask((runtime, "image", "inspect", image), within_s=_ANSWER_S)
    if not answer.is_ok:
        _pull(image, runtime, may_pull=may_pull)
        answer = ask((runtime, "image", "inspect", image), within_s=_ANSWER_S)
    return answer.text if answer.is_ok else ""


def _digest(image: str, runtime: str, inspected: str) -> str:
    if containers.name_of(runtime) == APPTAINER:
        return _digest_of_file(image)
    digest = read_digest(inspected)
    if digest is None:
        raise ConfigError(
            f"engine.image: {runtime} tells no digest of {image}; expected it from '{runtime} image inspect "
            f"{image}'. Look at what that prints."
        )
    return digest


def read_digest(inspected: str) -> str | None:
    """Read the digest out of what ``image inspect`` prints: the registry's, else the image's own."""
    try:
        content = json.loads(inspected)[0]
        digests = [name.partition("@")[2] for name in content.get("RepoDigests") or ()]
        own = str(content["Id"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return min(filter(None, digests), default=f"sha256:{own.removeprefix('sha256:')}")


def read_python_path(inspected: str) -> tuple[str, ...]:
    """Read the folders that an image itself puts on PYTHONPATH out of what ``image inspect`` prints."""
    try:
        told = dict(word.split("=", 1) for word in json.loads(inspected)[0]["Config"]["Env"] or ())
    except (ValueError, LookupError, TypeError, AttributeError):
        return ()
    return tuple(filter(None, told.get("PYTHONPATH", "").split(os.pathsep)))


def _pull(image: str, runtime: str, *, may_pull: bool) -> None:
    command = (runtime, "pull", image)
    if not may_pull:
        raise ConfigError(
            f"engine.image: {image} is not on this machine, and a plan fetches nothing; expected it there, "
            f"for what it holds decides what can run. Fetch it: {shlex.join(command)}"
        )
    answer = follow(command, within_s=_PULL_S, seen=functools.partial(_say_pulling, image, runtime))
    if not answer.is_ok:
        raise ConfigError(
            f"engine.image: {image} is not on this machine, and '{shlex.join(command)}' failed: "
            f"{answer.text}; expected one of both. Correct the name, log in to its registry, or load it from "
            f"a file ({runtime} load)."
        )


def _say_pulling(image: str, runtime: str, spent_s: float, line: str) -> None:
    """Report a pull on standard error: it comes before anything that a study prints, and takes minutes."""
    told = f"for {duration_text(spent_s)}: {legible(line)}" if line else "it is not on this machine"
    said = Stream("stderr")
    said.write(f"engine.image: {runtime} pulls {image}, {told} (Ctrl-C stops it)\n")
    said.flush()


@functools.cache
def _digest_of_file(image: str) -> str:
    path = Path(image)
    if not path.is_file():
        raise ConfigError(
            f"engine.image: {image} is no file; expected an image of Apptainer, such as vllm.sif, whose "
            f"content can be told. Make one: apptainer pull vllm.sif docker://{image.removeprefix('docker://')}"
        )
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return f"sha256:{content.hexdigest()}"


def write_python(container: ContainerSpec) -> Path:
    """Write a program of this machine that is the interpreter of an image; return its path.

    It lies with the user's caches, is the same for the same content, and holds no secret.
    """
    content = {"container": asdict(container), "foreign_paths": os.environ.get("PYTHONPATH", "")}
    folder = _cache() / "images" / content_key(content)
    described = folder / IMAGE_FILE
    bootstrap = (
        f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from sweeper.engines import image_python; "
        "image_python.main()"
    )
    words = (sys.executable, "-I", "-S", "-c", bootstrap, str(described))
    trial_files.write(described, json.dumps(content, indent=1))
    hub = containers.hub_folder(os.environ)
    if hub is not None:
        # Only what is there can be mounted, and what is fetched without would go with the container.
        with contextlib.suppress(OSError):
            Path(hub).mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    trial_files.write(script, f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return script


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME")
    if not home:
        return Path(tempfile.gettempdir()) / f"mi300x-sweeper-{os.getuid()}"
    return Path(home) / ("" if os.environ.get("XDG_CACHE_HOME") else ".cache") / "mi300x-sweeper"
