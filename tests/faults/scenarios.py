"""The four studies that show the matrix; each strikes its faults and tells what was seen, row by row."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from sweeper.processes import orphans, ports, process
from tests.faults.rows import DISK_ROWS, DRIVER_ROWS, ENGINE_ROWS, RAY_ROWS, SIGNALS, VICTIMS
from tests.faults.studies import Seen, Study

_ENGINE_FAULTS = (
    *("hang-at-start", "hang-in-load", "out-of-memory", "dies-in-load", "other-settings", "empty-answers"),
    *("changes-its-answers", "port-taken", "foreign-server", "never-healthy"),
    *["held"] * (len(VICTIMS) * len(SIGNALS)),
)
# Long enough for a start on a busy machine, short enough to wait for.
_LIMITS = (
    *("engine.start_timeout_s=40", "engine.ready_timeout_s=40", "engine.load_timeout_s=40"),
    *("max_attempts=4", "retry_pause_s=1", "executor=inline"),
)


def engine_faults(folder: Path) -> dict[str, Seen]:
    """All faults of one engine, in one study: the driver lives through them, and one more run mends all."""
    trials = dict(enumerate(_ENGINE_FAULTS, start=1))
    study = Study(folder, trials, devices=8, overrides=_LIMITS)
    study.start()
    first_of_killed = len(trials) - len(VICTIMS) * len(SIGNALS) + 1
    kills = [(victim, number) for victim in VICTIMS for number in SIGNALS.values()]
    with ThreadPoolExecutor(len(kills) + 2) as pool:
        strangers = [pool.submit(_stand_on_port, study, number) for number in (8, 9)]
        struck = [
            pool.submit(_kill_part, study, number, victim, by)
            for number, (victim, by) in enumerate(kills, start=first_of_killed)
        ]
        gone = {number: future.result() for number, future in enumerate(struck, start=first_of_killed)}
        for stranger in strangers:
            stranger.result()
    first_exit = study.wait_exit()
    left = study.seconds_until_nobody(since=time.monotonic())
    failed = {number: study.row(number, "failed") for number in trials}
    # Those that hang may outlast all others, so that their devices come into use again with the next run.
    held_to_the_end = {int(failed[number]["devices"][0]) for number in (1, 2, 10)}
    assert set(_trials_of_devices(study)[lambda counts: counts < 2].index) <= held_to_the_end
    kept = study.finished()
    assert len(kept) >= len(trials)

    study.heal()
    study.start("retry_failed=true")
    exits = (first_exit, study.wait_exit())
    assert kept.items() <= study.finished().items(), "a finished trial was lost or touched"
    study.check_labels()
    assert (_trials_of_devices(study) >= 2).all()
    return {
        row.fault: Seen(
            failure=failed[number]["failure_class"],
            line=failed[number]["failure_message"],
            gone_s=gone.get(number, left),
            exits=exits,
            again=_again(study, number),
        )
        for number, row in enumerate(ENGINE_ROWS, start=1)
    }


def driver_faults(folder: Path) -> dict[str, Seen]:
    """One study whose driver is ended four times; each next run goes on."""
    study = Study(
        folder, {**dict.fromkeys(range(1, 5), "held"), 5: "port-taken", 6: ""}, devices=1, overrides=_LIMITS
    )
    seen: dict[str, Seen] = {}

    def interrupted(number: int, by: signal.Signals, row: int, *, at: str = "loading") -> None:
        study.start()
        study.meet(at, number)
        kept = study.finished()
        gone_s, code = study.kill_driver(by)
        assert kept.items() <= study.finished().items()
        study.let_go(number)
        seen[DRIVER_ROWS[row].fault] = _cut_off(gone_s, code)

    interrupted(1, signal.SIGKILL, 0)
    study.start()
    study.meet("loading", 2)
    engine = study.latest_engine(2)
    # Who is stopped ends nobody: the server stays, as if neither supervisor nor keeper had been there.
    for pid in {int(engine["pid"]), *study.kept()}:
        os.kill(pid, signal.SIGSTOP)
    study.runs[-1].kill()
    stale_exit = study.wait_exit()
    assert ports.listeners(int(engine["port"])) == {int(engine["program_pid"])}
    study.let_go(2)
    study.start()
    study.meet("loading", 3)
    assert process.find(int(engine["program_pid"])) is None
    assert "ended a process that an earlier run left behind" in study.told()
    seen[DRIVER_ROWS[1].fault] = _cut_off(None, stale_exit)
    gone_s, code = study.kill_driver(signal.SIGTERM)
    study.let_go(3)
    seen[DRIVER_ROWS[2].fault] = _cut_off(gone_s, code)
    interrupted(4, signal.SIGINT, 3)
    interrupted(5, signal.SIGTERM, 4, at="waiting")
    return _finish(study, seen)


def ray_faults(folder: Path) -> dict[str, Seen]:
    """One study on Ray: its driver is ended twice; the third run loses workers and raylets, and goes on."""
    struck = dict(enumerate(RAY_ROWS, start=1))
    limits = (
        "max_attempts=4",
        "retry_pause_s=1",
        "executor=ray",
        "executor.max_parallel=1",
        "engine.load_timeout_s=200",
    )
    study = Study(folder, {**dict.fromkeys(struck, "held"), len(struck) + 1: ""}, devices=1, overrides=limits)
    cut_off: dict[str, Seen] = {}
    gone: dict[int, float] = {}
    study.start()
    for number, row in struck.items():
        name, _, victim = row.fault.partition(" of the ")
        by = signal.Signals[name]
        study.meet("loading", number)
        if victim == "driver":
            gone_s, code = study.kill_driver(by)
            cut_off[row.fault] = _cut_off(gone_s, code)
            study.let_go(number)
            study.start()
            continue
        if row.failure is None:
            os.kill(study.victim(number, victim), by)
            # Time to do harm, were it any.
            time.sleep(2.0)
        else:
            gone[number] = _kill_part(study, number, victim, by)
        study.let_go(number)
    seen = _finish(study, cut_off, is_running=True)
    for number, row in struck.items():
        if row.fault not in seen:
            first = study.attempt(number, 1)
            seen[row.fault] = Seen(
                failure=first["failure_class"],
                line=first["failure_message"] or "",
                gone_s=gone.get(number),
                exits=(study.wait_exit(),),
                again=_again(study, number),
            )
    return seen


def full_disk(folder: Path, small: Path) -> dict[str, Seen]:
    """A disk that is full just when a trial is stored."""
    study = Study(folder, {1: "", 2: "held"}, devices=1, overrides=_LIMITS, outputs=small)
    study.start()
    study.meet("loading", 2)
    kept = study.finished()
    filler = small / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    began = time.monotonic()
    study.let_go(2)
    code = study.wait_exit()
    gone_s = study.seconds_until_nobody(since=began)
    assert kept.items() <= study.finished().items()
    filler.unlink()
    return _finish(study, {DISK_ROWS[0].fault: _cut_off(gone_s, code)})


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str | None]:
    """Mount a disk of a few MiB; why it cannot be done, or None."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    try:
        yield mounted.stderr.strip() or None if mounted.returncode else None
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _kill_part(study: Study, number: int, victim: str, by: int, *, announced: bool = True) -> float:
    """Strike in the load, and tell the seconds until no process of that engine start lives.

    What is kept for the next start is none of it; that it ends is seen at the end of the study.
    """
    if announced:
        study.meet("loading", number)
    engine = study.latest_engine(number)
    launch = orphans.Launch(
        supervisor=process.Process(int(engine["pid"]), int(engine["start_time"])),
        owner=process.Process.parse(engine["owner"]),
        boot=engine["boot_id"],
        log_path=engine["log_path"],
    )
    kept = study.kept()
    began = time.monotonic()
    os.kill(study.victim(number, victim), by)
    _wait(lambda: not {member.pid for member in launch.members()} - kept)
    return time.monotonic() - began


def _wait(is_so: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)


def _stand_on_port(study: Study, number: int) -> None:
    """Listen on the port of a trial before its server does, as a stranger that calls itself healthy."""
    study.meet("waiting", number)
    is_foreign = study.trials[number] == "foreign-server"
    port = int(study.latest_engine(number)["port"])
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        stranger.settimeout(0.2)
        if not is_foreign:
            study.let_go(number)
        _wait(lambda: (is_foreign and _answer(stranger)) or _has_ended(study, number))
        _wait(lambda: _has_ended(study, number))
    study.let_go(number)


def _answer(stranger: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        caller, _ = stranger.accept()
        with caller:
            caller.recv(4096)
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return True
    return False


def _has_ended(study: Study, number: int) -> bool:
    return "ended_at" in study.start_files(number)["engine-1-0"]


def _cut_off(gone_s: float | None, code: int) -> Seen:
    return Seen(failure=None, line="", gone_s=gone_s, exits=(code,), again="")


def _finish(study: Study, seen: dict[str, Seen], *, is_running: bool = False) -> dict[str, Seen]:
    """Run the same command to the end, and see that all is there, once and under its own name."""
    study.heal()
    kept = study.finished()
    if not is_running:
        study.start()
    code = study.wait_exit()
    assert kept.items() <= study.finished().items(), "a finished trial was lost or touched"
    study.check_labels()
    numbers: Sequence[int] = sorted(
        study.rows().query("state == 'complete'")["knob.max_num_seqs"].astype(int).tolist()
    )
    assert numbers == sorted(study.trials), study.told()
    return {
        fault: Seen(
            failure=each.failure,
            line=each.line,
            gone_s=each.gone_s,
            exits=(*each.exits, code),
            again="complete",
        )
        for fault, each in seen.items()
    }


def _trials_of_devices(study: Study) -> pd.Series[int]:
    """How many trials each device has served."""
    rows = study.rows().explode("devices")
    return rows.groupby(rows["devices"].astype(int))["attempt"].size()


def _again(study: Study, number: int) -> str:
    rows = study.rows()
    return str(rows[rows["knob.max_num_seqs"] == number].sort_values("attempt").iloc[-1]["state"])
