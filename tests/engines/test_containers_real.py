"""Engines in real containers: started, proven, and ended, whoever or whatever dies.

The engine is the stand-in that answers as vLLM does; a program of this machine, mounted into an image that
holds a shell. Skipped, with the reason, where no container can run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from sweeper.engines import images, vllm_environment
from sweeper.engines.tgi import TgiEngine
from sweeper.engines.vllm import VllmEngine, VllmServer
from sweeper.errors import ConfigError, EngineError
from sweeper.processes import containers, orphans, process
from sweeper.records import ContainerSpec, EngineSpec, FailureClass, TrialSpec
from tests import runtimes as containing
from tests.runtimes import SHELL, Runtime
from tests.standin_server import PLACEMENT, make_spec, never, write_interpreter
from tests.standin_tgi import write_launcher


@pytest.fixture(scope="module", params=["podman", "docker"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with containing.opened(tmp_path_factory.mktemp(request.param), request.param) as found:
        yield found


@pytest.fixture
def contained(runtime: Runtime, tmp_path: Path) -> Iterator[Callable[..., TrialSpec]]:
    """Trials of the stand-in in an image, and a look afterwards that no container is left."""
    yield partial(trial_in, runtime, tmp_path)
    assert runtime.running() == []


def trial_in(
    runtime: Runtime, folder: Path, image: str = SHELL, *arguments: str, **changes: object
) -> TrialSpec:
    tools = folder / "bin"
    python = write_interpreter(tools)
    spec = make_spec(folder / "outputs", "", **changes)
    container = ContainerSpec(
        image=image,
        runtime=runtime.name,
        arguments=(*containing.mounts_of_this_machine(tools), "--env", "STANDIN", *arguments),
        python=str(python),
    )
    Path(spec.model.path).mkdir(parents=True, exist_ok=True)
    engine = images.provided(replace(spec.engine, container=container), may_pull=False)
    return replace(spec, engine=images.with_mounts(engine, [spec.model.path]))


def started(spec: TrialSpec) -> VllmServer:
    return VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)


def test_engine_in_container_is_proven_asked_and_ended(
    contained: Callable[..., TrialSpec], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    spec = contained()
    server = started(spec)
    try:
        assert server.sanity().startswith(" Paris")
        ours = server.prove_ours()
        (name,) = runtime.running()
        main = containers.Container(runtime=runtime.name, start=name).main_process()
        assert main is not None and main.pid in ours
        assert server.effective["max_num_seqs"] == 8
        words = list(server.command)
        assert words[:3] == [runtime.name, "run", "--rm"] and words[words.index("--name") + 1] == name
        assert SHELL in words
        # Passed by name: every user of the machine can read a command line.
        assert "VLLM_API_KEY" in words and "HF_TOKEN" in words
        assert not any(server.api_key in word or "hf_secret_of_mine" in word for word in words)
        inside = process.environment(max(server.pids()))
        assert (inside["VLLM_API_KEY"], inside["HF_TOKEN"]) == (server.api_key, "hf_secret_of_mine")
        assert inside["PATH"] != os.environ["PATH"]
    finally:
        server.stop()
    assert runtime.running() == [] and server.pids() == set()
    stored = (Path(spec.folder) / "engine-1-0.command.json").read_text()
    assert "hf_secret_of_mine" not in stored and server.api_key not in stored


def test_any_launched_engine_runs_in_an_image(
    contained: Callable[..., TrialSpec], runtime: Runtime, tmp_path: Path
) -> None:
    launcher = write_launcher(tmp_path / "bin")
    spec = contained(assignment={"max_total_tokens": 2048})
    engine = replace(spec.engine, kind="tgi", command=str(launcher), python=None)
    server = TgiEngine().start(replace(spec, engine=engine), PLACEMENT, restart=0, cancelled=never)
    try:
        assert server.effective["max_total_tokens"] == 2048
        assert server.command[server.command.index("--entrypoint") + 1] == str(launcher)
        assert len(runtime.running()) == 1 and server.prove_ours()
    finally:
        server.stop()


def test_interpreter_of_image_is_asked_inside(contained: Callable[..., TrialSpec]) -> None:
    spec = contained()
    found = vllm_environment.probe(str(spec.engine.python))
    assert (found.release, found.versions["torch"]) == ("0.32.0", "2.13.0")


def test_killed_container_is_a_death_with_the_engines_last_line(
    contained: Callable[..., TrialSpec], runtime: Runtime
) -> None:
    server = started(contained())
    try:
        runtime("kill", *runtime.running())
        with pytest.raises(EngineError) as caught:
            for _ in range(900):
                server.check_alive()
                time.sleep(0.1)
        assert caught.value.failure is FailureClass.CRASH and "signal 9" in str(caught.value)
    finally:
        server.stop()


def test_engine_that_ignores_the_request_to_stop_is_killed(
    contained: Callable[..., TrialSpec], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "unstoppable")
    server = started(contained(stop_timeout_s=1.0))
    assert 1.0 <= server.stop() < 30.0
    assert runtime.running() == [] and server.pids() == set()


@pytest.mark.parametrize("victim", ["client of the runtime", "supervisor"])
def test_container_is_ended_when_what_watches_it_is_killed(
    contained: Callable[..., TrialSpec], runtime: Runtime, victim: str
) -> None:
    server = started(contained())
    launch = server._process.launch
    (client,) = [
        p
        for p in process.descendants(launch.supervisor.pid)
        if process.title(p.pid).startswith(f"{runtime.name} run")
    ]
    killed = client if victim == "client of the runtime" else launch.supervisor
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(EngineError):
        for _ in range(900):
            server.check_alive()
            time.sleep(0.1)
    server.stop()
    assert runtime.running() == []


_DRIVER = """
import pickle, sys, time
from pathlib import Path
from sweeper.engines.vllm import VllmEngine
from tests.standin_server import PLACEMENT, never
spec = pickle.loads(Path(sys.argv[1]).read_bytes())
server = VllmEngine().start(spec, PLACEMENT, restart=0, cancelled=never)
print("up", server._process.launch.supervisor.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("takes_supervisor", [False, True])
def test_container_of_killed_driver_is_ended(
    contained: Callable[..., TrialSpec], runtime: Runtime, tmp_path: Path, takes_supervisor: bool
) -> None:
    """By the supervisor; where that was killed, too, by the next start, which leaves all others alone."""
    import pickle

    spec = contained()
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    words = [sys.executable, "-c", _DRIVER, str(tmp_path / "spec")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=containing.ROOT) as driver:
        assert driver.stdout is not None
        _, supervisor = driver.stdout.readline().split()
        ours = runtime.running()
        runtime.idle("of-another")
        try:
            assert len(ours) == 1
            if takes_supervisor:
                # First: it ends the container as soon as its owner is gone.
                os.kill(int(supervisor), signal.SIGKILL)
            driver.kill()
            if takes_supervisor:
                driver.wait()
                ended = orphans.end_abandoned_containers(tmp_path / "outputs")
                assert [abandoned.container.start for abandoned in ended] == ours
                assert spec.key not in str(ended[0]) or "trial" in str(ended[0])
            deadline = time.monotonic() + 60
            while runtime.running() != ["of-another"] and time.monotonic() < deadline:
                time.sleep(0.2)
            assert runtime.running() == ["of-another"]
            orphans.end_orphans(tmp_path / "outputs")
            assert runtime.running() == ["of-another"]
        finally:
            runtime.remove("of-another")


def test_engine_does_not_outlive_a_killed_daemon(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A short folder: a path of a socket has at most 107 characters.
    with containing.opened(tmp_path_factory.mktemp("killed"), "docker") as docker:
        assert docker.daemon is not None
        server = started(trial_in(docker, tmp_path))
        inside = server.pids()
        assert len(inside) >= 2
        docker.daemon.kill()
        docker.daemon.wait()
        with pytest.raises(EngineError, match=r"ended with exit code 125; last line: .*unexpected EOF"):
            for _ in range(900):
                server.check_alive()
                time.sleep(0.1)
        server.stop()
        assert server.pids() == set()
        assert not any(Path(f"/proc/{pid}").exists() for pid in inside)


def test_container_that_took_our_name_is_left_alone(runtime: Runtime) -> None:
    taken = containers.Container(runtime=runtime.name, start="sweeper-0123456789abcdef")
    runtime.idle(taken.start)
    try:
        assert taken.remove() and taken.main_process() is None
        assert runtime.running() == [taken.start]
    finally:
        runtime.remove(taken.start)


def test_image_that_is_not_here_is_one_message(runtime: Runtime) -> None:
    spec = EngineSpec(
        kind="vllm",
        release="0.32.0",
        container=ContainerSpec(image="localhost/absent:1", runtime=runtime.name),
    )
    with pytest.raises(
        ConfigError, match=r"is not on this machine, and a plan fetches nothing; .* Fetch"
    ) as told:
        images.provided(spec, may_pull=False)
    assert str(told.value).endswith(f" Fetch it: {runtime.name} pull localhost/absent:1")
    with pytest.raises(
        ConfigError, match=rf"'{runtime.name} pull localhost/absent:1' failed: .*expected one of both"
    ):
        images.provided(spec, may_pull=True)
