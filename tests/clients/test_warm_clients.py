"""What is kept warm: one import for many engines, each loaded by a fork as apart as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.clients.kept_worker import Keeper, KeptWorker, Wanted
from sweeper.clients.vllm_bench import VllmBenchClient
from sweeper.clients.warm_clients import Kind, WarmClients
from sweeper.engines.vllm import VllmEngine
from sweeper.errors import EngineError
from sweeper.processes import orphans, process
from sweeper.processes.process import Process
from sweeper.records import FailureClass
from tests.standin_server import PLACEMENT, POINT, make_spec, never, write_interpreter

_WITHIN_S = 20.0
_WORKER = """
import json, os, subprocess, sys

def load_benchmark():
    return {"imported_by": os.getpid()}

def serve_loads(benchmark, requests, replies):
    benchmark["loads"] = benchmark.get("loads", 0) + 1
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    print("this worker's own log", flush=True)
    told = {**benchmark, "pid": os.getpid(), "child": child.pid, "cwd": os.getcwd(), "env": dict(os.environ)}
    os.write(replies, (json.dumps(told) + "\\n").encode())
    if os.read(requests, 64).strip() == b"leave":
        sys.exit(7)
"""
_THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"


def until(happens: Callable[[], bool]) -> bool:
    """Wait until something happens; whether it did in time."""
    deadline = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.02)
    return False


class Loads:
    """A worker in a folder of its own, and both ends of its pipes."""

    def __init__(self, keeper: Keeper, folder: Path, env: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "client-1.log"
        self.start_file = folder / "client-1.start.json"
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        wanted = Wanted(
            env=env,
            cwd=folder,
            log_path=self.log_path,
            note={"trial": folder.name},
            requests=requests,
            replies=replies,
        )
        self.worker: KeptWorker = keeper.fork(wanted)
        os.close(requests)
        os.close(replies)

    def told(self) -> dict[str, object]:
        """Return what the worker says of itself."""
        content: dict[str, object] = json.loads(os.read(self.replies, 65536))
        self.worker.poll()
        return content

    def facts(self) -> dict[str, object]:
        content: dict[str, object] = json.loads(self.start_file.read_text(encoding="utf-8"))
        return content


def lives(pid: object) -> bool:
    return isinstance(pid, int) and process.find(pid) is not None


@pytest.fixture
def worker_file(tmp_path: Path) -> Path:
    path = tmp_path / "some_worker.py"
    path.write_text(_WORKER)
    return path


@pytest.fixture
def keeper(worker_file: Path, tmp_path: Path) -> Iterator[Keeper]:
    keeper = make_keeper(worker_file, tmp_path)
    yield keeper
    keeper.stop()


def make_keeper(worker_file: Path, folder: Path, *, also_for: Process | None = None) -> Keeper:
    return Keeper(
        worker_file,
        interpreter=sys.executable,
        env={"PATH": os.defpath},
        log_path=folder / "clients" / "client-1.log",
        launch_s=60.0,
        also_for=also_for,
    )


# A keeper and its workers


def test_workers_share_import_and_nothing_else(keeper: Keeper, tmp_path: Path) -> None:
    tolds = []
    for name in ("first", "second"):
        loads = Loads(keeper, tmp_path / name, {"PATH": os.defpath, "OF": name})
        told = loads.told()
        assert told["cwd"] == str(tmp_path / name)
        assert loads.log_path.read_text() == "this worker's own log\n"
        assert loads.facts()["program_pid"] == told["pid"]
        assert loads.facts()["trial"] == name
        assert "ended_at" not in loads.facts()
        environment = told["env"]
        assert isinstance(environment, dict)
        assert {k: v for k, v in environment.items() if k != "TMPDIR"} == {"PATH": os.defpath, "OF": name}
        temporary = Path(environment["TMPDIR"])
        assert temporary.is_dir()
        assert loads.worker.stop()
        # What the worker started in a session of its own ends with it, too.
        assert not lives(told["pid"])
        assert not lives(told["child"])
        assert not temporary.exists()
        assert loads.facts()["exit_code"] == 128 + signal.SIGTERM
        tolds.append(told)
    first, second = tolds
    assert first["imported_by"] == second["imported_by"]
    assert first["pid"] != second["pid"]
    # What one worker leaves in its memory is not seen by the next.
    assert (first["loads"], second["loads"]) == (1, 1)


def test_end_of_worker_is_told_and_its_keeper_forks_next(keeper: Keeper, tmp_path: Path) -> None:
    loads = Loads(keeper, tmp_path / "leaves", {})
    loads.told()
    assert loads.worker.poll() is None
    os.write(loads.requests, b"leave")
    assert until(lambda: loads.worker.poll() == 7)
    assert loads.worker.stop()
    killed = Loads(keeper, tmp_path / "killed", {})
    pid = killed.told()["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: killed.worker.poll() == 128 + signal.SIGKILL)
    assert killed.worker.stop()
    assert keeper.lives()


def test_worker_ends_with_its_keeper_and_has_its_exit_code(keeper: Keeper, tmp_path: Path) -> None:
    loads = Loads(keeper, tmp_path / "trial", {})
    told = loads.told()
    imported_by = told["imported_by"]
    assert isinstance(imported_by, int)
    os.kill(imported_by, signal.SIGKILL)
    assert until(lambda: loads.worker.poll() == 128 + signal.SIGKILL)
    assert until(lambda: not lives(told["pid"]) and not lives(told["child"]))
    assert not loads.worker.stop()
    assert not keeper.lives()


def test_process_with_threads_is_not_forked_and_serves_one_worker(worker_file: Path, tmp_path: Path) -> None:
    worker_file.write_text(_THREADED + _WORKER)
    keeper = make_keeper(worker_file, tmp_path)
    loads = Loads(keeper, tmp_path / "trial", {"PATH": os.defpath})
    told = loads.told()
    assert told["pid"] == told["imported_by"]
    assert loads.log_path.read_text() == "this worker's own log\n"
    assert not loads.worker.stop()
    assert not lives(told["pid"])
    assert not lives(told["child"])


def test_keeper_that_dies_while_it_imports_leaves_its_words_in_log_of_trial(
    worker_file: Path, tmp_path: Path
) -> None:
    worker_file.write_text("import os, sys\nprint('no room', flush=True)\nos._exit(9)\n")
    keeper = make_keeper(worker_file, tmp_path)
    loads = Loads(keeper, tmp_path / "trial", {})
    assert until(lambda: loads.worker.poll() == 9)
    assert loads.log_path.read_text() == "no room\n"
    assert not loads.worker.stop()


def test_all_end_with_second_process_that_they_are_for(worker_file: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as driver:
        driver_process = process.find(driver.pid)
        keeper = make_keeper(worker_file, tmp_path, also_for=driver_process)
        loads = Loads(keeper, tmp_path / "trial", {"PATH": os.defpath})
        told = loads.told()
        driver.kill()
    assert until(lambda: not lives(told["imported_by"]) and not lives(told["pid"]))
    assert until(lambda: not lives(told["child"]))
    loads.worker.stop()
    keeper.stop()


def test_killed_owner_leaves_nothing(worker_file: Path, tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from tests.clients.test_warm_clients import Loads, make_keeper
folder = Path({str(tmp_path)!r})
loads = Loads(make_keeper(folder / {worker_file.name!r}, folder), folder / "trial", {{}})
told = loads.told()
print(told["imported_by"], told["pid"], told["child"], flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(lives, pids))
        launch = orphans.read_start_file(tmp_path / "trial" / "client-1.start.json")
        assert launch is not None
        assert {pid.pid for pid in launch.members()} >= set(pids)
        owner.kill()
    assert until(lambda: not any(map(lives, pids)))


# What is kept of them


def kind_of(worker_file: Path, **env: str) -> Kind:
    return Kind.of(worker_file, interpreter=sys.executable, env={"PATH": os.defpath, **env})


def test_free_keeper_is_taken_again_by_its_own_kind_only(worker_file: Path, tmp_path: Path) -> None:
    kind, other = kind_of(worker_file), kind_of(worker_file, HF_HOME="elsewhere")
    marked = kind_of(worker_file, **{process.TRIAL_MARK: "another trial"})
    assert marked == kind
    with WarmClients() as warm:
        first = warm.take(kind, folder=tmp_path, launch_s=60.0)
        warm.give_back(kind, first, is_sound=True)
        assert warm.take(marked, folder=tmp_path, launch_s=60.0) is first
        warm.give_back(kind, first, is_sound=True)
        second = warm.take(other, folder=tmp_path, launch_s=60.0)
        assert second is not first
        # Only one was ever in use at once, so only one is kept.
        assert not first.lives()
        warm.give_back(other, second, is_sound=True)
    assert not second.process.launch.members()


def test_as_many_are_kept_as_were_in_use_at_once(worker_file: Path, tmp_path: Path) -> None:
    kind = kind_of(worker_file)
    with WarmClients() as warm:
        both = [warm.take(kind, folder=tmp_path, launch_s=60.0) for _ in range(2)]
        for keeper in both:
            warm.give_back(kind, keeper, is_sound=True)
        again = [warm.take(kind, folder=tmp_path, launch_s=60.0) for _ in range(2)]
        assert set(map(id, again)) == set(map(id, both))
        taken_after_close = again[0]
        warm.give_back(kind, again[1], is_sound=True)
        warm.close()
        assert not again[1].process.launch.members()
        warm.give_back(kind, taken_after_close, is_sound=True)
        assert not taken_after_close.process.launch.members()


def test_dead_keeper_is_replaced(worker_file: Path, tmp_path: Path) -> None:
    kind = kind_of(worker_file)
    with WarmClients() as warm:
        first = warm.take(kind, folder=tmp_path, launch_s=60.0)
        assert until(lambda: len(first.process.members()) == 1)
        warm.give_back(kind, first, is_sound=True)
        os.kill(first.process.members()[0].pid, signal.SIGKILL)
        assert until(lambda: first.process.poll() is not None)
        second = warm.take(kind, folder=tmp_path, launch_s=60.0)
        assert second is not first
        assert second.lives()
        warm.give_back(kind, second, is_sound=True)


# Clients of trials


def test_two_engines_one_import(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    owners = []
    with WarmClients() as warm:
        for key in (spec.key, "another"):
            own = replace(spec, folder=str(Path(spec.folder).with_name(key)))
            server = VllmEngine().start(own, PLACEMENT, restart=0, cancelled=never)
            client = VllmBenchClient(own, PLACEMENT, warm=warm)
            try:
                measured = client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
                facts = json.loads((Path(own.folder) / "client-1.start.json").read_text())
                owners.append((facts["pid"], facts["program_pid"]))
            finally:
                client.close()
                server.stop()
            assert Path(measured.raw_path).parent == Path(own.folder).resolve() / "raw"
            assert not lives(owners[-1][1])
        (kept,) = (tmp_path / "outputs").glob("*/clients/*.start.json")
        assert "ended_at" not in json.loads(kept.read_text())
    (first, second) = owners
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert "ended_at" in json.loads(kept.read_text())


def test_benchmark_that_cannot_be_imported_fails_trial_with_reason_in_its_log(tmp_path: Path) -> None:
    # This interpreter has no vLLM; only its versions are a stand-in's.
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    alone = tmp_path / "alone" / "python"
    alone.parent.mkdir()
    alone.write_text(
        f'#!/bin/sh\ncase "$1" in -c) exec "{tmp_path}/bin/python" "$@";; esac\n'
        f'exec "{sys.executable}" -S "$@"\n'
    )
    alone.chmod(0o755)
    server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
    with WarmClients() as warm:
        client = VllmBenchClient(spec, PLACEMENT, python=str(alone), warm=warm)
        try:
            with pytest.raises(EngineError, match=r"cannot import: ModuleNotFoundError: .*'vllm'") as caught:
                client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
        finally:
            client.close()
            server.stop()
    assert caught.value.failure is FailureClass.CLIENT
    assert "Traceback" in Path(str(caught.value.log_path)).read_text()
