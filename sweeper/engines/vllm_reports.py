"""What vLLM says of itself: its metrics, its configuration, its last words. Pure reading, no I/O.

A measurement is believed because the engine itself confirms the configuration that was asked for. It
confirms it in several places, depending on the release; the more direct one wins: the configuration
endpoint, then the labels of a metric, then the line that the log opens with.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sweeper.records import Assignment, FailureClass, Scalar

_Samples = list[tuple[str, dict[str, str], float]]

# Section and field of vLLM's own configuration, where the server's flag has another name.
_RENAMED = {
    "cache_dtype": "kv_cache_dtype",
    "chunked_prefill_enabled": "enable_chunked_prefill",
    "max_seq_len": "max_model_len",
    "policy": "scheduling_policy",
    "delay_factor": "scheduler_delay_factor",
}

_SECTIONS = ("model_config", "cache_config", "parallel_config", "scheduler_config")

# Told in every row, besides whatever the trial asked for.
_ALWAYS = (
    "async_scheduling",
    "block_size",
    "data_parallel_size",
    "dtype",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "num_gpu_blocks",
    "num_scheduler_steps",
    "pipeline_parallel_size",
    "quantization",
    "tensor_parallel_size",
)

# Requests that ended, and the reasons of those that got no whole answer.
# Source: vllm/v1/engine FinishReason of 0.32.0; vllm/sequence.py of 0.6.2 has stop, length and abort.
_ENDED = ("vllm:request_success", "vllm:request_success_total")
_GIVEN_UP = ("abort", "error")

# Other spellings of the same value.
_SYNONYMS = {"half": "float16", "float": "float32", "bf16": "bfloat16"}

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_CONFIG_ENTRY = re.compile(r"\b(\w+)=([^,()\s]+)")
_CONFIG_LINE = re.compile(r"Initializing an? (?:V1 )?LLM engine.*?with config: (.*)")
_ARGS_LINE = re.compile(r"(?:non-default args: (\{.*\})|args: Namespace\((.*)\))\s*$")

_LOG_PREFIX = re.compile(
    r"^(?:\([^()]*pid=\d+\)\s*)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ (?:\[[^\]]*\]|[\w./]+:\d+\]) ?)?"
)
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception)\b\s*:|^\s*Value error, |^\S+: error: ")
# What pydantic adds to a message for programmers: the type of the value and where to read about it.
_PYDANTIC_TAIL = re.compile(r"\s*\[type=.*$")
# Lines that only point to the real cause, further up.
_WRAPPER = re.compile(
    r"see (?:root cause|stack trace|the stack)|engine core initialization failed|EngineDeadError"
    r"|engine process failed to start|EngineCore (?:failed|encountered)|workerproc initialization failed"
    r"|\d+ validation errors? for",
    re.IGNORECASE,
)

# First match wins. Lines of vLLM 0.6 to 0.33 and of torch on HIP and CUDA.
_CAUSES: tuple[tuple[FailureClass, re.Pattern[str]], ...] = (
    (
        FailureClass.OUT_OF_MEMORY,
        re.compile(
            r"OutOfMemoryError|\bout of memory\b|No available memory for the cache blocks"
            r"|larger than the (?:maximum number of tokens that can be stored in KV cache"
            r"|available KV cache memory)|is less than desired (?:GPU|CPU) memory utilization"
            r"|Cannot allocate memory|MemoryError|[Nn]ot enough (?:memory|available memory)"
            r"|exceeds? (?:the )?available (?:KV cache |GPU |CPU )?memory",
        ),
    ),
    (FailureClass.PORT, re.compile(r"Address already in use|EADDRINUSE", re.IGNORECASE)),
    (
        FailureClass.UNSUPPORTED,
        re.compile(
            r"NotImplementedError|\b(?:not|isn't|unsupported)\b.{0,40}\bsupport(?:ed)?\b|\bunsupported\b"
            r"|not implemented|does not support",
            re.IGNORECASE,
        ),
    ),
    (
        FailureClass.BAD_ARGUMENT,
        re.compile(
            r": error: |Value error, |ValueError|ValidationError|ArgumentError|TypeError|AssertionError"
            r"|is not a local folder|RepositoryNotFound|HFValidationError|Repo id must be",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Death:
    """Why an engine ended: class, and its own line."""

    failure: FailureClass
    message: str


def why_it_ended(log: str, *, exit_code: int | None, was_ready: bool) -> Death:
    """Find class and cause in the last words of an engine.

    Args:
        log: What it wrote, or the end of it.
        exit_code: 128 + n when signal n ended it; None when only a part of it has died.
        was_ready: It had served before, so its arguments were good.

    Returns:
        The cause that stands deepest: lines that only refer to another one are passed over.
    """
    lines = [_LOG_PREFIX.sub("", line).rstrip() for line in log.splitlines()]
    errors = [_PYDANTIC_TAIL.sub("", line).strip() for line in lines if _EXCEPTION.search(line)]
    causes = [line for line in errors if not _WRAPPER.search(line)] or errors
    for failure, pattern in _CAUSES[:2]:
        # Scarcity shows in one process and as some other error in the rest, so it is looked for anywhere.
        scarce = [line for line in causes if pattern.search(line)]
        if scarce:
            return Death(failure=failure, message=scarce[-1])
    if not causes:
        return _silent_death(lines, exit_code)
    message = causes[-1]
    if was_ready:
        return Death(failure=FailureClass.CRASH, message=message)
    failure = next((f for f, pattern in _CAUSES if pattern.search(message)), FailureClass.CRASH)
    return Death(failure=failure, message=message)


def read_metrics(text: str) -> dict[str, float]:
    """Read the counters that are telemetry out of a page of Prometheus metrics.

    Returns:
        Those that the release has, summed over engines: ``prefix_cache_queries``, ``prefix_cache_hits``
        (tokens), ``preemptions``, ``requests_succeeded``, ``requests_answered`` (without those given up),
        ``requests_running`` and ``requests_waiting`` now;
        and ``kv_cache_usage``, a fraction, of the fullest engine.
    """
    samples = _samples(text)
    sums = {
        "prefix_cache_queries": ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"),
        "prefix_cache_hits": ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"),
        "preemptions": ("vllm:num_preemptions",),
        "requests_succeeded": ("vllm:request_success",),
    }
    counters = {}
    for name, sources in sums.items():
        values = _values(samples, (written for source in sources for written in (source, f"{source}_total")))
        if values:
            counters[name] = sum(values)
    ended = [
        value
        for name, labels, value in samples
        if name in _ENDED and labels.get("finished_reason") not in _GIVEN_UP
    ]
    if any(name in _ENDED for name, _, _ in samples):
        counters["requests_answered"] = sum(ended)
    gauges = {
        "requests_running": "vllm:num_requests_running",
        "requests_waiting": "vllm:num_requests_waiting",
    }
    for name, source in gauges.items():
        values = _values(samples, (source,))
        if values:
            counters[name] = sum(values)
    usage = _values(samples, ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"))
    if usage:
        counters["kv_cache_usage"] = max(usage)
    return counters


def read_start_time(metrics: str) -> float | None:
    """When the server's process started, in seconds since 1970; None where its metrics do not tell."""
    values = _values(_samples(metrics), ("process_start_time_seconds",))
    return values[0] if values else None


def read_effective(*, server_info: object, metrics: str, log: str, asked: Iterable[str]) -> dict[str, Scalar]:
    """Gather the configuration that the engine reports, by knob name.

    Args:
        server_info: Parsed answer of ``/server_info``, or None where the release has none.
        metrics: Page of Prometheus metrics; ``vllm:cache_config_info`` has settings as labels.
        log: The engine's log, with its opening lines.
        asked: Knobs to tell besides those that are always told.

    Returns:
        Knob to value as far as the engine tells; a knob it is silent about is absent.
    """
    # Later sources are more direct and overrule earlier ones.
    reported: dict[str, Scalar] = {}
    for source in (_from_log(log), _from_metrics(metrics), _from_server_info(server_info)):
        reported |= source
    wanted = {*_ALWAYS, *asked}
    return {name: value for name, value in sorted(reported.items()) if name in wanted}


def differences(assignment: Assignment, effective: Mapping[str, Scalar]) -> dict[str, tuple[Scalar, Scalar]]:
    """Compare what was asked with what the engine reports.

    Returns:
        Knob to (asked, reported) where the two differ. Knobs the engine is silent about, and ``auto``,
        which asks for whatever it chooses, never differ.
    """
    return {
        name: (asked, effective[name])
        for name, asked in assignment.items()
        if name in effective and not _agree(asked, effective[name])
    }


def _agree(asked: Scalar, reported: Scalar) -> bool:
    wanted, got = _plain(asked), _plain(reported)
    if wanted == "auto" or wanted == got:
        return True
    if isinstance(wanted, float) and isinstance(got, float):
        return abs(wanted - got) <= 1e-6 * max(abs(wanted), abs(got))
    # "fp8" is short for the variant that the platform prefers, such as fp8_e4m3.
    return wanted == "fp8" and isinstance(got, str) and got.startswith("fp8_")


def _plain(value: Scalar) -> float | str:
    """One form for a value whatever way it was written: a number (true is 1), or lower-case text."""
    if isinstance(value, bool | int | float):
        return float(value)
    text = value.strip().strip("'\"").removeprefix("torch.").lower()
    if text in ("true", "false"):
        return float(text == "true")
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text)
    if number is None:
        return _SYNONYMS.get(text, text)
    # vLLM reads 8k as 8000 and 8K as 8192 (its human_readable_int).
    base = 1000 if value.strip()[-1:].islower() else 1024
    power = {"": 0, "k": 1, "m": 2, "g": 3}[number[2]]
    return float(number[1]) * float(base**power)


def _silent_death(lines: list[str], exit_code: int | None) -> Death:
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
    if exit_code == 137:
        message = f"killed (signal 9), by the kernel for want of memory or by somebody; last line: {last}"
    elif exit_code is None:
        message = f"a process of the engine is gone; last line: {last}"
    else:
        message = f"ended with exit code {exit_code}; last line: {last}"
    return Death(failure=FailureClass.CRASH, message=message)


def _from_server_info(server_info: object) -> dict[str, Scalar]:
    config = server_info.get("vllm_config") if isinstance(server_info, Mapping) else None
    if isinstance(config, str):
        return _config_entries(config)
    if not isinstance(config, Mapping):
        return {}
    found: dict[str, Scalar] = {}
    for section in _SECTIONS:
        fields = config.get(section)
        if isinstance(fields, Mapping):
            found |= {_knob(name): _scalar(v) for name, v in fields.items() if _is_told(v)}
    return found


def _from_metrics(text: str) -> dict[str, Scalar]:
    for name, labels, _ in _samples(text):
        if name == "vllm:cache_config_info":
            return {_knob(label): _scalar(value) for label, value in labels.items() if _is_told(value)}
    return {}


def _from_log(log: str) -> dict[str, Scalar]:
    """Settings in the opening lines of a log: parsed arguments, overruled by the resolved configuration."""
    arguments: dict[str, Scalar] = {}
    resolved: dict[str, Scalar] = {}
    for line in log.splitlines():
        if match := _ARGS_LINE.search(line):
            arguments |= _arguments(match)
        elif match := _CONFIG_LINE.search(line):
            resolved |= _config_entries(match[1])
    return arguments | resolved


def _arguments(match: re.Match[str]) -> dict[str, Scalar]:
    if match[1] is None:
        return _config_entries(match[2])
    try:
        given = ast.literal_eval(match[1])
    except (ValueError, SyntaxError):
        return {}
    return {_knob(str(name)): _scalar(value) for name, value in given.items() if _is_told(value)}


def _config_entries(text: str) -> dict[str, Scalar]:
    entries = ((name, value.strip("'\"")) for name, value in _CONFIG_ENTRY.findall(text))
    return {_knob(name): _scalar(value) for name, value in entries if _is_told(value)}


def _knob(field: str) -> str:
    return _RENAMED.get(field, field)


def _is_told(value: object) -> bool:
    return isinstance(value, bool | int | float | str) and value not in ("None", "")


def _scalar(value: object) -> Scalar:
    """A value as Python means it; numbers and truth are often written as text."""
    if isinstance(value, bool | int | float):
        return value
    text = str(value).removeprefix("torch.")
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _samples(text: str) -> _Samples:
    return list(_parse_samples(text))


def _parse_samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        yield match[1], dict(_LABEL.findall(match[2] or "")), value


def _values(samples: _Samples, names: Iterable[str]) -> list[float]:
    known = set(names)
    return [value for name, _, value in samples if name in known]
