"""Containers that we started: found again by their label, whoever started them has died, and ended.

A container is no child of the program that asked for it: with docker a daemon is its parent, with podman a
monitor that outlives its client. So ending the client ends nothing. What finds it again is a label that no
other container has; a name proves nothing, since anybody may take it, and a container that only has our name
is never ended. Labels say besides for which outputs folder and for which owner it runs, so that a later start
finds it where supervisor and owner were both killed.

Apptainer runs a container as children of the program that started it: nothing here is needed for it.

Standard library only: the supervisor imports this.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.processes import process as processes
from sweeper.processes.process import Process

MARK = "SWEEPER_CONTAINER"
"""Environment variable of a supervised program that runs a container: its runtime and its start, as JSON."""

START_LABEL = "sweeper.start"
"""Label that one container has and no other."""
OUTPUTS_LABEL = "sweeper.outputs"
"""Label with the resolved outputs folder, as ``process.OUTPUTS_MARK`` has it."""
OWNER_LABEL = "sweeper.owner"
"""Label with the process that is to end it, as ``pid:start_time``."""
BOOT_LABEL = "sweeper.boot"
"""Label with the boot that this process belongs to."""
TRIAL_LABEL = "sweeper.trial"
"""Label with the trial's key, for people."""

ANSWER_S = 20.0
"""How long a runtime may take to answer a question, or to end a container."""

_REMOVAL_S = 10.0
_POLL_S = 0.1
_LAST_LINE_S = 1.0
_LONGEST_LINE = 300


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a runtime says to a question.

    Attributes:
        is_ok: It could answer.
        text: What it printed; where it could not answer, its own last line of why.
    """

    is_ok: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container that we asked for, whether it runs or not.

    Attributes:
        runtime: Program that runs it, such as docker.
        start: Value of its label `START_LABEL`, which is its name, too.
    """

    runtime: str
    start: str

    @classmethod
    def marked(cls, environment: Mapping[str, str]) -> Container | None:
        """Read which container a program with this environment runs; None for one that runs none."""
        return cls.read(environment.get(MARK, ""))

    @classmethod
    def read(cls, text: object) -> Container | None:
        """Read what `str` wrote; None for anything else."""
        try:
            content = json.loads(str(text))
            return cls(runtime=str(content["runtime"]), start=str(content["start"]))
        except (ValueError, RecursionError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return json.dumps({"runtime": self.runtime, "start": self.start})

    def ids(self) -> list[str] | None:
        """Return its id, in a list that is empty when it is gone; None when its runtime does not answer."""
        return _ids(self.runtime, f"{START_LABEL}={self.start}")

    def remove(self) -> bool:
        """End it by force and remove it; return whether it is gone for certain. Safe to call twice."""
        for found in self.ids() or []:
            # At once: who is removed so was asked before, or nobody is left to ask. The removal of podman
            # alone would wait for ten seconds.
            _answer((self.runtime, "kill", found))
            _answer((self.runtime, "rm", "--force", found))
        return self._is_gone_within(_REMOVAL_S)

    def _is_gone_within(self, patience_s: float) -> bool:
        """Docker removes in the background what was started with ``--rm``, and fails who asks for it, too."""
        deadline = time.monotonic() + patience_s
        while self.ids() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.ids() == []

    def state(self) -> Mapping[str, object]:
        """Return what its runtime says of it, as ``inspect`` prints it; empty when that says nothing."""
        found = self.ids()
        return next(iter(_inspected(self.runtime, found)), {}) if found else {}

    def main_process(self) -> Process | None:
        """Return the first process inside it, as this machine sees it; None when it does not run."""
        state = self.state().get("State")
        pid = state.get("Pid") if isinstance(state, Mapping) else None
        return processes.find(pid) if isinstance(pid, int) and pid > 0 else None


_MAIN: dict[Container, Process] = {}


def members(container: Container) -> list[Process]:
    """Return the living processes inside a container; empty when it does not run, or cannot be asked about.

    All of them descend from the first one: a namespace of processes has no other root.
    """
    main = _MAIN.get(container)
    if main is None or not processes.is_alive(main):
        main = container.main_process()
        if main is None:
            return []
        _MAIN[container] = main
    return [main, *processes.descendants(main.pid)]


@dataclass(frozen=True, kw_only=True)
class Abandoned:
    """A container whose owner has died.

    Attributes:
        container: Which one.
        trial: Key of its trial, for people.
    """

    container: Container
    trial: str

    def __str__(self) -> str:
        return f"container {self.container.start} of trial {self.trial} ({Path(self.container.runtime).name})"


def find_abandoned(outputs: Path, runtimes: Iterable[str]) -> list[Abandoned]:
    """Find what killed runs on this outputs folder left running in containers.

    Args:
        outputs: Folder of all studies, which the containers are labelled with.
        runtimes: Programs to ask; one that does not answer has nothing that could be found.

    Returns:
        Containers with all of our labels whose owner has died, in this boot or with an earlier one.
    """
    found = []
    for runtime in sorted(set(runtimes)):
        ids = _ids(runtime, f"{OUTPUTS_LABEL}={outputs.resolve()}") or []
        for content in _inspected(runtime, ids):
            labels = _labels(content)
            if _is_abandoned(labels):
                container = Container(runtime=runtime, start=labels[START_LABEL])
                found.append(Abandoned(container=container, trial=labels.get(TRIAL_LABEL, "")))
    return found


def _is_abandoned(labels: Mapping[str, str]) -> bool:
    try:
        owner = Process.parse(labels[OWNER_LABEL])
        is_of_this_boot = labels[BOOT_LABEL] == processes.boot_id()
    except (KeyError, ValueError):
        return False
    return START_LABEL in labels and not (is_of_this_boot and processes.is_alive(owner))


def _labels(content: Mapping[str, object]) -> Mapping[str, str]:
    config = content.get("Config")
    labels = config.get("Labels") if isinstance(config, Mapping) else None
    return labels if isinstance(labels, Mapping) else {}


def _ids(runtime: str, label: str) -> list[str] | None:
    listed = _answer((runtime, "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}"))
    return None if listed is None else listed.split()


def _inspected(runtime: str, ids: Sequence[str]) -> list[Mapping[str, object]]:
    # One by one: a container that has gone meanwhile fails the question about all others.
    answers = (_answer((runtime, "container", "inspect", found)) for found in ids)
    return [content for answer in answers if answer for content in _objects(answer)]


def _objects(text: str) -> list[Mapping[str, object]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []


def _answer(command: Sequence[str]) -> str | None:
    """Return what a runtime prints; None when it fails or does not answer in time."""
    answer = ask(command, within_s=ANSWER_S)
    return answer.text if answer.is_ok else None


def ask(command: Sequence[str], *, within_s: float) -> Answer:
    """Ask a runtime, and wait for its answer at most so long, in seconds."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(is_ok=False, text=f"no answer within {within_s:g} s")
    except (OSError, subprocess.SubprocessError) as exc:
        return Answer(is_ok=False, text=str(exc))
    if done.returncode == 0:
        return Answer(is_ok=True, text=done.stdout)
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return Answer(is_ok=False, text=(lines or [f"exit code {done.returncode}"])[-1][:_LONGEST_LINE])


def follow(
    command: Sequence[str], *, within_s: float, seen: Callable[[float, str], None], every_s: float = 10.0
) -> Answer:
    """Run what takes a runtime long, and tell how far it is.

    Args:
        command: Of the runtime.
        within_s: Waited for at most so long, seconds.
        seen: Called at once and every so often with the seconds so far and the runtime's last line, which is
            empty until it prints one.
        every_s: Seconds between two calls.

    Returns:
        The last line, and whether it went well.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as exc:
        return Answer(is_ok=False, text=str(exc))
    last: deque[str] = deque([""], maxlen=1)
    reader = threading.Thread(target=_keep_last_line, args=(process, last), daemon=True)
    reader.start()
    began_s = time.monotonic()
    try:
        while process.poll() is None:
            spent_s = time.monotonic() - began_s
            if spent_s >= within_s:
                return Answer(is_ok=False, text=f"no answer within {within_s:g} s")
            seen(spent_s, last[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=min(every_s, within_s - spent_s))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    reader.join(timeout=_LAST_LINE_S)
    is_ok = process.returncode == 0
    return Answer(is_ok=is_ok, text=last[0] or ("" if is_ok else f"exit code {process.returncode}"))


def _keep_last_line(process: subprocess.Popen[str], last: deque[str]) -> None:
    # A bar that is drawn over itself ends its lines by carriage returns, which are ends of lines here, too.
    assert process.stdout is not None
    with process.stdout as said:
        for line in said:
            if line.strip():
                last.append(line.strip()[:_LONGEST_LINE])
