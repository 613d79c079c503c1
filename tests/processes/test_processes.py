"""Facts from /proc about real processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.errors import EngineError
from sweeper.processes import orphans, ports
from sweeper.processes import process as processes
from sweeper.processes.orphans import Launch
from sweeper.processes.ports import ReservedPort
from sweeper.processes.process import Process
from tests.surroundings import running


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with running(["sleep", "600"]) as child:
        yield child


def identity(child: subprocess.Popen[bytes]) -> Process:
    """Who a child is, once /proc shows its own command line and environment (a moment after its start)."""
    words = [str(word) for word in child.args]  # type: ignore[union-attr]
    while processes.title(child.pid) != " ".join(words):
        assert child.poll() is None
        time.sleep(0.01)
    found = processes.find(child.pid)
    assert found is not None
    return found


def test_process_is_told_from_another_one_that_reused_its_id(sleeper: subprocess.Popen[bytes]) -> None:
    start = processes.start_time(sleeper.pid)
    assert start is not None
    assert processes.is_alive(Process(sleeper.pid, start))
    assert not processes.is_alive(Process(sleeper.pid, start - 1))


def test_start_times_order_processes_by_age(sleeper: subprocess.Popen[bytes]) -> None:
    assert processes.current().pid == os.getpid()
    assert processes.current().start_time <= identity(sleeper).start_time


def test_zombie_does_not_live() -> None:
    child = subprocess.Popen(["true"])
    # Ended, but not collected by us yet: WNOWAIT leaves it a zombie.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.find(child.pid) is None
    assert processes.start_time(child.pid) is None
    child.wait()


def test_identity_is_read_back_as_it_was_written() -> None:
    assert str(Process(12, 3456)) == "12:3456"
    assert Process.parse("12:3456") == Process(12, 3456)
    with pytest.raises(ValueError, match="unpack"):
        Process.parse("12")


def test_title_is_command_line_and_empty_for_nobody(sleeper: subprocess.Popen[bytes]) -> None:
    assert processes.title(identity(sleeper).pid) == "sleep 600"
    assert processes.title(2**22 + 1) == ""


def test_boot_id_does_not_change_while_machine_runs() -> None:
    assert len(processes.boot_id()) == 36
    assert processes.boot_id() == processes.boot_id()


def test_descendants_are_children_and_theirs_but_not_strangers(sleeper: subprocess.Popen[bytes]) -> None:
    with running(["sh", "-c", "sh -c 'sleep 601 & wait' & wait"]) as shell:
        while len(processes.descendants(shell.pid)) < 2:
            time.sleep(0.01)
        family = processes.descendants(shell.pid)
        assert [processes.title(process.pid)[:5] for process in family] == ["sh -c", "sleep"]
        assert identity(sleeper) not in family
        assert set(family) <= set(processes.descendants(os.getpid()))
        processes.end([identity(shell), *family], grace_s=2.0)


def test_session_has_members_that_joined_it() -> None:
    with running(["sleep", "602"], start_new_session=True) as leader:
        assert processes.session_members(leader.pid) == [identity(leader)]
        leader.kill()
        leader.wait()
        assert processes.session_members(leader.pid) == []


def test_marked_processes_are_found_by_name_and_value() -> None:
    env = {**os.environ, "SWEEPER_TEST_MARK": "one"}
    with running(["sleep", "603"], env=env) as child:
        expected = identity(child)
        assert processes.marked("SWEEPER_TEST_MARK", "one") == [expected]
        assert processes.marked("SWEEPER_TEST_MARK", "two") == []
        child.kill()


def test_listener_of_port_is_process_that_serves_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ports.listeners(server.getsockname()[1]) == {os.getpid()}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert ports.listeners(server.getsockname()[1]) == {os.getpid()}
    with ReservedPort() as reserved:
        assert ports.listeners(reserved.port) == set()


def test_every_process_that_holds_same_socket_is_listener() -> None:
    # Several front ends of one server accept on a socket that they inherited.
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(server.fileno(), True)
        with running(["sleep", "604"], close_fds=False) as child:
            assert ports.listeners(server.getsockname()[1]) == {os.getpid(), identity(child).pid}
            child.kill()


def test_reserved_port_can_be_served_on_while_it_is_reserved() -> None:
    # asyncio and vLLM set SO_REUSEADDR, and so does create_server.
    with ReservedPort() as reserved, socket.create_server(("127.0.0.1", reserved.port)) as server:
        with socket.create_connection(server.getsockname()) as connection:
            assert connection.getpeername()[1] == reserved.port
        assert ports.listeners(reserved.port) == {os.getpid()}


def test_reserved_port_is_refused_to_others_until_it_is_released() -> None:
    reserved = ReservedPort()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", reserved.port))
    reserved.release()
    reserved.release()
    with socket.socket() as other:
        other.bind(("127.0.0.1", reserved.port))


def test_machine_without_free_port_is_no_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_socket: socket.socket, _address: tuple[str, int]) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", full, raising=False)
    with pytest.raises(EngineError, match="no free TCP port") as error:
        ReservedPort()
    assert error.value.failure.is_transient


def test_end_forces_who_does_not_listen_and_spares_reused_id(sleeper: subprocess.Popen[bytes]) -> None:
    with running(["sh", "-c", "trap '' TERM; echo ready; sleep 604"], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        # The sleeper's id with another start time stands for an id that was reused.
        reused = Process(sleeper.pid, identity(sleeper).start_time - 1)
        while not processes.descendants(deaf.pid):
            time.sleep(0.01)
        family = [identity(deaf), *processes.descendants(deaf.pid)]
        assert processes.end([*family, reused], grace_s=0.1) == []
        assert deaf.wait() == -signal.SIGKILL
        assert sleeper.poll() is None


def test_stopped_process_is_let_go_on_so_that_it_can_end_in_order() -> None:
    with running(
        ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    ) as stopped:
        assert stopped.stdout is not None
        stopped.stdout.readline()
        found = processes.find(stopped.pid)
        assert found is not None
        stopped.send_signal(signal.SIGSTOP)
        processes.end([found], grace_s=20.0)
        assert stopped.wait() == 7


def test_members_of_launch_need_session_and_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("wb") as output:
        ours = subprocess.Popen(["sleep", "605"], start_new_session=True, stdout=output)
        elsewhere = subprocess.Popen(["sleep", "606"], stdout=output)
    launch = Launch(
        # The supervisor itself is gone: its id is the session's number, its start time another's.
        supervisor=Process(ours.pid, 1),
        owner=processes.current(),
        boot=processes.boot_id(),
        log_path=str(log),
    )
    assert launch.members() == [identity(ours)]
    other_boot = Launch(
        supervisor=launch.supervisor, owner=launch.owner, boot="another", log_path=launch.log_path
    )
    assert other_boot.members() == []
    other_log = Launch(
        supervisor=launch.supervisor, owner=launch.owner, boot=launch.boot, log_path="/elsewhere"
    )
    assert other_log.members() == []
    processes.end([identity(ours), identity(elsewhere)], grace_s=2.0)
    ours.wait()
    elsewhere.wait()


def test_damaged_start_files_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "engine.start.json"
    assert orphans.read_start_file(path) is None
    path.write_text("{")
    assert orphans.read_start_file(path) is None
    path.write_text(json.dumps({"pid": 1}))
    assert orphans.read_start_file(path) is None
    path.write_text(json.dumps({"pid": 1, "start_time": 2, "owner": "3:4", "boot_id": "b", "log_path": "l"}))
    assert orphans.read_start_file(path) == Launch(
        supervisor=Process(1, 2), owner=Process(3, 4), boot="b", log_path="l"
    )


def test_strays_by_mark_are_those_of_dead_owner_on_this_folder_only(tmp_path: Path) -> None:
    def marked_sleeper(folder: Path, owner: Process) -> subprocess.Popen[bytes]:
        marks = {processes.OUTPUTS_MARK: str(folder), processes.OWNER_MARK: str(owner)}
        return subprocess.Popen(["sleep", "607"], env={**os.environ, **marks})

    dead = Process(os.getpid(), processes.current().start_time - 1)
    orphan = marked_sleeper(tmp_path, dead)
    owned = marked_sleeper(tmp_path, processes.current())
    elsewhere = marked_sleeper(tmp_path / "other", dead)
    stray_identity, _, _ = identity(orphan), identity(owned), identity(elsewhere)
    assert orphans.find_orphans(tmp_path) == [stray_identity]
    assert orphans.end_orphans(tmp_path, grace_s=2.0) == [stray_identity]
    assert orphan.wait() == -signal.SIGTERM
    assert owned.poll() is None
    assert elsewhere.poll() is None
    for child in (owned, elsewhere):
        child.kill()
        child.wait()
