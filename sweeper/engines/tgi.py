"""Starts Text Generation Inference (TGI) as a process, natively or in a container, and proves it.

Its knobs are the flags of ``text-generation-launcher`` by the same rule as vLLM's (``max_total_tokens`` is
``--max-total-tokens``) and its environment variables. The engine is supervised like vLLM, gets the same
device mask, and is loaded by vLLM's benchmark at ``/v1/completions``. Not run on a real TGI by this
project: it is tested against a process that speaks TGI's protocol.

A server that ``engine.prefix`` starts in a container is no child of ours, and one in an image may be of a
user whose sockets we may not see: there the socket proves nothing. The random key does: the server answers to
our key and to no other, and no other process was given it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sweeper import knobs
from sweeper.engines import Cancelled
from sweeper.engines.environment import client_environment, device_mask, machine_versions
from sweeper.engines.launched import LaunchedServer, bring_up, launch
from sweeper.errors import ConfigError, nearest
from sweeper.processes import masks
from sweeper.processes import process as processes
from sweeper.processes.ports import ReservedPort
from sweeper.processes.process import Process
from sweeper.records import Assignment, EngineSpec, FailureClass, Placement, Scalar, TrialSpec

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "disable_custom_kernels",
                "disable_grammar_support",
                "enable_prefill_logprobs",
                "json_output",
                "trust_remote_code",
            ),
            "switch",
        ),
        **dict.fromkeys(
            (
                "cuda_graphs",
                "cuda_memory_fraction",
                "dtype",
                "kv_cache_dtype",
                "max_batch_prefill_tokens",
                "max_batch_size",
                "max_batch_total_tokens",
                "max_best_of",
                "max_client_batch_size",
                "max_concurrent_requests",
                "max_input_length",
                "max_input_tokens",
                "max_stop_sequences",
                "max_top_n_tokens",
                "max_total_tokens",
                "max_waiting_tokens",
                "num_shard",
                "payload_limit",
                "quantize",
                "rope_factor",
                "rope_scaling",
                "sharded",
                "speculate",
                "tokenizer_config_path",
                "validation_workers",
                "waiting_served_ratio",
                "watermark_delta",
                "watermark_gamma",
            ),
            "value",
        ),
    }
)
"""Knobs that are flags of the launcher: a ``switch`` stands alone, a ``value`` is followed by one.

Source: docs/source/reference/launcher.md of huggingface/text-generation-inference, the releases 2 and 3."""

ENVIRONMENT_WORD = "{environment}"
"""In ``engine.prefix``, the place of ``--env NAME`` for each variable that a container must be given."""

VARIABLES = frozenset(
    {
        *("ATTENTION", "PREFIX_CACHING", "PREFILL_CHUNKING", "TGI_WIGGLE_ROOM", "LOG_LEVEL", "RUST_LOG"),
        *("ROCM_USE_FLASH_ATTN_V2_TRITON", "ROCM_USE_CUSTOM_PAGED_ATTN", "ROCM_USE_SKINNY_GEMM"),
        *("USE_FLASH_ATTENTION", "USE_CUSTOM_MODELING", "DISABLE_EXLLAMA", "EXLLAMA_VERSION"),
        *("USE_MARLIN", "FORCE_TGI_FLASH_ATTN", "ENABLE_CUDA_GRAPHS"),
    }
)
"""Environment variables of TGI that are no twin of a flag, which every flag has (``MAX_TOTAL_TOKENS``).

Source: server/text_generation_server/models/globals.py, utils/import_utils.py and docs on AMD GPUs of
huggingface/text-generation-inference, the releases 2 and 3; the list may lack some."""

# What /info reports of the configuration, under its names.
# Source: router/src/lib.rs, struct Info; model_dtype went with release 3.
_TOLD = (
    "max_concurrent_requests",
    "max_best_of",
    "max_stop_sequences",
    "max_input_tokens",
    "max_input_length",
    "max_total_tokens",
    "max_batch_total_tokens",
    "max_client_batch_size",
    "validation_workers",
    "waiting_served_ratio",
)


def check(assignment: Assignment, *, allow_unknown: bool = False) -> tuple[str, ...]:
    """Find what TGI's launcher would not take, or would ignore; each refusal is one line of an error."""
    refusals = []
    for knob, value in assignment.items():
        where = f"knob '{knob}' = {value!r}: "
        given = knobs.refuse_given(knob, value, flags=knobs.TGI_GIVEN_FLAGS)
        if given is not None:
            refusals.append(given.message)
        elif knobs.is_host_setting(knob) or knobs.is_of_sweeper(knob):
            continue
        elif knobs.is_variable(knob):
            if not (allow_unknown or _is_read(knob)):
                refusals.append(f"{where}{_UNREAD}{_meant(knob)}")
        elif knob not in FLAGS:
            refusals.append(f"{where}TGI has no flag of this name.{nearest(knob, FLAGS)}")
        elif FLAGS[knob] == "switch" and not isinstance(value, bool):
            refusals.append(f"{where}expected true or false, since it is a switch. Write it without quotes.")
    return tuple(refusals)


_UNREAD = (
    "neither TGI nor anything beneath it is known to read a variable of this name, and one that nobody reads "
    "does nothing. Where one does, engine.allow_unknown=true lets it pass."
)


def _is_read(name: str) -> bool:
    return name in VARIABLES or name.lower() in FLAGS or knobs.is_read_by_runtime(name)


def _meant(name: str) -> str:
    twins = [flag.upper() for flag in FLAGS]
    return nearest(name, [*VARIABLES, *twins, *knobs.runtime_variables()])


def command_line(assignment: Assignment) -> tuple[str, ...]:
    """Write the flags of an assignment; a switch that is off is left out. Sorted by knob."""
    words: list[str] = []
    for knob, value in sorted(assignment.items()):
        if knobs.is_variable(knob) or knobs.is_host_setting(knob) or knobs.is_of_sweeper(knob):
            continue
        flag = "--" + knob.replace("_", "-")
        if FLAGS.get(knob) == "switch":
            words += [flag] if value else []
        else:
            words += [flag, str(value).lower() if isinstance(value, bool) else str(value)]
    return tuple(words)


def server_command(spec: TrialSpec, *, port: int, variables: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The command line of the server, without secrets.

    Args:
        spec: The trial, whose engine names program and prefix.
        port: Where to listen, on loopback.
        variables: Names of the variables that a container is given; their values are not in the command.
    """
    given = tuple(word for name in variables for word in ("--env", name))
    prefix = (
        word
        for written in spec.engine.prefix
        for word in (given if written == ENVIRONMENT_WORD else (written,))
    )
    model = spec.model
    is_on_hub = not Path(model.path).is_dir()
    return (
        *prefix,
        spec.engine.command,
        *("--model-id", model.path),
        *(("--revision", model.revision) if model.revision and is_on_hub else ()),
        *("--hostname", "127.0.0.1", "--port", str(port)),
        *command_line(spec.assignment),
    )


def server_environment(
    spec: TrialSpec,
    placement: Placement,
    *,
    surroundings: Mapping[str, str],
    api_key: str,
    owner: Process,
    folder: Path,
) -> dict[str, str]:
    """The environment of the server: our surroundings, the knobs, exactly one device mask, our marks.

    Args:
        spec: The trial.
        placement: Its devices.
        surroundings: Environment to start from, as a rule our own.
        api_key: Key that the server shall ask for.
        owner: Process that is to end it.
        folder: Takes the sockets between TGI's processes, which by default all TGIs of a machine share.
    """
    program = shutil.which(spec.engine.command) or spec.engine.command
    around = client_environment(spec, surroundings=surroundings, python=program, owner=owner, stub=None)
    return {
        **around,
        **_own_environment(spec, placement, api_key=api_key, folder=folder),
        **masks.expected(device_mask(spec.platform, placement.devices)),
    }


def _own_environment(spec: TrialSpec, placement: Placement, *, api_key: str, folder: Path) -> dict[str, str]:
    return {
        # Each TGI of a machine needs its own; containers have theirs.
        **({} if spec.engine.prefix else {"SHARD_UDS_PATH": str(folder / "shard")}),
        **knobs.environment(spec.assignment, release=spec.engine.release),
        # After the knobs: what follows is not for an assignment to change.
        **device_mask(spec.platform, placement.devices),
        "API_KEY": api_key,
    }


class TgiEngine:
    """Starts TGI servers."""

    def start(
        self, spec: TrialSpec, placement: Placement, *, restart: int, cancelled: Cancelled
    ) -> TgiServer:
        """Start a server on the placement's devices and wait until it is ready and proven ours.

        Raises:
            EngineError: It did not come up; nothing of it is left running.
            MeasurementError: It came up as something else than was asked for; it is ended as well.
            ConfigError: The program is not there.
        """
        if spec.engine.container is None:
            find_program(spec.engine)
        return bring_up(
            lambda reserved: _launch(spec, placement, reserved, restart=restart), cancelled=cancelled
        )


class TgiServer(LaunchedServer):
    """One running TGI, from launch to end; `TgiEngine.start` hands out proven ones only."""

    def prove(self) -> None:
        """Check that what answers is ours and runs as asked, and keep what it reports.

        Raises:
            EngineError: The port is held by a process that is not ours.
            MeasurementError: The key, the model or a knob differs from what was given.
        """
        if self._spec.engine.prefix:
            self._prove_key()
        else:
            self._prove_socket()
        info = self._endpoint.get("/info").content
        served = info.get("model_id")
        if served != self._spec.model.path:
            raise self._doubt(
                f"engine: it serves {served!r}; expected '{self._spec.model.path}'. See its log.",
                FailureClass.WRONG_ENGINE,
            )
        version, commit = info.get("version"), info.get("sha")
        told = {"tgi": version, "tgi_commit": commit}
        self.versions = {**self.versions, **{name: str(text) for name, text in told.items() if text}}
        self.effective = {**read_info(info), **self.surroundings()}
        self._refuse_differences()

    def prove_ours(self) -> frozenset[int]:
        """Check that the process that was proven at the start, and no other, still answers.

        Returns:
            Ids of all processes that are known to be the engine's; not those of a container of a prefix.

        Raises:
            EngineError: It has ended, or nobody listens any more.
            MeasurementError: Another process listens on the port, or answers to other keys than ours.
        """
        if not self._spec.engine.prefix:
            return super().prove_ours()
        self._raise_if_ended()
        self._prove_key()
        return frozenset(self._process.pids())

    def counters(self) -> Mapping[str, float]:
        """Return nothing: TGI counts no cache hits and no preemptions."""
        return {}

    def _prove_key(self) -> None:
        # TGI asks for the key where something is generated and nowhere else, so not at /v1/models.
        # Source: router/src/server.rs of 3.3, whose info_routes are merged after the layer that asks for it.
        without_key = replace(self._endpoint, api_key=secrets.token_urlsafe(24))
        question = {"inputs": "Hello", "parameters": {"max_new_tokens": 1}}
        refused = without_key.post("/generate", question, timeout_s=self._spec.engine.sanity_timeout_s)
        answered = self._endpoint.post("/generate", question, timeout_s=self._spec.engine.sanity_timeout_s)
        if refused.status not in (401, 403) or not answered.is_ok:
            mend = (
                f"Pass the container its variables: put '{ENVIRONMENT_WORD}' into engine.prefix."
                if self._spec.engine.prefix
                else "End the other program."
            )
            raise self._doubt(
                f"engine: port {self._reserved.port} answers a wrong key with status {refused.status} and "
                f"ours with {answered.status}; expected 401 and 200, which prove that it was started by us. "
                f"{mend}",
                FailureClass.WRONG_ENGINE,
            )


def read_info(info: Mapping[str, object]) -> dict[str, Scalar]:
    """Read the configuration out of TGI's ``/info``, by knob name; what it does not report is absent."""
    told = {name: info[name] for name in _TOLD if isinstance(info.get(name), bool | int | float | str)}
    return {name: value for name, value in told.items() if isinstance(value, bool | int | float | str)}


def find_program(engine: EngineSpec) -> str:
    """Find what is started: the prefix's program where there is one, else TGI's own.

    Raises:
        ConfigError: It is not there.
    """
    key, name = ("prefix", engine.prefix[0]) if engine.prefix else ("command", engine.command)
    found = shutil.which(name)
    if found is None:
        raise ConfigError(
            f"engine.{key}: there is no program {name}; expected a path or a name on PATH. "
            "Install TGI, or run it in a container (docs/engines.md, TGI)."
        )
    return found


def _launch(spec: TrialSpec, placement: Placement, reserved: ReservedPort, *, restart: int) -> TgiServer:
    folder = Path(spec.folder).resolve()
    api_key = secrets.token_urlsafe(24)
    own = _own_environment(spec, placement, api_key=api_key, folder=folder)
    env = server_environment(
        spec,
        placement,
        surroundings=os.environ,
        api_key=api_key,
        owner=processes.current(),
        folder=folder,
    )
    command = server_command(spec, port=reserved.port, variables=tuple(sorted(own)))
    process, log_path = launch(spec, placement, command=command, env=env, port=reserved.port, restart=restart)
    return TgiServer(
        spec,
        process=process,
        reserved=reserved,
        api_key=api_key,
        command=command,
        log_path=log_path,
        versions=machine_versions(),
    )


def find(engine: EngineSpec) -> None:
    """Check that its program is there; it reports its version when it runs.

    Raises:
        ConfigError: It is not.
    """
    if engine.container is None:
        find_program(engine)
