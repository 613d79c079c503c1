"""Real processes: a small tree stands for the API server with its engine core and worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.errors import EngineError
from sweeper.processes import orphans, supervisor
from sweeper.processes import process as processes
from sweeper.processes.process import Process
from sweeper.processes.supervisor import Supervised
from sweeper.records import FailureClass
from tests.surroundings import running

# Two sleepers below a shell below a shell; none of them is in the way of a signal.
TREE = ["sh", "-c", "sh -c 'sleep 601 & sleep 602 & wait' & wait"]
# The same, but deaf to SIGTERM.
DEAF_TREE = ["sh", "-c", "trap '' TERM; sh -c 'trap \"\" TERM; sleep 603 & wait' & wait"]
ROOT = Path(__file__).parents[2]


def eventually(holds: Callable[[], object], *, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return False


def start(folder: Path, command: list[str], *, grace_s: float = 5.0, **env: str) -> Supervised:
    return Supervised.start(
        command,
        env={**os.environ, **env},
        cwd=folder,
        log_path=folder / "engine.log",
        start_file=folder / "engine.start.json",
        grace_s=grace_s,
        note={"port": 4321},
    )


def grown(supervised: Supervised, size: int) -> list[Process]:
    assert eventually(lambda: len(supervised.members()) >= size)
    return supervised.members()


def test_output_and_exit_code_of_program_come_through(tmp_path: Path) -> None:
    with start(tmp_path, ["sh", "-c", "echo hello; echo oops >&2; exit 3"]) as supervised:
        assert eventually(lambda: supervised.poll() is not None)
        assert supervised.poll() == 3
    assert (tmp_path / "engine.log").read_text() == "hello\noops\n"


def test_death_by_signal_n_reads_as_128_plus_n(tmp_path: Path) -> None:
    with start(tmp_path, ["sh", "-c", "kill -9 $$"]) as supervised:
        assert eventually(lambda: supervised.poll() is not None)
        assert supervised.poll() == 128 + 9


def test_missing_program_is_reported_in_log(tmp_path: Path) -> None:
    with start(tmp_path, ["./no-such-program"]) as supervised:
        assert eventually(lambda: supervised.poll() is not None)
        assert supervised.poll() == 127
    assert "cannot start ./no-such-program" in (tmp_path / "engine.log").read_text()


def test_start_file_tells_who_runs_for_whom_and_later_that_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "engine.start.json"
    with start(tmp_path, TREE) as supervised:
        grown(supervised, 4)
        # Written twice: before the program is started, and when it is.
        assert eventually(lambda: "program_pid" in start_file(tmp_path))
        facts = start_file(tmp_path)
        assert facts["pid"] == supervised.launch.supervisor.pid
        assert facts["start_time"] == supervised.launch.supervisor.start_time
        assert facts["owner"] == str(processes.current())
        assert facts["boot_id"] == processes.boot_id()
        assert facts["port"] == 4321
        assert facts["program_pid"] in supervised.pids()
        assert orphans.read_start_file(path) == supervised.launch
    assert "ended_at" in json.loads(path.read_text())
    assert orphans.read_start_file(path) is None


def test_stop_ends_whole_tree_and_may_be_called_twice(tmp_path: Path) -> None:
    supervised = start(tmp_path, TREE)
    tree = grown(supervised, 4)
    assert supervised.poll() is None
    assert supervised.stop() >= 0.0
    assert not any(map(processes.is_alive, tree))
    assert supervised.stop() >= 0.0
    assert supervised.poll() == 128 + signal.SIGTERM


def test_stop_forces_tree_that_is_deaf_to_sigterm(tmp_path: Path) -> None:
    supervised = start(tmp_path, DEAF_TREE, grace_s=0.2)
    tree = grown(supervised, 3)
    supervised.stop()
    assert not any(map(processes.is_alive, tree))
    assert supervised.poll() == 128 + signal.SIGKILL


def test_children_that_outlive_program_are_ended_with_it(tmp_path: Path) -> None:
    with start(tmp_path, ["sh", "-c", "sleep 604 & sleep 0.5; exit 7"]) as supervised:
        tree = grown(supervised, 3)
        assert eventually(lambda: supervised.poll() is not None)
        assert supervised.poll() == 7
        assert not any(map(processes.is_alive, tree))


def test_descendant_in_session_of_its_own_is_ended_too(tmp_path: Path) -> None:
    supervised = start(tmp_path, ["sh", "-c", "setsid sleep 605 & wait"])
    tree = grown(supervised, 2)
    assert eventually(lambda: any(processes.session_members(p.pid) for p in supervised.members()))
    supervised.stop()
    assert not any(map(processes.is_alive, tree))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_supervisor_ends_tree(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, TREE) as supervised:
        tree = grown(supervised, 4)
        os.kill(supervised.launch.supervisor.pid, number)
        assert eventually(lambda: supervised.poll() is not None)
        assert not any(map(processes.is_alive, tree))


def test_stop_finds_orphans_of_killed_supervisor(tmp_path: Path) -> None:
    supervised = start(tmp_path, TREE)
    tree = grown(supervised, 4)
    os.kill(supervised.launch.supervisor.pid, signal.SIGKILL)
    assert eventually(lambda: supervised.poll() == 128 + signal.SIGKILL)
    supervised.stop()
    assert not any(map(processes.is_alive, tree))


OWNER = """
import os, sys, time
from pathlib import Path
from sweeper.processes.supervisor import Supervised
folder = Path(sys.argv[1])
env = dict(os.environ)
kept = Supervised.start(["sh", "-c", sys.argv[2]], env=env, cwd=folder, log_path=folder / "engine.log",
                        start_file=folder / "engine.start.json", grace_s=1.0)
while len(kept.members()) < 4:
    time.sleep(0.02)
(folder / "ready").write_text(" ".join(str(p) for p in [kept.launch.supervisor, *kept.members()]))
time.sleep(600)
"""


def owner_with_tree(folder: Path) -> tuple[subprocess.Popen[bytes], list[Process]]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder), TREE[2]], cwd=ROOT)
    ready = folder / "ready"
    assert eventually(lambda: ready.exists() and ready.read_text())
    return owner, [Process.parse(word) for word in ready.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_owner_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    owner, tree = owner_with_tree(tmp_path)
    assert len(tree) >= 5
    owner.send_signal(number)
    owner.wait()
    assert eventually(lambda: not any(map(processes.is_alive, tree)))


def test_nothing_outlives_owner_whose_direct_children_are_killed_with_it(tmp_path: Path) -> None:
    owner, tree = owner_with_tree(tmp_path)
    mine = processes.find(owner.pid)
    assert mine is not None
    # As Ray does to the children of a worker that dies: grandchildren are not asked, and not told.
    children = [p for p in processes.descendants(owner.pid) if parent(p.pid) == owner.pid]
    assert children
    for process in [mine, *children]:
        os.kill(process.pid, signal.SIGKILL)
    owner.wait()
    assert eventually(lambda: not any(map(processes.is_alive, tree)))


def parent(pid: int) -> int:
    return int(status(pid, "PPid"))


def state(pid: int) -> str:
    """One letter: R runs, S sleeps, T is stopped, Z has ended."""
    return status(pid, "State")


def status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}:")).split()[1]


def test_what_runs_for_trial_whose_worker_was_lost_is_ended_at_once(tmp_path: Path) -> None:
    lost = start(tmp_path, ["sh", "-c", "sleep 600 & wait"], grace_s=600.0)
    family = grown(lost, 2)
    # Its owner, this process, lives: nobody else would end it.
    assert orphans.end_launched(tmp_path) == []
    assert not any(map(processes.is_alive, [*family, lost.launch.supervisor]))
    lost.stop()


def test_orphans_of_owner_and_supervisor_are_found_as_strays(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "study" / "trials" / "0123456789abcdef"
    folder.mkdir(parents=True)
    owner, tree = owner_with_tree(folder)
    # While the owner lives, its processes are nobody's orphans.
    assert orphans.find_orphans(tmp_path / "outputs") == []

    assert eventually(lambda: "program_pid" in start_file(folder))
    leader = tree[0]
    program = next(process for process in tree if process.pid == start_file(folder)["program_pid"])
    os.kill(leader.pid, signal.SIGSTOP)
    assert eventually(lambda: state(leader.pid) == "T")
    owner.kill()
    owner.wait()
    os.kill(leader.pid, signal.SIGKILL)
    # The program dies with it, a moment later; what the program started stays.
    assert eventually(lambda: not any(map(processes.is_alive, [leader, program])))
    left = [process for process in tree if process not in (leader, program)]
    assert len(left) == 3
    assert all(map(processes.is_alive, left))

    assert set(orphans.find_orphans(tmp_path / "outputs")) >= set(left)
    assert set(orphans.end_orphans(tmp_path / "outputs", grace_s=1.0)) >= set(left)
    assert not any(map(processes.is_alive, tree))
    assert orphans.end_orphans(tmp_path / "outputs") == []


def test_supervisor_that_is_not_up_in_time_is_error_and_starts_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    with pytest.raises(EngineError, match=r"not up after 0 s; .*launch_timeout_s") as told:
        Supervised.start(
            ["touch", str(mark)],
            env=dict(os.environ),
            cwd=tmp_path,
            log_path=tmp_path / "engine.log",
            start_file=tmp_path / "engine.start.json",
            grace_s=1.0,
            launch_s=0.0,
        )
    assert told.value.failure is FailureClass.INFRASTRUCTURE
    time.sleep(1.0)
    assert not mark.exists()


def test_inherited_pipes_close_when_program_ends(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    supervised = Supervised.start(
        ["sh", "-c", f"echo answer > /dev/fd/{writer}"],
        env=dict(os.environ),
        cwd=tmp_path,
        log_path=tmp_path / "client.log",
        start_file=tmp_path / "client.start.json",
        grace_s=1.0,
        pass_fds=[writer],
    )
    os.close(writer)
    with supervised, os.fdopen(reader) as answers:
        # read() returns only when every holder of the other end, the supervisor too, has let go.
        assert answers.read() == "answer\n"


# What the program finds around it

TELL_MASK = ["sh", "-c", "echo started on $HIP_VISIBLE_DEVICES; sleep 30"]


def start_file(folder: Path) -> dict[str, object]:
    facts: dict[str, object] = json.loads((folder / "engine.start.json").read_text())
    return facts


def test_program_with_exactly_its_mask_starts_and_what_it_has_is_written_down(tmp_path: Path) -> None:
    mask = {"SWEEPER_DEVICE_MASK": "HIP_VISIBLE_DEVICES=4,5", "HIP_VISIBLE_DEVICES": "4,5"}
    log = tmp_path / "engine.log"
    with start(tmp_path, TELL_MASK, **mask):
        assert eventually(lambda: log.read_text() and "seen" in start_file(tmp_path))
        seen = start_file(tmp_path)["seen"]
    assert isinstance(seen, dict)
    assert log.read_text() == "started on 4,5\n"
    assert seen["device_mask"] == "HIP_VISIBLE_DEVICES=4,5"
    assert seen["cpus"] == sorted(os.sched_getaffinity(0))


def test_environment_of_program_is_read_when_kernel_shows_it() -> None:
    # Of a few hundred, some are asked in the moment in which their file is still empty.
    for _ in range(300):
        with running(["sleep", "60"], env={"MARK": "x"}) as program:
            assert supervisor._environment_of(program.pid) == {"MARK": "x"}


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"HIP_VISIBLE_DEVICES": "0,1"}, "got HIP_VISIBLE_DEVICES=0,1; expected exactly"),
        ({}, "got none; expected exactly"),
        (
            {"HIP_VISIBLE_DEVICES": "4,5", "CUDA_VISIBLE_DEVICES": "4,5"},
            "got CUDA_VISIBLE_DEVICES=4,5 HIP_VISIBLE_DEVICES=4,5; expected exactly",
        ),
        (
            {"HIP_VISIBLE_DEVICES": "4,5", "GPU_DEVICE_ORDINAL": "0"},
            "got GPU_DEVICE_ORDINAL=0 HIP_VISIBLE_DEVICES=4,5; expected exactly",
        ),
    ],
    ids=["another", "none", "two", "another kind besides"],
)
def test_program_with_any_other_mask_is_not_executed(
    tmp_path: Path, masks: dict[str, str], told: str
) -> None:
    with start(tmp_path, TELL_MASK, SWEEPER_DEVICE_MASK="HIP_VISIBLE_DEVICES=4,5", **masks) as refused:
        assert eventually(lambda: refused.poll() is not None)
        assert refused.poll() == 125
    written = (tmp_path / "engine.log").read_text()
    assert f"device mask: {told} HIP_VISIBLE_DEVICES=4,5" in written
    assert "started on" not in written
    assert "program_pid" not in start_file(tmp_path)
    assert start_file(tmp_path)["exit_code"] == 125


def test_program_without_devices_is_asked_for_no_mask(tmp_path: Path) -> None:
    with start(tmp_path, ["sh", "-c", "exit 3"], CUDA_VISIBLE_DEVICES="0") as client:
        assert eventually(lambda: client.poll() == 3)


def test_each_program_has_temporary_files_of_its_own_which_go_with_it(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    tell = ["sh", "-c", "echo $TMPDIR; touch $TMPDIR/socket; sleep 30"]
    folders = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with start(tmp_path / name, tell, TMPDIR=str(deep)):
            log = tmp_path / name / "engine.log"
            assert eventually(lambda log=log: log.read_text().endswith("\n"))
            folders.append(Path(log.read_text().strip()))
            assert eventually(lambda: (folders[-1] / "socket").exists())
    assert folders[0] != folders[1]
    # 107 characters for a socket's path, less "/" and a UUID of 36.
    assert all(len(str(folder)) <= 107 - 37 for folder in folders)
    assert not any(folder.exists() for folder in folders)


def test_no_room_for_temporary_files_is_told_in_words_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody makes a folder there, root neither.
    monkeypatch.setattr(supervisor, "_SOCKETS_FIT", Path("/proc"))
    before = list(Path("/proc/self/fd").iterdir())
    with pytest.raises(EngineError, match="no folder for temporary files could be made") as caught:
        start(tmp_path, ["true"], TMPDIR=str(tmp_path / ("d" * 60)))
    assert caught.value.failure is FailureClass.INFRASTRUCTURE
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
