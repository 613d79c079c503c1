"""The interpreter of an image, as a program of this machine: what is asked of it is asked inside.

Who asks an interpreter a question, or runs a load generator with it, needs to know nothing of containers: the
path of a small script is the interpreter (``images`` writes it), and the script runs this. It passes on
arguments, standard streams, signals and the exit code. Pipes that it inherits, which no runtime passes on, it
carries through named pipes in the working folder, so that they have the same numbers inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeper.engines import containers
from sweeper.processes import process as processes
from sweeper.processes.containers import Container
from sweeper.records import ContainerSpec

_CHUNK = 65536
_OPEN = Path(__file__).with_name("open_pipes.py")


def main() -> None:
    """Run the interpreter of the image that the first argument describes with the other arguments."""
    described, *arguments = sys.argv[1:]
    content = json.loads(Path(described).read_text(encoding="utf-8"))
    spec = _container(content["container"])
    pipes = list(_inherited_pipes())
    with tempfile.TemporaryDirectory(prefix=".pipes-", dir=Path.cwd() if pipes else None) as folder:
        relays = [_Relay(fd, Path(folder)) for fd in pipes]
        marked = Container.marked(os.environ)
        outputs = os.environ.get(processes.OUTPUTS_MARK)
        inside = containers.run(
            spec,
            [*_opening(spec.python, relays), spec.python, *arguments],
            environment=os.environ,
            # What the program was given beside these can be told by its family only.
            surroundings={**os.environ, "PYTHONPATH": str(content["foreign_paths"])},
            folder=Path.cwd(),
            writable=[outputs] if outputs else [],
            start=None if marked is None else marked.start,
        )
        code = _run(inside, relays, reads=not sys.stdin.closed)
    # Relays may still wait for pipes that nobody will open any more.
    sys.stdout.flush()
    os._exit(code)


def _container(content: Mapping[str, Any]) -> ContainerSpec:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return ContainerSpec(**values)


class _Relay:
    """One inherited pipe, and the named pipe that stands for it inside."""

    def __init__(self, fd: int, folder: Path) -> None:
        self.fd = fd
        self.is_read = _is_readable(fd)
        self.path = folder / str(fd)
        os.mkfifo(self.path, mode=0o600)

    @property
    def words(self) -> list[str]:
        """What opens it inside: its number, whether it is read, and its path."""
        return [str(self.fd), "r" if self.is_read else "w", str(self.path)]

    def start(self) -> None:
        threading.Thread(target=self._carry, daemon=True).start()

    def _carry(self) -> None:
        if self.is_read:
            _pump(self.fd, os.open(self.path, os.O_WRONLY))
        else:
            _pump(os.open(self.path, os.O_RDONLY), self.fd)


def _pump(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        while part := os.read(source, _CHUNK):
            while part:
                part = part[os.write(target, part) :]
    for fd in (source, target):
        with contextlib.suppress(OSError):
            os.close(fd)


def _inherited_pipes() -> Iterator[int]:
    for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if fd > 2 and stat.S_ISFIFO(os.fstat(fd).st_mode):
                yield fd


def _is_readable(fd: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").split("flags:")[1].split()[0]
    return int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def _opening(python: str, relays: list[_Relay]) -> list[str]:
    """Return what opens the pipes under their numbers, and goes on as the command that is put after it."""
    if not relays:
        return []
    words = [word for relay in relays for word in relay.words]
    return [python, str(_OPEN), str(len(words)), *words]


def _run(inside: containers.Inside, relays: list[_Relay], *, reads: bool) -> int:
    words = list(inside.command)
    if containers.name_of(words[0]) != containers.APPTAINER and reads:
        words.insert(2, "--interactive")
    program = subprocess.Popen(words, env=dict(inside.environment))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: program.send_signal(number))
    for relay in relays:
        relay.start()
    code = program.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
