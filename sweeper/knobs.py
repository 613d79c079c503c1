"""The knobs of vLLM: what every release takes, and the command line that means what was asked.

vLLM changes its flags with almost every release, and the dangerous changes are silent: a flag that is
still accepted but read by nothing, a word that is parsed as something else, a default that moved. So a
sweep over releases needs to know three things before anything starts: does this release have the knob
and does the knob act (``check``), how is it written there (``command_line``, ``environment``,
``serve_line``), and what would hold if it were left out (``defaults``).

The facts lie in tables under ``data/`` (its README tells how they were made); they cover vLLM 0.4.2 to
0.33.0. A later release is taken to be like the last one covered, a development build like the last
release before it. Whether a value is wise, fits in memory, or is kept by the engine is not known here.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from sweeper.errors import ConfigError, KnobError, nearest
from sweeper.records import Assignment, Scalar

Accelerator = Literal["rocm", "cuda", "cpu"]
"""What the engine runs on. For defaults that hang on the device, ``rocm`` is an MI300X of 192 GB and
``cuda`` an H100 of 80 GB."""

Generation = Literal["v0", "v1"]
"""vLLM's engine before and after its rewrite."""

RefusalKind = Literal["unknown", "not_yet", "removed", "no_effect", "bad_value", "conflict"]

ReleaseKey = tuple[tuple[int, ...], tuple[int, int], int, float]

NO_KNOBS: Assignment = MappingProxyType({})

_FROM_THE_TABLE = frozenset({"unknown", "not_yet", "removed", "no_effect"})
_LLAMA_3_1_POSITIONS = 131072


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A knob that experiments vary, declared with its unit and where its meaning was taken from.

    Attributes:
        name: As in an assignment.
        type: Of its values, and so of its column.
        unit: Of its values; empty for a switch or a name.
        meaning: What it does, in one line.
        minimum: Smallest value the engine takes, if it has one.
        maximum: Largest value the engine takes, if it has one.
        source: Where the meaning comes from.
    """

    name: str
    type: type
    unit: str
    meaning: str
    minimum: float | None
    maximum: float | None
    source: str


_HOST_SETTINGS: Mapping[str, str] = {"host_numa_balancing": "kernel.numa_balancing"}

_SHORT_NAMES: Mapping[str, str] = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "q": "quantization",
    "O": "optimization_level",
}

# Given by whoever starts the server; in an assignment they would contradict it or end up in a result.
_LAUNCHER_FLAGS = frozenset({"model", "host", "port", "api_key", "config"})

# Where a switch took a value instead of having a twin, first and last release.
# Source: vLLM's own action StoreBoolean in engine/arg_utils.py.
_VALUE_FORM: Mapping[str, tuple[str, str]] = {
    "enable_chunked_prefill": ("0.5.3", "0.8.4"),
    "multi_step_stream_outputs": ("0.6.3", "0.8.4"),
}

# Switches that are on when they are left out, from which release.
_ON_BY_DEFAULT: Mapping[str, str] = {"use_tqdm_on_load": "0.8.0", "disable_log_requests": "0.10.1"}

# Read by the V0 engine alone; V1 accepts them and does nothing.
_READ_BY_V0_ONLY = frozenset(
    {
        "max_seq_len_to_capture",
        "swap_space",
        "disable_frontend_multiprocessing",
        "multi_step_stream_outputs",
        "VLLM_USE_TRITON_FLASH_ATTN",
        "VLLM_RPC_TIMEOUT",
    }
)

# From these releases a value that is not in data/vllm_values.csv may still be right.
_OPEN_LIST_FROM: Mapping[str, str] = {
    "quantization": "0.4.2",
    "load_format": "0.10.1",
    "distributed_executor_backend": "0.10.2",
    "block_size": "0.18.0",
    "kv_cache_dtype": "0.33.0",
}

_BEFORE_IT: Mapping[str, str] = {
    "async_scheduling": "num_scheduler_steps (0.5.5 to 0.10.0)",
    "num_scheduler_steps": "no release before 0.5.5 plans several steps at once",
    "cuda_graph_sizes": "max_seq_len_to_capture (0.4.3 to 0.10.2), by sequence length and not by step",
    "cudagraph_capture_sizes": "cuda_graph_sizes (0.9.0 to 0.12.0), before it max_seq_len_to_capture",
    "max_cudagraph_capture_size": "cuda_graph_sizes (0.9.0 to 0.12.0), before it max_seq_len_to_capture",
    "speculative_config": "speculative_model and num_speculative_tokens (to 0.8.2)",
    "attention_backend": "VLLM_ATTENTION_BACKEND (to 0.14.1)",
    "enable_log_requests": "leave it out: requests are logged by default before 0.10.1",
    "VLLM_RPC_TIMEOUT": "VLLM_RPC_GET_DATA_TIMEOUT_MS (0.5.5 to 0.6.1)",
    "VLLM_ENGINE_READY_TIMEOUT_S": "VLLM_RPC_TIMEOUT (0.6.2 to 0.10.2, in ms)",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a knob cannot be used as asked.

    Attributes:
        knob: Its name as it was given.
        value: Its value as it was given.
        kind: ``unknown``, ``not_yet``, ``removed``, ``no_effect``, ``bad_value`` or ``conflict``.
        reason: Full sentences: what is wrong, since which release, and what to do.
    """

    knob: str
    value: Scalar
    kind: RefusalKind
    reason: str

    @property
    def message(self) -> str:
        """The refusal as one line of an error or a report."""
        return f"knob '{self.knob}' = {self.value!r}: {self.reason}"


# --- releases -------------------------------------------------------------------------------------

_RELEASE = re.compile(
    r"v?(?P<numbers>\d+(?:\.\d+)*)"
    r"(?:\.?(?P<phase>a|b|rc)(?P<pre>\d+))?"
    r"(?:\.?post(?P<post>\d+))?"
    r"(?:\.?dev(?P<dev>\d+))?"
    r"(?:\+.*)?"
)


@cache
def release_key(text: str) -> ReleaseKey:
    """Order releases of vLLM as they followed one another.

    Args:
        text: ``0.6.2``, ``0.6.3.post1``, ``0.6.3.dev116+g151ef4ef``, ``0.32.0+cpu``, or ``pre-0.4.3``
            for anything before 0.4.3. What follows a plus sign does not count.

    Returns:
        Something that compares; the texts of one release give equal keys.

    Raises:
        ConfigError: The text is no release.

    Source:
        PEP 440, "Summary of permitted suffixes and relative ordering".
    """
    before_all = text.startswith("pre-")
    match = _RELEASE.fullmatch(text.removeprefix("pre-").strip())
    if match is None:
        raise ConfigError(
            f"engine release: '{text}' is no release of vLLM; expected a version such as 0.6.2 or "
            "0.6.3.post1. Write the one that the engine's environment reports."
        )
    numbers = [int(part) for part in match["numbers"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    phase = (3, 0)
    if before_all:
        phase = (-2, 0)
    elif match["phase"]:
        phase = (("a", "b", "rc").index(match["phase"]), int(match["pre"]))
    elif match["dev"] and not match["post"]:
        phase = (-1, 0)
    post = int(match["post"]) if match["post"] else -1
    dev = float(match["dev"]) if match["dev"] else math.inf
    return tuple(numbers), phase, post, dev


@cache
def releases() -> tuple[str, ...]:
    """Name the releases that the tables cover, oldest first."""
    return tuple(row["release"] for row in _table("vllm_releases.csv"))


@cache
def _covered(release: str) -> ReleaseKey:
    """Key of the last covered release that is not newer than this one; the tables know no other."""
    key = release_key(release)
    keys = [release_key(known) for known in releases()]
    return max((known for known in keys if known <= key), default=keys[0])


def _is_between(release: str, first: str | None, last: str | None) -> bool:
    key = _covered(release)
    return (first is None or release_key(first) <= key) and (last is None or key <= release_key(last))


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Run:
    """An unbroken run of releases that have a flag, a variable or a value; None leaves an end open."""

    spelling: str
    first: str | None
    last: str | None
    kind: str = ""
    no_form_from: str | None = None
    source: str = "upstream"
    not_on: tuple[str, ...] = ()

    def holds(self, release: str) -> bool:
        return _is_between(release, self.first, self.last)


@cache
def _table(name: str) -> tuple[Mapping[str, str], ...]:
    # Imported here because reading happens once, and importing this module must stay cheap.
    import csv
    from importlib import resources

    text = resources.files("sweeper").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def _first(text: str) -> str | None:
    """Read the first release of a row; one that starts with ``pre-`` or names the oldest seen is open."""
    return None if text.startswith("pre-") or text.endswith("or earlier") else text


def _knob_name(spelling: str) -> str:
    return spelling.removeprefix("--").replace("-", "_") if spelling.startswith("--") else spelling


@cache
def _flags() -> Mapping[str, tuple[_Run, ...]]:
    return _grouped(
        _Run(
            spelling=row["name"],
            first=_first(row["first_version"]),
            last=row["last_version"] or None,
            kind=row["kind"],
            no_form_from=row["no_form_from"] or None,
        )
        for row in _table("vllm_flags.csv")
    )


@cache
def _variables() -> Mapping[str, tuple[_Run, ...]]:
    return _grouped(
        _Run(
            spelling=row["name"],
            first=_first(row["first_version"]),
            last=row["last_version"] or None,
            source=row["source"],
        )
        for row in _table("vllm_env_vars.csv")
    )


def _grouped(runs: Iterator[_Run]) -> Mapping[str, tuple[_Run, ...]]:
    groups: dict[str, tuple[_Run, ...]] = {}
    for run in runs:
        name = _knob_name(run.spelling)
        groups[name] = (*groups.get(name, ()), run)
    return groups


@cache
def _history() -> Mapping[str, Mapping[str, str]]:
    return {_knob_name(row["knob"]): row for row in _table("vllm_knob_history.csv")}


@cache
def _values() -> Mapping[str, Mapping[str, tuple[_Run, ...]]]:
    listed: dict[str, dict[str, tuple[_Run, ...]]] = {}
    for row in _table("vllm_values.csv"):
        run = _Run(
            spelling=row["value"],
            first=_first(row["first_version"]),
            last=row["last_version"] or None,
            not_on=tuple(row["not_on"].split()),
        )
        of_knob = listed.setdefault(row["knob"], {})
        of_knob[run.spelling] = (*of_knob.get(run.spelling, ()), run)
    return listed


@cache
def _declared() -> Mapping[str, Knob]:
    types = {"bool": bool, "int": int, "float": float, "str": str}
    return {
        row["knob"]: Knob(
            name=row["knob"],
            type=types[row["type"]],
            unit=row["unit"],
            meaning=row["meaning"],
            minimum=float(row["minimum"]) if row["minimum"] else None,
            maximum=float(row["maximum"]) if row["maximum"] else None,
            source=row["source"],
        )
        for row in _table("knobs.csv")
    }


def _runs(knob: str) -> tuple[_Run, ...]:
    return (_variables() if is_variable(knob) else _flags()).get(knob, ())


def _run_at(knob: str, release: str) -> _Run | None:
    return next((run for run in _runs(knob) if run.holds(release)), None)


# --- what a name is -------------------------------------------------------------------------------


def is_variable(knob: str) -> bool:
    """Tell whether a knob is an environment variable: its name has no lower-case letter."""
    return knob == knob.upper()


def is_host_setting(knob: str) -> bool:
    """Tell whether a knob is a setting of the host, which no server is told about."""
    return knob.startswith("host_")


def known_names(release: str) -> frozenset[str]:
    """Collect every knob that this release has: flags, variables of vLLM, and settings of the host.

    Args:
        release: Release of vLLM.

    Returns:
        Names as an assignment spells them.
    """
    present = (
        name
        for table in (_flags(), _variables())
        for name, runs in table.items()
        if any(run.holds(release) for run in runs)
    )
    return frozenset([*present, *_HOST_SETTINGS])


def knob_type(name: str) -> type | None:
    """Give the type of a knob's values, so that its column can be typed.

    Args:
        name: Knob as an assignment spells it.

    Returns:
        ``bool``, ``int``, ``float`` or ``str``; None where it is not known.
    """
    if name in _declared():
        return _declared()[name].type
    of_kind = {
        "boolean": bool,
        "switch": bool,
        "int": int,
        "float": float,
        "text": str,
        "list": str,
        "json": str,
    }
    kinds = [run.kind for run in _flags().get(name, ()) if run.kind]
    return of_kind[kinds[-1]] if kinds else None


def describe(name: str) -> str:
    """Say in one line what a knob is: its meaning, its unit, and the releases that have it.

    Args:
        name: Knob as an assignment spells it.

    Returns:
        Text without a line break; it says so when the knob is not known.
    """
    knob, runs = _declared().get(name), _runs(name)
    if knob is None and not runs:
        return f"{name}: not known"
    parts = [f"{knob.meaning} [{knob.unit}]" if knob.unit else knob.meaning] if knob else []
    if runs:
        parts.append("in vLLM " + ", ".join(_span(run) for run in runs))
    if knob:
        parts.append(f"source: {knob.source}")
    return f"{name}: " + "; ".join(parts)


def _span(run: _Run) -> str:
    if run.first is None and run.last is None:
        return f"{releases()[0]} to {releases()[-1]}"
    return f"{run.first or releases()[0]} to {run.last or releases()[-1]}"


# --- saying it ------------------------------------------------------------------------------------


def command_line(assignment: Assignment, *, release: str) -> tuple[str, ...]:
    """Write the flags of an assignment in the form that this release reads as meant.

    Knobs that are variables or host settings are left out. A knob that the release does not have is
    written all the same: whether it should be is for ``check`` to say.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will read them.

    Returns:
        Words of a command line, sorted by knob, so that equal assignments give equal commands.

    Raises:
        KnobError: A value cannot be said in this release, such as False for a switch that is on by
            default and has no negative twin, or text for a switch, which some releases read as True.

    Source:
        README of data/, "How a switch is written".
    """
    words: list[str] = []
    for knob, value in sorted(assignment.items()):
        if not is_variable(knob) and not is_host_setting(knob):
            words.extend(_flag_words(knob, value, release=release))
    return tuple(words)


def _flag_words(knob: str, value: Scalar, *, release: str) -> list[str]:
    run = _run_at(knob, release)
    spelling = run.spelling if run else "--" + knob.replace("_", "-")
    kind = run.kind if run else ""
    if isinstance(value, bool):
        return _switch_words(knob, value, spelling=spelling, run=run, release=release)
    if kind in ("switch", "boolean") or knob_type(knob) is bool:
        raise KnobError(
            f"knob '{knob}': the value is {value!r}; expected true or false. Write it without quotes: vLLM "
            "would take the word for the name of the model, or for true."
        )
    if kind == "list":
        return [spelling, *re.split(r"[\s,]+", str(value).strip("[] \t"))]
    text = _flag_text(value)
    # A word that begins with a dash would be read as the next flag.
    return [f"{spelling}={text}"] if text.startswith("-") or not text else [spelling, text]


def _switch_words(knob: str, value: bool, *, spelling: str, run: _Run | None, release: str) -> list[str]:
    if knob in _VALUE_FORM and _is_between(release, *_VALUE_FORM[knob]):
        # Never the bare switch nor two words: it takes the next word for its value.
        return [f"{spelling}={value}"]
    if value:
        return [spelling]
    if run and run.no_form_from and _is_between(release, run.no_form_from, None):
        return ["--no-" + spelling.removeprefix("--")]
    is_on = knob in _ON_BY_DEFAULT and _is_between(release, _ON_BY_DEFAULT[knob], None)
    if run is None or is_on:
        why = "it is on by default there" if run else "its default there is not known"
        raise KnobError(
            f"knob '{knob}': False cannot be said in vLLM {release}, which has no --no-"
            f"{spelling.removeprefix('--')}, and {why}. Leave the knob out."
        )
    return []


def _flag_text(value: Scalar) -> str:
    # swap_space=16.0 must be written 16 where the flag took whole numbers only.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def environment(assignment: Assignment, *, release: str) -> dict[str, str]:
    """Give the environment variables of an assignment as the process will see them.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will read them. All covered releases read them alike.

    Returns:
        Variable to text, sorted; True is ``1`` and False is ``0``.

    Raises:
        ConfigError: The release is none.
    """
    release_key(release)
    return {knob: _variable_text(value) for knob, value in sorted(assignment.items()) if is_variable(knob)}


def _variable_text(value: Scalar) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def launcher(release: str) -> Literal["module", "command"]:
    """Tell how a server of this release is started.

    Args:
        release: Release of vLLM.

    Returns:
        ``command`` for ``vllm serve MODEL`` (from 0.5.2), ``module`` for
        ``python -m vllm.entrypoints.openai.api_server --model MODEL``.
    """
    return "command" if _is_between(release, "0.5.2", None) else "module"


def serve_line(
    assignment: Assignment, *, release: str, model: str, port: int | None = 8000, host: str | None = None
) -> str:
    """Write what a person pastes into a shell to serve with this assignment.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that will be started.
        model: Hub id or folder.
        port: Port to listen on; None leaves it to vLLM.
        host: Address to listen on; None leaves it to vLLM.

    Returns:
        The command with its environment in front, quoted for a POSIX shell; each setting of the host
        is a comment line before it.

    Raises:
        KnobError: As ``command_line``.
    """
    start = (
        ["vllm", "serve", model]
        if launcher(release) == "command"
        else ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    )
    listen = [*(["--host", host] if host else []), *(["--port", str(port)] if port is not None else [])]
    variables = [
        f"{name}={shlex.quote(text)}" for name, text in environment(assignment, release=release).items()
    ]
    words = [*start, *listen, *command_line(assignment, release=release)]
    command = " ".join([*variables, shlex.join(words)])
    return "\n".join([*_host_comments(assignment), command])


def _host_comments(assignment: Assignment) -> list[str]:
    return [
        f"# needs: sysctl {_HOST_SETTINGS.get(knob, knob)}={_variable_text(value)}"
        for knob, value in sorted(assignment.items())
        if is_host_setting(knob)
    ]


# --- which engine, and its defaults ---------------------------------------------------------------


def engine_generation(
    release: str, *, accelerator: Accelerator = "rocm", assignment: Assignment = NO_KNOBS
) -> Generation:
    """Tell whether the V0 or the V1 engine will run.

    Args:
        release: Release of vLLM.
        accelerator: What it runs on.
        assignment: Knob to value; ``VLLM_USE_V1`` and knobs that V1 did not support decide with it.

    Returns:
        ``v0`` or ``v1``. A CPU is taken to have changed with ROCm, which is not verified.

    Source:
        vLLM releases 0.6.4 to 0.11.0, EngineArgs.create_engine_config and _is_v1_supported_oracle.
    """
    if _is_between(release, "0.11.0", None):
        return "v1"
    if not _is_between(release, "0.6.4", None):
        return "v0"
    if "VLLM_USE_V1" in assignment:
        return "v1" if _is_set(assignment["VLLM_USE_V1"]) else "v0"
    default_from = "0.8.0" if accelerator == "cuda" else "0.9.2"
    if not _is_between(release, default_from, None):
        return "v0"
    falls_back = any(_only_in_v0(assignment, release=release, accelerator=accelerator))
    return "v0" if falls_back else "v1"


def _only_in_v0(assignment: Assignment, *, release: str, accelerator: Accelerator) -> Iterator[str]:
    """Name the knobs whose values made releases 0.8.0 to 0.10.2 leave V1, or refuse to start in it."""
    neutral: dict[str, Scalar] = {
        "num_scheduler_steps": 1,
        "scheduler_delay_factor": 0,
        "disable_async_output_proc": False,
        "max_num_partial_prefills": 1,
        "max_long_partial_prefills": 1,
    }
    if _is_between(release, None, "0.9.1"):
        neutral["scheduling_policy"] = "fcfs"
    if accelerator == "rocm" and _is_between(release, None, "0.8.5.post1"):
        neutral["kv_cache_dtype"] = "auto"
    yield from (knob for knob, value in neutral.items() if assignment.get(knob, value) != value)
    yield from (
        k for k in ("preemption_mode", "logits_processor_pattern", "otlp_traces_endpoint") if k in assignment
    )
    if assignment.get("load_format") == "sharded_state":
        yield "load_format"


def defaults(
    release: str,
    *,
    accelerator: Accelerator = "rocm",
    assignment: Assignment = NO_KNOBS,
    max_positions: int = _LLAMA_3_1_POSITIONS,
) -> dict[str, Scalar]:
    """Give the values that hold when nothing is said, for the knobs whose defaults have moved.

    Args:
        release: Release of vLLM.
        accelerator: What it runs on.
        assignment: What is said about the other knobs; some defaults hang on it.
        max_positions: Longest sequence of the model in tokens, as its config gives it; Llama 3.1's
            unless said. ``max_model_len`` in the assignment goes before it.

    Returns:
        Knob to value for the API server. A knob that the release does not have, or whose default is
        not known, is absent. For each knob the value is the one it would have if it were left out.

    Source:
        README of data/, "Defaults that moved"; for a CPU, vLLM 0.32.0 EngineArgs.get_batch_defaults.
    """
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    model_len = _whole(assignment, "max_model_len", max_positions)
    chunked = _default_chunked(
        release, generation, accelerator=accelerator, assignment=assignment, model_len=model_len
    )
    found: dict[str, Scalar] = {
        "gpu_memory_utilization": 0.92 if _is_between(release, "0.20.0", None) else 0.9,
        "enable_prefix_caching": generation == "v1" and _is_between(release, "0.6.5", None),
        "enable_chunked_prefill": chunked,
    }
    if _is_between(release, "0.10.0", None):
        # From 0.14.0 it is on wherever the executor and the model allow it, as mp and one GPU do.
        found["async_scheduling"] = _is_between(release, "0.14.0", None)
    is_chunked = bool(assignment.get("enable_chunked_prefill", chunked))
    if generation == "v1" and _is_between(release, None, "0.11.0"):
        is_chunked = True
    batch = (
        _v0_batch(release, is_chunked=is_chunked, model_len=model_len)
        if generation == "v0"
        else _v1_batch(
            release,
            accelerator=accelerator,
            assignment=assignment,
            is_chunked=is_chunked,
            model_len=model_len,
        )
    )
    return {**found, **batch}


def _default_chunked(
    release: str, generation: Generation, *, accelerator: Accelerator, assignment: Assignment, model_len: int
) -> bool:
    if generation == "v1":
        return True
    if _is_between(release, None, "0.5.2"):
        return False
    last_with_rule = {"rocm": "0.7.3", "cuda": "0.10.2", "cpu": "0.4.2"}[accelerator]
    hindered = _is_set(assignment.get("enable_lora", False)) or bool(
        {"speculative_model", "speculative_config"} & set(assignment)
    )
    return _is_between(release, None, last_with_rule) and model_len > 32768 and not hindered


def _v0_batch(release: str, *, is_chunked: bool, model_len: int) -> dict[str, Scalar]:
    chunk = 2048 if _is_between(release, "0.6.5", None) else 512
    return {"max_num_seqs": 256, "max_num_batched_tokens": chunk if is_chunked else max(model_len, 2048)}


def _v1_batch(
    release: str, *, accelerator: Accelerator, assignment: Assignment, is_chunked: bool, model_len: int
) -> dict[str, Scalar]:
    seqs = _v1_sequences(release, accelerator=accelerator, assignment=assignment)
    tokens = _v1_tokens(release, accelerator=accelerator, assignment=assignment)
    if seqs is None:
        return {}
    if tokens is None:
        return {"max_num_seqs": seqs}
    if assignment.get("performance_mode") == "throughput":
        seqs, tokens = 2 * seqs, 2 * tokens
    if not is_chunked:
        tokens = max(tokens, model_len)
    tokens = min(tokens, _whole(assignment, "max_num_seqs", seqs) * model_len)
    if _is_between(release, "0.10.1", None):
        seqs = min(seqs, _whole(assignment, "max_num_batched_tokens", tokens))
    return {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}


def _v1_sequences(release: str, *, accelerator: Accelerator, assignment: Assignment) -> int | None:
    if accelerator == "cpu":
        return 128 * _ranks(assignment) if _is_between(release, "0.32.0", None) else None
    if _is_between(release, None, "0.6.4.post1"):
        return 256
    # 0.8.4 asked for the name H100 or H200; before and after, an MI300X was enough.
    return 256 if _is_between(release, "0.8.4", "0.8.4") and accelerator == "rocm" else 1024


def _v1_tokens(release: str, *, accelerator: Accelerator, assignment: Assignment) -> int | None:
    if accelerator == "cpu":
        return 2048 * _ranks(assignment) if _is_between(release, "0.32.0", None) else None
    if _is_between(release, None, "0.6.6.post1"):
        return None
    if accelerator == "cuda":
        return 8192
    if _is_between(release, None, "0.8.4"):
        return 2048
    return 8192 if _is_between(release, None, "0.27.1") else 16384


def _ranks(assignment: Assignment) -> int:
    return _whole(assignment, "tensor_parallel_size", 1) * _whole(assignment, "pipeline_parallel_size", 1)


def _whole(assignment: Assignment, knob: str, otherwise: int) -> int:
    value = assignment.get(knob)
    return value if isinstance(value, int) and value > 0 else otherwise


def moved_defaults(
    old: str,
    new: str,
    *,
    accelerator: Accelerator = "rocm",
    assignment: Assignment = NO_KNOBS,
    max_positions: int = _LLAMA_3_1_POSITIONS,
) -> dict[str, tuple[Scalar | None, Scalar | None]]:
    """Find the defaults that differ between two releases, to be pinned before they are compared.

    Args:
        old: One release of vLLM.
        new: The other.
        accelerator: What both run on.
        assignment: What is said about the other knobs.
        max_positions: Longest sequence of the model, tokens.

    Returns:
        Knob to its default in the old and in the new release; None where it has none or none is known.
    """
    before, after = (
        defaults(release, accelerator=accelerator, assignment=assignment, max_positions=max_positions)
        for release in (old, new)
    )
    names = sorted({*before, *after})
    return {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


def _is_set(value: Scalar) -> bool:
    return str(value).strip().lower() in ("1", "true")


# --- checking it ----------------------------------------------------------------------------------


def check(
    assignment: Assignment,
    *,
    release: str,
    engine: str = "vllm",
    allow_unknown: bool = False,
    accelerator: Accelerator = "rocm",
) -> tuple[Refusal, ...]:
    """Find what this release would not take, would misread, or would take and ignore.

    Args:
        assignment: Knob to value.
        release: Release of vLLM that runs, or that is modelled.
        engine: ``vllm`` or ``simulated``; the flags of any other engine are not known here and pass.
        allow_unknown: Let pass what the tables alone refuse, for a fork or a patched build: kinds
            ``unknown``, ``not_yet``, ``removed`` and ``no_effect``, and values that are not listed.
        accelerator: What it runs on.

    Returns:
        Refusals in the order of the assignment, then conflicts; empty when all is well.

    Raises:
        ConfigError: The release is none.
    """
    if engine not in ("vllm", "simulated"):
        return ()
    found: list[Refusal] = []
    for knob, value in assignment.items():
        by_table = (
            _refuse_absent(knob, value, release=release)
            or _refuse_idle(knob, value, assignment=assignment, release=release, accelerator=accelerator)
            or _refuse_unlisted(knob, value, release=release, accelerator=accelerator)
        )
        by_form = _refuse_form(knob, value, release=release)
        refusal = by_form if allow_unknown or not by_table else by_table
        if refusal:
            found.append(refusal)
    conflicts = _conflicts(assignment, release=release, accelerator=accelerator)
    return (
        *found,
        *(refusal for refusal in conflicts if not (allow_unknown and refusal.kind in _FROM_THE_TABLE)),
    )


def _refuse_absent(knob: str, value: Scalar, *, release: str) -> Refusal | None:
    if is_host_setting(knob):
        return None if knob in _HOST_SETTINGS else _unknown(knob, value, release=release)
    if is_variable(knob) and not knob.startswith("VLLM_"):
        return None
    if _run_at(knob, release):
        return None
    runs = _runs(knob)
    if not runs:
        return _unknown(knob, value, release=release)
    past = [run.last for run in runs if run.last and _covered(release) > release_key(run.last)]
    if not past:
        return _not_yet(knob, value, runs[0], release=release)
    return _removed(knob, value, last=max(past, key=release_key), source=runs[0].source)


def _unknown(knob: str, value: Scalar, *, release: str) -> Refusal:
    if knob in _SHORT_NAMES:
        hint = f" Did you mean '{_SHORT_NAMES[knob]}'?"
    else:
        of_release = known_names(release)
        hint = nearest(knob, of_release) or nearest(knob, [*_flags(), *_variables()])
    kind = "environment variable" if is_variable(knob) else "setting" if is_host_setting(knob) else "flag"
    where = "the host" if is_host_setting(knob) else f"vLLM {release}"
    return Refusal(
        knob=knob,
        value=value,
        kind="unknown",
        reason=f"{where} has no {kind} of this name.{hint or ' Check its spelling.'}",
    )


def _not_yet(knob: str, value: Scalar, run: _Run, *, release: str) -> Refusal:
    earlier = f" Nearest: {_BEFORE_IT[knob]}." if knob in _BEFORE_IT else " Leave it out."
    reason = f"{knob} came with vLLM {run.first}; {release} does not know it.{earlier}"
    return Refusal(knob=knob, value=value, kind="not_yet", reason=reason)


def _removed(knob: str, value: Scalar, *, last: str, source: str) -> Refusal:
    gone_in = _release_after(last)
    if source == "rocm-fork":
        of_rocm = (name for name in _variables() if name.startswith("VLLM_ROCM_"))
        hint = nearest(knob, of_rocm) or " Leave it out."
        reason = f"{knob} belongs to AMD's fork of vLLM before {gone_in}; no upstream release reads it.{hint}"
        return Refusal(knob=knob, value=value, kind="removed", reason=reason)
    row = _history().get(knob, {})
    why = f": {row['why_gone']}" if row.get("why_gone") else ""
    later = [
        other.first
        for other in _runs(knob)
        if other.first and release_key(other.first) > release_key(gone_in)
    ]
    back = f" It is back from {later[0]}." if later else ""
    near = f" Nearest: {row['nearest']}." if row.get("nearest") else "" if back else " Leave it out."
    return Refusal(
        knob=knob,
        value=value,
        kind="removed",
        reason=f"{knob} was removed in vLLM {gone_in}{why}.{back}{near}",
    )


def _release_after(release: str) -> str:
    return next(other for other in releases() if release_key(other) > release_key(release))


def _refuse_idle(
    knob: str, value: Scalar, *, assignment: Assignment, release: str, accelerator: Accelerator
) -> Refusal | None:
    """Refuse a knob that would be taken and ignored: its series would carry a name it has not earned."""
    reason = None
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    if knob in _READ_BY_V0_ONLY and generation == "v1":
        row = _history().get(knob, {})
        near = f" Nearest: {row['nearest']}." if row.get("nearest") else ""
        reason = (
            f"accepted by vLLM {release} but does nothing in V1: {row.get('why_gone')}.{near} Leave it out."
        )
    elif knob == "use_v2_block_manager" and _is_between(release, "0.6.3.post1", None):
        reason = (
            f"accepted by vLLM {release} but does nothing since 0.6.3.post1: it is the only block manager."
        )
    elif knob == "num_scheduler_steps" and accelerator == "cpu" and value != 1:
        reason = f"vLLM {release} has no multi-step scheduling on a CPU and plans single steps. Leave it out."
    elif knob.startswith("VLLM_ROCM_USE_AITER_") and not _is_set(assignment.get("VLLM_ROCM_USE_AITER", 0)):
        reason = (
            f"vLLM {release} reads it only where VLLM_ROCM_USE_AITER is 1. Set that, or leave this one out."
        )
    return Refusal(knob=knob, value=value, kind="no_effect", reason=reason) if reason else None


def _refuse_unlisted(knob: str, value: Scalar, *, release: str, accelerator: Accelerator) -> Refusal | None:
    listed = _values().get(knob)
    if listed is None or isinstance(value, bool):
        return None
    text, known = str(value), [v for v, runs in listed.items() if any(run.holds(release) for run in runs)]
    if text in listed:
        run = next((run for run in listed[text] if run.holds(release)), None)
        if run and accelerator not in run.not_on:
            return None
        why = (
            f"vLLM {release} does not run it on {accelerator}" if run else _unlisted_in(listed[text], release)
        )
    elif knob in _OPEN_LIST_FROM and _is_between(release, _OPEN_LIST_FROM[knob], None):
        close = difflib.get_close_matches(text, known, n=1, cutoff=0.85)
        if not close:
            return None
        # The parser would take it, and the engine would fail minutes later.
        why = f"vLLM {release} has no such value; '{close[0]}' is close"
    else:
        why = f"vLLM {release} has no such value"
    usable = sorted(v for v in known if accelerator not in listed[v][-1].not_on)
    return Refusal(
        knob=knob,
        value=value,
        kind="bad_value",
        reason=f"{why}; expected one of {', '.join(usable)}. Choose one of them.",
    )


def _unlisted_in(runs: tuple[_Run, ...], release: str) -> str:
    past = [run.last for run in runs if run.last and _covered(release) > release_key(run.last)]
    if past:
        gone_in = _release_after(max(past, key=release_key))
        return f"the value was removed in vLLM {gone_in}, and this is {release}"
    return f"the value came with vLLM {runs[0].first}, and this is {release}"


def _refuse_form(knob: str, value: Scalar, *, release: str) -> Refusal | None:
    """Refuse a value of the wrong type, out of its range, or that the release has no words for."""
    wanted = knob_type(knob)
    problem = None
    if not is_variable(knob) and wanted is not None and not _has_type(knob, value, wanted):
        names: Mapping[type, str] = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: "text",
        }
        problem = f"it is of type {type(value).__name__}; expected {names[wanted]}. Write it without quotes."
        if wanted is str:
            problem = f"it is of type {type(value).__name__}; expected text. Write it in quotes."
    if problem is None:
        problem = _out_of_range(knob, value) or _bad_json(knob, value, release=release)
    if problem is None and knob == "swap_space" and _is_between(release, None, "0.5.4"):
        whole = float(value).is_integer()
        problem = (
            None if whole else f"vLLM {release} takes whole GiB only (fractions came with 0.5.5). Round it."
        )
    if problem is None:
        try:
            command_line({knob: value}, release=release)
        except KnobError as error:
            problem = str(error).removeprefix(f"knob '{knob}': ")
    return Refusal(knob=knob, value=value, kind="bad_value", reason=problem) if problem else None


def _has_type(knob: str, value: Scalar, wanted: type) -> bool:
    if isinstance(value, bool):
        return wanted is bool
    if wanted is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if wanted is str and isinstance(value, int):
        kinds = {run.kind for run in _flags().get(knob, ())}
        return bool(kinds & {"list", "json"})
    return isinstance(value, wanted)


def _out_of_range(knob: str, value: Scalar) -> str | None:
    declared = _declared().get(knob)
    if declared is None or isinstance(value, bool | str):
        return None
    low, high = declared.minimum, declared.maximum
    is_open_below = declared.name == "gpu_memory_utilization"
    too_low = low is not None and (value <= low if is_open_below else value < low)
    too_high = high is not None and value > high
    if not too_low and not too_high:
        return None
    bounds = [f"more than {low:g}" if is_open_below else f"at least {low:g}"] if low is not None else []
    bounds += [f"at most {high:g}"] if high is not None else []
    return f"it is out of range; expected {' and '.join(bounds)}. Move it into the range."


def _bad_json(knob: str, value: Scalar, *, release: str) -> str | None:
    if "json" not in {run.kind for run in _flags().get(knob, ())}:
        return None
    try:
        content = json.loads(str(value))
    except json.JSONDecodeError as error:
        return f"it is not JSON ({error}). Write an object such as '{{\"key\": 1}}'."
    if knob != "compilation_config":
        return None
    if isinstance(content, int):
        taken = _is_between(release, None, "0.8.5.post1")
        return (
            None
            if taken
            else f"a bare level is taken through 0.8.5.post1, and this is {release}. Write an object."
        )
    return (
        _bad_compilation_key(content, release=release) if isinstance(content, dict) else "expected an object."
    )


def _bad_compilation_key(content: Mapping[str, object], *, release: str) -> str | None:
    keys: tuple[tuple[str, str | None, str | None, str], ...] = (
        ("level", None, "0.17.1", "mode (0.11.1+)"),
        ("mode", "0.11.1", None, "level (0.6.5 to 0.17.1)"),
        ("use_cudagraph", None, "0.11.0", "cudagraph_mode (0.10.1+)"),
        ("full_cuda_graph", None, "0.11.0", "cudagraph_mode (0.10.1+)"),
        ("cudagraph_mode", "0.10.1", None, "use_cudagraph (to 0.11.0)"),
    )
    for key, first, last, instead in keys:
        if key in content and not _is_between(release, first, last):
            when = f"came with vLLM {first}" if first else f"was last taken by vLLM {last}"
            return f"its key '{key}' {when}, and this is {release}. Use {instead}."
    return None


def _conflicts(assignment: Assignment, *, release: str, accelerator: Accelerator) -> Iterator[Refusal]:
    rules: tuple[Callable[..., tuple[str, str] | None], ...] = (
        _steps_and_chunks,
        _steps_and_speculation,
        _chunks_forced,
        _generation_refused,
        _fewer_tokens_than_sequences,
        _fewer_tokens_than_length,
    )
    for rule in rules:
        found = rule(assignment, release=release, accelerator=accelerator)
        if found:
            knob, reason = found
            yield Refusal(knob=knob, value=assignment[knob], kind="conflict", reason=reason)
    for knob in sorted(_LAUNCHER_FLAGS & set(assignment)):
        reason = "whoever starts the server gives it. Take it out of the knobs."
        yield Refusal(knob=knob, value=assignment[knob], kind="conflict", reason=reason)


def _plans_several_steps(assignment: Assignment, release: str) -> bool:
    return (
        assignment.get("num_scheduler_steps", 1) != 1 and _run_at("num_scheduler_steps", release) is not None
    )


def _steps_and_chunks(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if not _plans_several_steps(assignment, release) or assignment.get("enable_chunked_prefill") is not True:
        return None
    if _is_between(release, None, "0.6.2"):
        return (
            "num_scheduler_steps",
            f"vLLM 0.5.5 to 0.6.2 refuse several scheduler steps together with chunked prefill, and this is "
            f"{release}. Set enable_chunked_prefill to false.",
        )
    if assignment.get("pipeline_parallel_size", 1) != 1:
        return (
            "num_scheduler_steps",
            f"vLLM {release} refuses several scheduler steps with chunked prefill and pipeline stages. Set "
            "enable_chunked_prefill to false, or pipeline_parallel_size to 1.",
        )
    return None


def _steps_and_speculation(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if _plans_several_steps(assignment, release) and {"speculative_model", "speculative_config"} & set(
        assignment
    ):
        reason = f"vLLM {release} refuses several scheduler steps with speculation. Leave one of them out."
        return "num_scheduler_steps", reason
    return None


def _chunks_forced(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    generation = engine_generation(release, accelerator=accelerator, assignment=assignment)
    if (
        assignment.get("enable_chunked_prefill") is False
        and generation == "v1"
        and _is_between(release, None, "0.11.0")
    ):
        return (
            "enable_chunked_prefill",
            f"V1 forces chunked prefill on through vLLM 0.11.0, and this is {release}: the series would not "
            "be what its name says. Use 0.11.1 or later, or a release whose engine is V0.",
        )
    return None


def _generation_refused(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    if "VLLM_USE_V1" not in assignment:
        return None
    wants_v1 = _is_set(assignment["VLLM_USE_V1"])
    if not wants_v1 and _is_between(release, "0.11.0", "0.11.0"):
        return "VLLM_USE_V1", "the V0 engine is gone in vLLM 0.11.0, so 0 cannot work. Leave it out."
    unsupported = [*_only_in_v0(assignment, release=release, accelerator=accelerator)]
    if wants_v1 and unsupported and _is_between(release, "0.8.0", "0.10.2"):
        return (
            "VLLM_USE_V1",
            f"vLLM {release} does not start V1 with {', '.join(unsupported)} and fails when V1 is asked for "
            "(NotImplementedError). Leave VLLM_USE_V1 out to fall back to V0.",
        )
    return None


def _fewer_tokens_than_sequences(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    tokens, seqs = assignment.get("max_num_batched_tokens"), assignment.get("max_num_seqs")
    if isinstance(tokens, int) and isinstance(seqs, int) and tokens < seqs:
        return (
            "max_num_batched_tokens",
            f"vLLM {release} refuses fewer tokens in a step than max_num_seqs = {seqs} sequences. Raise the "
            "one, or lower the other.",
        )
    return None


def _fewer_tokens_than_length(
    assignment: Assignment, *, release: str, accelerator: Accelerator
) -> tuple[str, str] | None:
    tokens, length = assignment.get("max_num_batched_tokens"), assignment.get("max_model_len")
    default = defaults(release, accelerator=accelerator, assignment=assignment)["enable_chunked_prefill"]
    is_chunked = assignment.get("enable_chunked_prefill", default)
    if not is_chunked and isinstance(tokens, int) and isinstance(length, int) and tokens < length:
        return (
            "max_num_batched_tokens",
            f"without chunked prefill vLLM {release} refuses fewer tokens in a step than max_model_len = "
            f"{length}, since no long prompt would fit. Raise the one, or lower the other.",
        )
    return None


# --- the benchmark client -------------------------------------------------------------------------


def bench_client(release: str) -> Literal["script", "command"]:
    """Tell which load generator of vLLM goes with this release.

    Args:
        release: Release of vLLM.

    Returns:
        ``script`` for ``benchmarks/benchmark_serving.py`` of the repository, ``command`` for
        ``vllm bench serve``, which has the ShareGPT dataset from 0.9.1.
    """
    return "command" if _is_between(release, "0.9.1", None) else "script"


def client_flag_exists(flag: str, release: str) -> bool:
    """Tell whether the serving client of this release takes a flag.

    Args:
        flag: Such as ``--max-concurrency``; only flags of data/vllm_bench_history.csv are known.
        release: Release of vLLM.

    Returns:
        True when the client named by ``bench_client`` has it.
    """
    client = {"script": "benchmark_serving.py", "command": "vllm bench serve"}[bench_client(release)]
    return any(
        _is_between(release, _first(row["version_added"]), None)
        and not (row["version_removed"] and _is_between(release, row["version_removed"], None))
        for row in _table("vllm_bench_history.csv")
        if (row["client"], row["kind"], row["item"]) == (client, "flag", flag)
    )
