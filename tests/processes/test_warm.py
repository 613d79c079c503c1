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
from typing import Any

import pytest

from sweeper.clients.vllm_bench import VllmBenchClient
from sweeper.engines.live import LiveLimits
from sweeper.engines.vllm import VllmEngine, _kept
from sweeper.errors import EngineError
from sweeper.processes import orphans, process
from sweeper.processes.kept import Keeper, KeptWorker, Wanted
from sweeper.processes.process import Process
from sweeper.processes.warm import Kind, WarmProcesses
from sweeper.records import FailureClass, Platform, TrialSpec, TrialState
from sweeper.trial import trial
from tests.real_engine import make_real_spec
from tests.standin_server import PLACEMENT, POINT, make_spec, never, write_interpreter

_WITHIN_S = 20.0
_WORKER = """
import json, os, subprocess, sys

def load():
    return {"imported_by": os.getpid()}

def serve(benchmark, requests, replies):
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
            pass_fds=(requests, replies),
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
        log_path=folder / "kept" / "client-1.log",
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
        loads.worker.stop()
        assert loads.worker.leaves_keeper
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
    loads.worker.stop()
    assert loads.worker.leaves_keeper
    killed = Loads(keeper, tmp_path / "killed", {})
    pid = killed.told()["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: killed.worker.poll() == 128 + signal.SIGKILL)
    killed.worker.stop()
    assert killed.worker.leaves_keeper
    assert keeper.lives()


def test_worker_ends_with_its_keeper_and_has_its_exit_code(keeper: Keeper, tmp_path: Path) -> None:
    loads = Loads(keeper, tmp_path / "trial", {})
    told = loads.told()
    imported_by = told["imported_by"]
    assert isinstance(imported_by, int)
    os.kill(imported_by, signal.SIGKILL)
    assert until(lambda: loads.worker.poll() == 128 + signal.SIGKILL)
    assert until(lambda: not lives(told["pid"]) and not lives(told["child"]))
    loads.worker.stop()
    assert not loads.worker.leaves_keeper
    assert not keeper.lives()


def test_what_worker_started_ends_though_its_supervisor_was_killed(worker_file: Path, tmp_path: Path) -> None:
    worker_file.write_text(_WORKER.replace(", start_new_session=True", ""))
    keeper = make_keeper(worker_file, tmp_path)
    loads = Loads(keeper, tmp_path / "trial", {"PATH": os.defpath})
    told = loads.told()
    os.kill(keeper.process.launch.supervisor.pid, signal.SIGKILL)
    assert until(lambda: not lives(told["imported_by"]) and not lives(told["pid"]))
    assert lives(told["child"])
    loads.worker.stop()
    assert not loads.worker.leaves_keeper
    assert not lives(told["child"])


def test_process_with_threads_is_not_forked_and_serves_one_worker(worker_file: Path, tmp_path: Path) -> None:
    worker_file.write_text(_THREADED + _WORKER)
    keeper = make_keeper(worker_file, tmp_path)
    loads = Loads(keeper, tmp_path / "trial", {"PATH": os.defpath})
    told = loads.told()
    assert told["pid"] == told["imported_by"]
    assert loads.log_path.read_text() == "this worker's own log\n"
    loads.worker.stop()
    assert not loads.worker.leaves_keeper
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
    loads.worker.stop()
    assert not loads.worker.leaves_keeper


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
from tests.processes.test_warm import Loads, make_keeper
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
    with WarmProcesses() as warm:
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
    with WarmProcesses() as warm:
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
    with WarmProcesses() as warm:
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


def measured(spec: TrialSpec, warm: WarmProcesses, *, engine: Path) -> dict[str, Any]:
    """Measure one trial on an engine of its own, and return its start files by the names of their logs."""
    server = VllmEngine(warm=warm).start(spec, PLACEMENT, restart=0, cancelled=never)
    client = VllmBenchClient(spec, PLACEMENT, warm=warm)
    try:
        raw = client.measure(server, POINT, restart=0, repeat=0, cancelled=never).raw_path
        found = {path.name: json.loads(path.read_text()) for path in Path(spec.folder).glob("*.start.json")}
        assert server.prove_ours() == {found["engine-1-0.start.json"]["program_pid"]}
        assert server.effective["cpus"] and server.command[0] == str(engine)
    finally:
        client.close()
        server.stop()
    assert Path(raw).parent == Path(spec.folder).resolve() / "raw"
    return found


def test_two_trials_import_once_and_have_all_files_of_their_own(tmp_path: Path) -> None:
    interpreter = write_interpreter(tmp_path / "bin")
    spec = make_spec(tmp_path / "outputs", interpreter)
    # A model in a folder is read there, which its engine's variables say.
    Path(spec.model.path).mkdir(exist_ok=True)
    with WarmProcesses() as warm:
        trials = [
            measured(replace(spec, folder=str(Path(spec.folder).with_name(key))), warm, engine=interpreter)
            for key in (spec.key, "another")
        ]
        kept = sorted((tmp_path / "outputs").glob("*/kept/*.start.json"))
        assert [path.name.partition("-")[0] for path in kept] == ["vllm_bench_worker", "vllm_server_worker"]
        assert not any("ended_at" in json.loads(path.read_text()) for path in kept)
    first, second = trials
    for name in ("client-1.start.json", "engine-1-0.start.json"):
        assert first[name]["pid"] == second[name]["pid"]
        assert first[name]["program_pid"] != second[name]["program_pid"]
        assert not lives(first[name]["program_pid"]) and not lives(second[name]["program_pid"])
    assert first["engine-1-0.start.json"]["command"][1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert all("ended_at" in json.loads(path.read_text()) for path in kept)


def test_engine_of_gpu_imports_for_itself(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    assert _kept(WarmProcesses(), spec, None) is not None
    assert _kept(WarmProcesses(), replace(spec, platform=Platform.MI300X), None) is None
    assert _kept(WarmProcesses(), spec, LiveLimits(tmp_path)) is None


@pytest.mark.vllm
@pytest.mark.slow
def test_real_engines_are_forked_and_answer_alike(tmp_path: Path, vllm_python: str) -> None:
    spec = make_real_spec(tmp_path, vllm_python, assignment={"max_num_seqs": 8, "enforce_eager": True})
    results, pids = [], []
    with WarmProcesses() as warm:
        for key in ("first", "second"):
            own = replace(spec, folder=str(Path(spec.folder).with_name(key)))
            results.append(trial.run(own, PLACEMENT, cancelled=never, warm=warm))
            facts = [json.loads(p.read_text()) for p in sorted(Path(own.folder).glob("*.start.json"))]
            pids.append([facts_of_one["pid"] for facts_of_one in facts])
        results.append(trial.run(replace(spec, attempt=2), PLACEMENT, cancelled=never))
    assert [result.state for result in results] == [TrialState.COMPLETE] * 3, results
    assert pids[0] == pids[1]
    # Forked or not, it is the same engine: greedy answers and what it reports are those of its own process.
    first, second, alone = results
    assert first.sanity_text == second.sanity_text == alone.sanity_text
    assert first.effective == second.effective == alone.effective


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
    with WarmProcesses() as warm:
        client = VllmBenchClient(spec, PLACEMENT, python=str(alone), warm=warm)
        try:
            with pytest.raises(EngineError, match=r"cannot import: ModuleNotFoundError: .*'vllm'") as caught:
                client.measure(server, POINT, restart=0, repeat=0, cancelled=never)
        finally:
            client.close()
            server.stop()
    assert caught.value.failure is FailureClass.CLIENT
    assert "Traceback" in Path(str(caught.value.log_path)).read_text()
