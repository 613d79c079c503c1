"""Runs one program so that nothing of it outlives its owner.

A server is a tree of processes (vLLM: API server, engine core, workers), and killing its root orphans
the rest. So between the owner and the program stands a small process, started from this same file:

* it is no child of its owner: an intermediate process between them only passes on how it ended. Ray
  kills the direct children of a worker that dies (seen with Ray 2.60), and with the supervisor gone
  nothing would end the tree; now that hits the intermediate process, and the supervisor sees the death
  itself;
* it leads a session of its own and adopts orphans below it (child subreaper), so the tree stays whole;
* it holds one end of a pipe whose other end only the owner has: when the owner dies, however it dies,
  the kernel closes the pipe, and the supervisor ends the tree and itself;
* the program dies with the supervisor (parent-death signal); what is left of the tree then is found by
  the start file (``processes.orphans``), and by the owner at once, if it still lives;
* when the program ends by itself, the supervisor ends its remains and passes its exit code on;
* the program gets a folder for temporary files of its own, which goes with it;
* what the program runs in a container (``containers``) is ended with it, and before the remains of the tree:
  to end the client of a container runtime ends no container;
* a program whose device mask is not exactly the expected one (``masks``) is not executed; what a started one
  really has, as the kernel shows it, is written into the start file.

No parent-death signal ties the supervisor to its owner: that signal comes when the starting *thread*
ends, and trials may run in threads. Pipe and owner's start time do the same without that trap.

It imports nothing beyond the standard library and starts within a tenth of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Protocol

from sweeper.errors import EngineError
from sweeper.processes import masks
from sweeper.processes import process as processes
from sweeper.processes.containers import Container
from sweeper.processes.orphans import Launch
from sweeper.processes.process import Process
from sweeper.records import FailureClass

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# How often the supervisor looks whether its owner lives; the pipe shows it at once unless a fork holds it.
_OWNER_CHECK_S = 1.0
# What the owner allows the supervisor beyond the grace before it ends the tree itself.
_MARGIN_S = 5.0
# The same where it ends a container, which takes a runtime seconds.
_CONTAINER_MARGIN_S = 45.0
LARGEST_LOG = 4 * 2**30
"""Bytes that a program may write to its log; who writes more fills the disk of everybody."""
# What is kept of such a log.
_KEPT_LOG = 64 * 2**20
LAUNCH_S = 60.0
"""How long a supervisor may take to be up, unless told otherwise: usually a tenth of a second."""
_NOT_STARTED = 127
# What the kernel takes for it even on a machine whose processors are all busy.
_EXECUTED_WITHIN_S = 5.0
_REFUSED = 125
# A socket's path has at most 107 characters, and vLLM's in this folder take 37 of them ("/" and a UUID).
_LONGEST_TEMPORARY = 50
_SOCKETS_FIT = Path("/tmp")

_BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from sweeper.processes import supervisor; supervisor.main()"
)


class Program(Protocol):
    """What runs for a trial: a process of its own under supervision, or a fork of one that is kept."""

    @property
    def command(self) -> tuple[str, ...]:
        """Its command line, without secrets; empty where that is known to its owner alone."""
        ...

    @property
    def container(self) -> Container | None:
        """What it runs in a container; None for a program that runs none."""
        ...

    def poll(self) -> int | None:
        """Exit code, 128 + n when signal n ended it; None while it runs."""
        ...

    def floods(self) -> bool:
        """Whether it has written more to its log than any sound program does."""
        ...

    def pids(self) -> set[int]:
        """Ids of its living processes."""
        ...

    def members(self) -> list[Process]:
        """Its living processes."""
        ...

    def stop(self) -> float:
        """End it and everything it started; return the seconds it took. Safe to call twice."""
        ...


class Supervised:
    """A program under supervision, seen from its owner.

    Use it as a context manager, or call `stop`: both leave no process of it behind.

    Attributes:
        launch: Which process it is, of whom, and where its output goes.
        temporary: Folder for its temporary files, which goes with it.
    """

    def __init__(
        self, supervisor: subprocess.Popen[bytes], launch: Launch, *, grace_s: float, temporary: Path
    ) -> None:
        self._supervisor = supervisor
        self._grace_s = grace_s
        self.temporary = temporary
        self.launch = launch
        self.command: tuple[str, ...] = ()

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_path: Path,
        start_file: Path,
        grace_s: float,
        launch_s: float = LAUNCH_S,
        note: Mapping[str, object] | None = None,
        pass_fds: Sequence[int] = (),
        also_for: Process | None = None,
    ) -> Supervised:
        """Start a program under supervision.

        Args:
            command: Program and arguments; visible to every user of the machine, so without secrets.
            env: Its whole environment.
            cwd: Its working directory.
            log_path: File that takes its stdout and stderr; begun anew.
            start_file: Written next to the log: which process runs, since when, for which owner.
            grace_s: Seconds between SIGTERM and SIGKILL when it is ended.
            launch_s: Seconds that the supervisor itself may take to be up.
            note: Further facts for the start file (port, devices, trial key).
            pass_fds: File descriptors that the program inherits.
            also_for: Another process without which the program is to end, besides this one.

        Raises:
            EngineError: The supervisor itself could not be started, or not in time.
        """
        log = log_path.resolve()
        log.parent.mkdir(parents=True, exist_ok=True)
        root = Path(__file__).resolve().parents[2]
        arguments = [
            *("--log", str(log), "--start-file", str(start_file.resolve()), "--cwd", str(cwd)),
            *(
                "--grace-s",
                str(grace_s),
                "--owner",
                str(processes.current()),
                "--note",
                json.dumps(note or {}),
            ),
            *(word for fd in pass_fds for word in ("--pass-fd", str(fd))),
            *(() if also_for is None else ("--also-for", str(also_for))),
        ]
        temporary = _temporary_folder(env)
        report, told = os.pipe()
        arguments += ["--report-fd", str(told), "--temporary", str(temporary)]
        try:
            with log.open("wb") as output:
                # -I and -S: neither the program's PYTHON* variables nor site-packages concern the supervisor.
                supervisor = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(root), *arguments, "--", *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**env, "TMPDIR": str(temporary)},
                    start_new_session=True,
                    pass_fds=(*pass_fds, told),
                )
        except OSError as exc:
            os.close(report)
            shutil.rmtree(temporary, ignore_errors=True)
            raise EngineError(
                f"supervisor: {exc}; expected {sys.executable} to start. Look for limits on processes.",
                failure=FailureClass.INFRASTRUCTURE,
            ) from exc
        finally:
            os.close(told)
        started = _report(report, within_s=launch_s)
        if started is None:
            # It has started nothing yet, or is about to and will see at once that it is no longer wanted.
            assert supervisor.stdin is not None
            supervisor.stdin.close()
            _end_child(supervisor, within_s=_MARGIN_S)
            shutil.rmtree(temporary, ignore_errors=True)
            raise EngineError(
                f"supervisor: not up after {launch_s:g} s; expected it within a second or two. Look for a "
                "machine that is out of memory or processors, or raise engine.launch_timeout_s.",
                failure=FailureClass.INFRASTRUCTURE,
            )
        launch = Launch(
            # A supervisor that never came up has no start time; nothing can be taken for it then.
            supervisor=Process.parse(started) if started else Process(supervisor.pid, -1),
            owner=processes.current(),
            boot=processes.boot_id(),
            log_path=str(log),
            container=Container.marked(env),
        )
        supervised = cls(supervisor, launch, grace_s=grace_s, temporary=temporary)
        supervised.command = tuple(command)
        return supervised

    def poll(self) -> int | None:
        """Exit code of the program, 128 + n when signal n ended it; None while it runs.

        An exit of the supervisor itself by signal n counts as the program's: it takes the program along.
        """
        code = self._supervisor.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def container(self) -> Container | None:
        """What it runs in a container; None for a program that runs none."""
        return self.launch.container

    def floods(self) -> bool:
        """Whether the program has written more to its log than any sound program does."""
        return floods(Path(self.launch.log_path))

    def pids(self) -> set[int]:
        """Ids of the program's living processes, without the supervisor."""
        return {process.pid for process in self.members()}

    def members(self) -> list[Process]:
        """The program's living processes, without the supervisor."""
        return [process for process in self.launch.members() if process != self.launch.supervisor]

    def stop(self) -> float:
        """End the program and everything it started; return the seconds it took. Safe to call twice."""
        began = time.monotonic()
        assert self._supervisor.stdin is not None
        # Closing our end of the pipe is the request to stop.
        self._supervisor.stdin.close()
        try:
            self._supervisor.wait(timeout=self._grace_s + self._margin_s())
        except subprocess.TimeoutExpired:
            processes.end([self.launch.supervisor], grace_s=0.0)
            _end_child(self._supervisor, within_s=_MARGIN_S)
        # The supervisor leaves nothing behind, unless it was itself killed.
        if self.launch.container is not None:
            self.launch.container.remove()
        processes.end(self.members(), grace_s=min(self._grace_s, 2.0))
        shutil.rmtree(self.temporary, ignore_errors=True)
        cut(Path(self.launch.log_path))
        return time.monotonic() - began

    def _margin_s(self) -> float:
        return _MARGIN_S if self.launch.container is None else _CONTAINER_MARGIN_S

    def __enter__(self) -> Supervised:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def floods(log_path: Path) -> bool:
    """Whether a program has written more to its log than any sound program does."""
    try:
        return log_path.stat().st_size > LARGEST_LOG
    except OSError:
        return False


def cut(log_path: Path) -> None:
    """Keep the beginning of a log that a program has flooded; any other is left as it is."""
    if floods(log_path):
        with contextlib.suppress(OSError):
            os.truncate(log_path, _KEPT_LOG)


def _report(fd: int, *, within_s: float) -> str | None:
    """Read what the supervisor says when it is up, or nothing where it ended; None when it says neither."""
    deadline = time.monotonic() + within_s
    with os.fdopen(fd, "rb", buffering=0) as told:
        text = b""
        while True:
            ready, _, _ = select.select([told], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = told.read(512)
            if not part:
                return text.decode("ascii")
            text += part


def _end_child(child: subprocess.Popen[bytes], *, within_s: float) -> None:
    """Collect our own child, by force when it does not end; one that the kernel holds is left to it."""
    for last_word in (child.kill, lambda: None):
        try:
            child.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            last_word()
        else:
            return


def main() -> None:
    """Run as the supervisor: start the program, watch it and the owner, leave nothing."""
    options = _options()
    _fork_intermediate(options)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.write(options.report_fd, str(processes.current()).encode())
    os.close(options.report_fd)
    signalled, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)

    facts = _facts(options)
    write_start_file(options.start_file, facts)
    environment = dict(os.environ)
    refusal = masks.refusal(environment)
    if refusal is not None:
        sys.stderr.write(f"supervisor: {refusal}\n")
        _end_unstarted(options, facts, _REFUSED)
    try:
        # Kept for as long as we run: when it is dropped, Popen reaps a child that has ended, and its exit
        # code is lost.
        launched = _launch(options, environment)
    except OSError as exc:
        sys.stderr.write(f"supervisor: cannot start {options.command[0]}: {exc}\n")
        _end_unstarted(options, facts, _NOT_STARTED)
    finally:
        # A copy kept here would hold the program's pipes open after its end.
        for fd in options.pass_fd:
            os.close(fd)
    program = launched.pid
    facts = {**facts, "program_pid": program, "seen": _seen_by(program)}
    write_start_file(options.start_file, facts)

    code = _watch(program, signalled, [Process.parse(owner) for owner in (options.owner, *options.also_for)])
    container = Container.marked(environment)
    code = _end_tree(program, code, grace_s=options.grace_s, container=container)
    shutil.rmtree(options.temporary, ignore_errors=True)
    # One that could not be ended is not written down as such, so that the next start looks for it.
    if container is None or container.remove():
        facts = {**facts, "ended_at": time.time()}
    write_start_file(options.start_file, facts | {"exit_code": code})
    # No clean-up of the interpreter: there is nothing to clean, and it takes time.
    os._exit(code)


def _fork_intermediate(options: argparse.Namespace) -> None:
    """Go on in a child that leads a session of its own; what stays behind passes its end on to the owner."""
    supervisor = os.fork()
    if supervisor == 0:
        os.setsid()
        return
    for fd in (sys.stdin.fileno(), options.report_fd, *options.pass_fd):
        os.close(fd)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: _kill([supervisor], signal.Signals(number)))
    _, status = os.waitpid(supervisor, 0)
    # A supervisor that was killed has left it, and so has its owner where both were.
    shutil.rmtree(options.temporary, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="supervisor")
    parser.add_argument("--log", required=True)
    parser.add_argument("--start-file", type=Path, required=True)
    parser.add_argument("--cwd", required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--owner", required=True)
    parser.add_argument("--also-for", action="append", default=[])
    parser.add_argument("--note", type=json.loads, required=True)
    parser.add_argument("--pass-fd", type=int, action="append", default=[])
    parser.add_argument("--report-fd", type=int, required=True)
    parser.add_argument("--temporary", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _facts(options: argparse.Namespace) -> dict[str, object]:
    me = processes.current()
    container = Container.marked(os.environ)
    return {
        **options.note,
        **({} if container is None else {"container": str(container)}),
        "pid": me.pid,
        "start_time": me.start_time,
        "pgid": os.getpgid(0),
        "boot_id": processes.boot_id(),
        "owner": options.owner,
        "log_path": options.log,
        "command": options.command,
        "started_at": time.time(),
    }


def write_start_file(path: Path, facts: Mapping[str, object]) -> None:
    """Write the start file aside and rename it; a full disk must not keep a tree from being ended."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        aside.replace(path)
    except OSError as exc:
        sys.stderr.write(f"supervisor: cannot write {path}: {exc}\n")


def _end_unstarted(options: argparse.Namespace, facts: Mapping[str, object], code: int) -> NoReturn:
    shutil.rmtree(options.temporary, ignore_errors=True)
    write_start_file(options.start_file, {**facts, "ended_at": time.time(), "exit_code": code})
    os._exit(code)


def _seen_by(program: int) -> dict[str, object]:
    """Read what a program that was just executed has: its masks and the processors it may run on."""
    environment = _environment_of(program)
    try:
        cpus = sorted(os.sched_getaffinity(program))
    except ProcessLookupError:
        cpus = []
    return {
        "device_mask": masks.as_text(masks.seen(environment)),
        "cpus": cpus,
        "tmpdir": environment.get("TMPDIR"),
    }


def _environment_of(pid: int) -> dict[str, str]:
    """Read the environment of a program that was just executed.

    Its file is empty for a moment: the kernel closes the pipe that shows us the execution before it writes
    down where the new environment lies.
    """
    deadline = time.monotonic() + _EXECUTED_WITHIN_S
    while True:
        try:
            text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        except OSError:
            return {}
        if text or processes.find(pid) is None or time.monotonic() > deadline:
            return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
        time.sleep(0.001)


def _temporary_folder(env: Mapping[str, str]) -> Path:
    """Make a folder whose path leaves room for the names of sockets.

    Raises:
        EngineError: It cannot be made.
    """
    try:
        wanted = env.get("TMPDIR") or tempfile.gettempdir()
        fits = len(wanted) <= _LONGEST_TEMPORARY and os.access(wanted, os.W_OK | os.X_OK)
        return Path(tempfile.mkdtemp(prefix="sweeper-", dir=wanted if fits else _SOCKETS_FIT))
    except OSError as exc:
        raise EngineError(
            f"supervisor: no folder for temporary files could be made ({exc}); expected one in TMPDIR, or in "
            f"{_SOCKETS_FIT}. Make room there, or mend its rights.",
            failure=FailureClass.INFRASTRUCTURE,
        ) from exc


def _launch(options: argparse.Namespace, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    def die_with_supervisor() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        cwd=options.cwd,
        env=dict(environment),
        pass_fds=tuple(options.pass_fd),
        preexec_fn=die_with_supervisor,
    )


def _watch(program: int, signalled: int, owners: Sequence[Process]) -> int | None:
    """Wait until the program ends (its exit code), or its owner wants it ended or an owner is gone (None)."""
    lifeline = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([lifeline, signalled], [], [], _OWNER_CHECK_S)
        if signalled in ready:
            numbers = os.read(signalled, 512)
            if set(numbers) - {signal.SIGCHLD}:
                return None
        code = _reap(program)
        if code is not None:
            return code
        if lifeline in ready and not os.read(lifeline, 512):
            return None
        if not all(map(processes.is_alive, owners)):
            return None


def _reap(program: int) -> int | None:
    """Collect the children that have ended, orphans too; the program's exit code if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == program:
            plain = os.waitstatus_to_exitcode(status)
            code = plain if plain >= 0 else 128 - plain


def _end_tree(program: int, code: int | None, *, grace_s: float, container: Container | None) -> int:
    """End the program gently by its root, then its remains; give the exit code that is passed on.

    A container runtime's client passes the gentle request on to what runs inside.
    """
    deadline = time.monotonic() + grace_s
    if code is None:
        # The root first and alone: it knows how to close its children in order.
        _kill([program], signal.SIGTERM)
        while code is None and time.monotonic() < deadline:
            time.sleep(0.02)
            code = _reap(program)
    if container is not None:
        container.remove()
        code = _first(_reap(program), code)
    remains = [process.pid for process in processes.descendants(os.getpid())]
    _kill(remains, signal.SIGTERM)
    # Orphans of a root that is gone get a short grace: they have no process left to report to.
    deadline = max(min(deadline, time.monotonic() + 3.0), time.monotonic() + min(grace_s, 0.5))
    while remains and time.monotonic() < deadline:
        time.sleep(0.02)
        code = _first(_reap(program), code)
        remains = [process.pid for process in processes.descendants(os.getpid())]
    while remains:
        _kill(remains, signal.SIGKILL)
        time.sleep(0.02)
        code = _first(_reap(program), code)
        remains = [process.pid for process in processes.descendants(os.getpid())]
    return 128 + signal.SIGKILL if code is None else code


def _first(new: int | None, old: int | None) -> int | None:
    return old if new is None else new


def _kill(pids: Sequence[int], number: signal.Signals) -> None:
    # Descendants of ours stay zombies until they are reaped here or by their parent below us, so their
    # ids cannot have been reused in between.
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    main()
