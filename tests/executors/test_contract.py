"""What holds for every executor: results come back, a lost worker is a result, a stop stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.executors import Executor
from sweeper.executors.inline import InlineExecutor
from sweeper.executors.private_ray import PrivateRay, own_temp_dir
from sweeper.executors.ray import RayExecutor, _is_cancelled, run_in_worker
from sweeper.processes import orphans
from sweeper.processes import process as processes
from sweeper.processes.process import Process
from sweeper.records import FailureClass, LoadPoint, Placement, TrialResult, TrialSpec, TrialState
from tests.standin_server import PLACEMENT, make_spec, write_interpreter
from tests.surroundings import running


@pytest.fixture(scope="module")
def ray_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    executor = RayExecutor(PrivateRay(devices=8, log_path=tmp_path_factory.mktemp("ray") / "ray.log"))
    yield executor
    executor.close()


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_executor")
        return
    inline = InlineExecutor(max_parallel=8)
    yield inline
    inline.close()


def results(executor: Executor, count: int, *, within_s: float = 120.0) -> dict[int, TrialResult]:
    found: dict[int, TrialResult] = {}
    deadline = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline:
        found.update(executor.wait(0.5))
    assert len(found) == count
    return found


def test_every_trial_comes_back_under_its_own_ticket(
    executor: Executor, simulated_spec: TrialSpec, placement: Placement
) -> None:
    specs = [
        replace(simulated_spec, assignment={"tensor_parallel_size": 4, "max_num_seqs": n}) for n in (4, 8)
    ]
    tickets = {executor.submit(spec, placement): spec for spec in specs}
    for ticket, result in results(executor, 2).items():
        assert result.spec == tickets[ticket]
        assert result.state is TrialState.COMPLETE, result.failure_message
        assert result.placement == placement


def test_nothing_submitted_is_nothing_finished(executor: Executor) -> None:
    assert executor.wait(0.01) == []


def test_trial_that_cannot_even_be_begun_is_failed_result(
    executor: Executor, simulated_spec: TrialSpec, placement: Placement
) -> None:
    broken = replace(simulated_spec, calibration={"no_such_parameter": 1.0})
    executor.submit(broken, placement)
    (result,) = results(executor, 1).values()
    assert result.state is TrialState.FAILED
    assert result.failure_class is not None
    assert "no_such_parameter" in (result.failure_message or "")


def test_trials_one_after_another_import_once(executor: Executor, tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "outputs", write_interpreter(tmp_path / "bin"))
    Path(spec.model.path).mkdir(exist_ok=True)
    kept = []
    for name in ("first", "second", "third"):
        own = replace(spec, folder=str(Path(spec.folder).with_name(name)))
        executor.submit(own, PLACEMENT)
        (result,) = results(executor, 1).values()
        assert result.state is TrialState.COMPLETE, result.failure_message
        files = [json.loads(path.read_text()) for path in sorted(Path(own.folder).glob("*.start.json"))]
        assert all("ended_at" in facts for facts in files)
        kept.append([facts["pid"] for facts in files])
    assert kept[0] == kept[1] == kept[2]
    assert len(set(kept[0])) == 2


def test_closing_twice_is_harmless(simulated_spec: TrialSpec, placement: Placement) -> None:
    inline = InlineExecutor(max_parallel=1)
    inline.submit(simulated_spec, placement)
    inline.close()
    inline.close()


def test_cancelled_inline_trial_ends_as_interrupted(simulated_spec: TrialSpec, placement: Placement) -> None:
    inline = InlineExecutor(max_parallel=1)
    inline.cancel()
    inline.submit(simulated_spec, placement)
    (result,) = results(inline, 1).values()
    assert result.failure_class is FailureClass.INTERRUPTED
    inline.close()


def raylets() -> list[processes.Process]:
    below = processes.descendants(os.getpid())
    return [p for p in below if processes.title(p.pid).partition(" ")[0].endswith("/raylet")]


def end_raylets() -> None:
    """Kill them; one that died by itself, as on a busy machine it may, is what is wanted, too."""
    found = raylets()
    for raylet in found:
        os.kill(raylet.pid, signal.SIGKILL)
    # A dying process has no command line any more while it still lives.
    while any(map(processes.is_alive, found)):
        time.sleep(0.05)


def test_ray_worker_runs_same_trial_body(simulated_spec: TrialSpec, placement: Placement) -> None:
    before = raylets()
    result = run_in_worker(simulated_spec, placement)
    assert result.state is TrialState.COMPLETE
    # Asking for a task where there is none starts a Ray that nobody ends.
    assert raylets() == before


def test_trial_whose_driver_is_gone_ends_by_itself(simulated_spec: TrialSpec, placement: Placement) -> None:
    with running(["sleep", "60"]) as driver:
        known = processes.find(driver.pid)
        assert known is not None
        assert run_in_worker(simulated_spec, placement, known).state is TrialState.COMPLETE
    assert run_in_worker(simulated_spec, placement, known).failure_class is FailureClass.INTERRUPTED


@pytest.mark.ray
def test_killed_ray_worker_is_transient_failure(
    ray_executor: RayExecutor, simulated_spec: TrialSpec, placement: Placement
) -> None:
    # Enough work that the worker is still at it when it is killed.
    long = replace(
        simulated_spec,
        load_points=(LoadPoint(dataset="sharegpt", num_prompts=20000, request_rate_per_s=1.0),),
        repeats=50,
    )
    before = {p.pid for p in processes.descendants(os.getpid())}
    ray_executor.submit(long, placement)
    victim = None
    deadline = time.monotonic() + 60
    while victim is None and time.monotonic() < deadline:
        time.sleep(0.2)
        for process in processes.descendants(os.getpid()):
            title = (
                Path(f"/proc/{process.pid}/cmdline").read_bytes()
                if Path(f"/proc/{process.pid}").exists()
                else b""
            )
            if title.startswith(b"ray::trial"):
                victim = process
    assert victim is not None, f"no worker among {before}"
    os.kill(victim.pid, signal.SIGKILL)
    (result,) = results(ray_executor, 1).values()
    assert result.failure_class is FailureClass.INFRASTRUCTURE
    assert result.failure_class.is_transient
    assert "the worker of this trial was lost" in (result.failure_message or "")


@pytest.mark.ray
@pytest.mark.parametrize("delay_s", [0.0, 3.0])
def test_cancelled_ray_trial_ends_as_interrupted_begun_or_not(
    ray_executor: RayExecutor, simulated_spec: TrialSpec, placement: Placement, delay_s: float
) -> None:
    long = replace(
        simulated_spec,
        load_points=(LoadPoint(dataset="sharegpt", num_prompts=20000, request_rate_per_s=1.0),),
        repeats=50,
    )
    ray_executor.submit(long, placement)
    time.sleep(delay_s)
    ray_executor.cancel()
    (result,) = results(ray_executor, 1).values()
    assert result.state is TrialState.FAILED
    assert result.failure_class is FailureClass.INTERRUPTED
    assert result.failure_message == "stopped on request"


@pytest.mark.ray
def test_worker_learns_of_cancellation_whose_interrupt_was_lost(ray_executor: RayExecutor) -> None:
    import ray

    @ray.remote(num_cpus=0, max_retries=0)
    def deaf() -> bool:
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            # As an object's finaliser would, were the interrupt to come there.
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.1)
                if _is_cancelled():
                    return True
        return False

    task = deaf.remote()
    time.sleep(2.0)
    assert ray.wait([task], timeout=0) == ([], [task])
    ray.cancel(task, force=False)
    began = time.monotonic()
    ray.wait([task], timeout=60.0)
    assert time.monotonic() - began < 50.0


def test_folder_of_killed_owner_is_removed_by_next_start() -> None:
    with running(["sleep", "60"]) as gone:
        pass
    stale = Path(tempfile.gettempdir()) / f"sweeper-ray-{gone.pid}-stale"
    mine = Path(tempfile.gettempdir()) / f"sweeper-ray-{os.getpid()}-mine"
    for folder in (stale, mine):
        folder.mkdir()
    made = own_temp_dir()
    try:
        assert made.parent == mine.parent
        assert not stale.exists()
        assert mine.exists()
    finally:
        for folder in (made, mine):
            folder.rmdir()


AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
_DRIVER = """
import sys, time
from pathlib import Path
from sweeper.executors.private_ray import PrivateRay
PrivateRay(devices=1, log_path=Path(sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""


def title_of(process: Process) -> str:
    return processes.title(process.pid)


@pytest.mark.ray
def test_killed_driver_leaves_neither_agents_nor_folder_of_its_ray(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _DRIVER, str(tmp_path / "ray.log")]
    with running(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "up\n"
        (folder,) = Path(tempfile.gettempdir()).glob(f"sweeper-ray-{driver.pid}-*")
        deadline = time.monotonic() + 60.0
        agents: set[str] = set()
        while len(agents) < 2 and time.monotonic() < deadline:
            below = processes.descendants(driver.pid)
            agents = {title for title in map(title_of, below) if title in AGENTS}
        assert agents == AGENTS
    # These would stay for a minute.
    deadline = time.monotonic() + 30.0
    while (folder.exists() or any(map(processes.is_alive, below))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [title_of(process) for process in below if processes.is_alive(process)] == []
    assert not folder.exists()


def test_folder_leaves_room_for_paths_of_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a batch system that gives each job a temporary folder with a long name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = own_temp_dir()
    try:
        # What Ray makes below it; a path of a socket has at most 107 characters.
        socket = made / "session_2026-11-27_03-20-11_039025_4194304" / "sockets" / "plasma_store"
        assert len(str(socket)) <= 107
    finally:
        made.rmdir()


def test_executor_of_one_machine_loses_no_node(executor: Executor) -> None:
    assert executor.lost_nodes() == frozenset()


@pytest.mark.ray
def test_trial_given_to_ray_that_died_meanwhile_runs_in_new_one(
    ray_executor: RayExecutor, simulated_spec: TrialSpec, placement: Placement
) -> None:
    end_raylets()
    ray_executor.submit(simulated_spec, placement)
    (result,) = results(ray_executor, 1).values()
    assert result.state is TrialState.COMPLETE, result.failure_message


# Trials that share a start


def sharing(outputs: Path, python: Path, *, seqs: int, start: int | None = 32) -> TrialSpec:
    live_start = None if start is None else {"max_num_seqs": start}
    spec = make_spec(outputs, python, assignment={"max_num_seqs": seqs}, live_start=live_start)
    return replace(spec, folder=str(outputs / "study" / "trials" / spec.key))


def only_result(executor: Executor, spec: TrialSpec) -> TrialResult:
    ticket = executor.submit(spec, PLACEMENT)
    return results(executor, 1)[ticket]


def engines_of(outputs: Path) -> list[Process]:
    launches = map(orphans.read_start_file, outputs.glob("study/trials/*/engine-*.start.json"))
    return [member for launch in launches if launch is not None for member in launch.members()]


def test_trials_share_a_start_until_another_one_needs_its_devices(executor: Executor, tmp_path: Path) -> None:
    outputs, python = tmp_path / "outputs", write_interpreter(tmp_path / "bin")
    found = [only_result(executor, sharing(outputs, python, seqs=seqs)) for seqs in (8, 4)]
    assert [result.failure_message for result in found] == [None, None]
    assert [result.effective["max_num_seqs"] for result in found] == [8, 4]
    assert [result.effective["live_trial"] for result in found] == [0, 1]
    assert engines_of(outputs)
    fresh = only_result(executor, sharing(outputs, python, seqs=8, start=None))
    assert fresh.state is TrialState.COMPLETE
    assert engines_of(outputs) == []


@pytest.mark.ray
def test_killed_holder_of_an_engine_is_transient_failure_and_rest_gets_new_start(
    ray_executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, python = tmp_path / "outputs", write_interpreter(tmp_path / "bin")
    first = only_result(ray_executor, sharing(outputs, python, seqs=8))
    assert first.state is TrialState.COMPLETE
    owners = {launch.owner.pid for launch in map(read, outputs.glob("study/trials/*/engine-*.start.json"))}
    for pid in owners:
        os.kill(pid, signal.SIGKILL)
    lost = only_result(ray_executor, sharing(outputs, python, seqs=4))
    assert lost.failure_class is FailureClass.INFRASTRUCTURE
    assert engines_of(outputs) == []
    again = only_result(ray_executor, sharing(outputs, python, seqs=4))
    assert again.state is TrialState.COMPLETE
    assert again.effective["live_trial"] == 0
    only_result(ray_executor, sharing(outputs, python, seqs=8, start=None))
    assert engines_of(outputs) == []


def read(path: Path) -> orphans.Launch:
    launch = orphans.read_start_file(path)
    assert launch is not None
    return launch


def test_engine_that_waits_ends_with_its_executor(tmp_path: Path) -> None:
    outputs, python = tmp_path / "outputs", write_interpreter(tmp_path / "bin")
    inline = InlineExecutor(max_parallel=1)
    assert only_result(inline, sharing(outputs, python, seqs=8)).state is TrialState.COMPLETE
    assert engines_of(outputs)
    inline.close()
    assert engines_of(outputs) == []
