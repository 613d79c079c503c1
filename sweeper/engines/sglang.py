"""Starts SGLang as a process in its own environment, and proves that it is what was asked for.

Its knobs are the flags of ``python -m sglang.launch_server`` under the names that the server reports them by
(``knobs.sglang``), and its environment variables. It is supervised like vLLM, gets the same device mask, and
is loaded by vLLM's benchmark, which lies in another environment as a rule (``client.python``).

SGLang takes a key by its arguments alone, where every user of the machine reads it, and writes it into its
log. So its servers have none; they listen on loopback, and the socket proves that they are ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sweeper import knobs
from sweeper.engines import Cancelled, sglang_reports
from sweeper.engines.checks import Found
from sweeper.engines.endpoint import Answer
from sweeper.engines.environment import check_release, find_interpreter
from sweeper.engines.launched import LaunchedServer, bring_up, launch, why_another
from sweeper.engines.sglang_environment import (
    SglangEnvironment,
    flags_of,
    probe,
    server_environment,
    sglang_python,
)
from sweeper.processes import process as processes
from sweeper.processes.ports import ReservedPort
from sweeper.records import Assignment, EngineSpec, FailureClass, Placement, Platform, TrialSpec

# The older name first, which every release from 0.4.10 to 0.5.23 has; the newer one came with 0.5.6.
_INFO_PATHS = ("/get_server_info", "/server_info")


class _Flags(Mapping[str, knobs.SglangFlag]):
    """The flags of the newest release of the table, read when they are asked for."""

    def __getitem__(self, knob: str) -> knobs.SglangFlag:
        return flags_of(None)[knob]

    def __iter__(self) -> Iterator[str]:
        return iter(flags_of(None))

    def __len__(self) -> int:
        return len(flags_of(None))


FLAGS = _Flags()
"""Knobs that are flags of the newest release of the table, for messages that name the nearest one."""


def check(
    assignment: Assignment, *, allow_unknown: bool = False, engine: EngineSpec | None = None
) -> tuple[str, ...]:
    """Find what SGLang's server would not take, or would ignore; each refusal is one line of an error.

    Args:
        assignment: Knob to value.
        allow_unknown: Whether names pass that are not known.
        engine: Whose parser is asked; None takes the newest release of the table.
    """
    release = knobs.sglang_releases()[-1] if engine is None else engine.release
    return knobs.check_sglang(
        assignment, flags=flags_of(engine), release=release, allow_unknown=allow_unknown
    )


def find(engine: EngineSpec) -> Found:
    """Return the release in the environment of ``engine.python``.

    Raises:
        ConfigError: There is no SGLang.
    """
    python = sglang_python(engine)
    return Found(release=probe(python).versions["sglang"], where=python)


def server_command(spec: TrialSpec, *, python: str, port: int, flags: knobs.SglangFlags) -> tuple[str, ...]:
    """The command line of the server.

    The module is used and not ``sglang serve``, which 0.5.3 and earlier ones lack.

    Args:
        spec: The trial.
        python: Interpreter of SGLang's environment.
        port: Where to listen, on loopback.
        flags: Of the release.
    """
    model = spec.model
    is_on_hub = not Path(model.path).is_dir()
    return (
        *(python, "-m", "sglang.launch_server"),
        *("--model-path", model.path, "--served-model-name", model.name),
        *("--host", "127.0.0.1", "--port", str(port), "--enable-metrics"),
        *(("--revision", model.revision) if model.revision and is_on_hub else ()),
        *(("--load-format", "dummy") if model.is_dummy else ()),
        # Elsewhere it finds the device by itself, which the mask shows.
        *(("--device", "cpu") if spec.platform is Platform.CPU else ()),
        *knobs.sglang_command_line(spec.assignment, flags=flags),
    )


class SglangEngine:
    """Starts servers in the environment that the trial's spec names."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> SglangServer:
        """Start a server on the placement's devices and wait until it is ready and proven ours.

        Raises:
            EngineError: It did not come up; nothing of it is left running.
            MeasurementError: It came up as something else than was asked for; it is ended as well.
            ConfigError: The interpreter is missing or has no SGLang.
        """
        environment = probe(sglang_python(spec.engine))
        check_release(spec.engine, environment.release, title="SGLang")
        return bring_up(
            lambda reserved: _launch(spec, placement, environment, reserved, restart=restart),
            cancelled=cancelled,
        )


class SglangServer(LaunchedServer):
    """One running SGLang, from launch to end; `SglangEngine.start` hands out proven ones only."""

    # Schedulers and the detokenizer, as the releases from 0.4.10 to 0.5.23 call them.
    core_title = "sglang::"

    def prove(self) -> None:
        """Check that what answers is ours and runs as asked, and keep what it reports.

        Raises:
            EngineError: The port is held by a process that is not ours.
            MeasurementError: Version, model name or a knob differs from what was asked.
        """
        self._prove_socket()
        info = self._info().content
        self._prove_identity(info)
        reported = sglang_reports.read_effective(
            info,
            asked=self._spec.assignment,
            flags=_flags_to_write(self._spec),
            longest_tokens=self._longest_tokens(),
        )
        self.effective = {**reported, **self.surroundings()}
        self._refuse_differences()

    def counters(self) -> Mapping[str, float]:
        """Return what the engine has counted so far (`sglang_reports.read_metrics`); empty if silent."""
        since = knobs.release_key(sglang_reports.COUNTS_RETRACTED_FROM)
        return sglang_reports.read_metrics(
            self._endpoint.metrics(),
            counts_retracted=knobs.release_key(self._spec.engine.release) >= since,
        )

    def _info(self) -> Answer:
        answers = (self._endpoint.get(path, timeout_s=60.0) for path in _INFO_PATHS)
        found = next((answer for answer in answers if answer.is_ok and answer.content), None)
        if found is None:
            raise self._doubt(
                f"engine: it answers none of {', '.join(_INFO_PATHS)}; expected its configuration, without "
                "which nothing shows what ran. See its log.",
                FailureClass.WRONG_ENGINE,
            )
        return found

    def _prove_identity(self, info: Mapping[str, object]) -> None:
        version = info.get("version")
        problem = why_another(self._spec, self._endpoint, version=version, title="SGLang")
        if problem is not None:
            raise self._doubt(problem, FailureClass.WRONG_ENGINE)

    def _longest_tokens(self) -> object:
        listed = self._endpoint.get("/v1/models").content.get("data")
        first = listed[0] if isinstance(listed, list) and listed else None
        return first.get("max_model_len") if isinstance(first, dict) else None


def _flags_to_write(spec: TrialSpec) -> knobs.SglangFlags:
    """Return flags that say how an assignment is written: the table's, unless it lacks one.

    The parser was asked when the study was planned; to import SGLang once more would take time of a worker
    that loads another engine.
    """
    known = knobs.sglang_flags(spec.engine.release)
    is_known = all(knob in known or not knob.islower() for knob in spec.assignment)
    return known if is_known else {**known, **flags_of(spec.engine)}


def _launch(
    spec: TrialSpec,
    placement: Placement,
    environment: SglangEnvironment,
    reserved: ReservedPort,
    *,
    restart: int,
) -> SglangServer:
    python = find_interpreter(sglang_python(spec.engine))
    command = server_command(spec, python=python, port=reserved.port, flags=_flags_to_write(spec))
    env = server_environment(
        spec, placement, surroundings=os.environ, python=python, owner=processes.current()
    )
    process, log_path = launch(spec, placement, command=command, env=env, port=reserved.port, restart=restart)
    return SglangServer(
        spec,
        process=process,
        reserved=reserved,
        api_key="",
        command=command,
        log_path=log_path,
        versions=environment.versions,
    )
