"""What vLLM reports of its own configuration, gathered from wherever the release reports it. Pure reading.

The more direct source wins: the configuration endpoint, then the labels of a metric, then the lines that the
log opens with. For the size of a block it is the other way round: endpoint and label report what the front
end was started with, and an engine that has to align attention with Mamba layers chooses another one later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sweeper.engines.agreement import reported_text
from sweeper.engines.log_lines import Line, read_lines
from sweeper.engines.metrics_page import samples
from sweeper.engines.reported_values import Named, is_cut_off, parse, parse_pairs
from sweeper.records import Scalar

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

# Where one of these was asked for and the resolved configuration has None, it was not granted.
_OFF_WHERE_NONE = ("speculative_config",)

_CONFIG_LINE = re.compile(r"Initializing an? (?:V1 )?LLM engine.*?with config: (.*)")
_ARGS_LINE = re.compile(r"(?:non-default args: (\{.*)|args: Namespace\((.*))$")
_BLOCK_SIZE_LINE = re.compile(r"Setting attention block size to (\d+) tokens")
# A line that a logger or a container cut into pieces is put together from at most so many.
_MOST_PIECES = 50


def read_effective(*, server_info: object, metrics: str, log: str, asked: Iterable[str]) -> dict[str, Scalar]:
    """Gather the configuration that the engine reports, by knob name.

    Args:
        server_info: Parsed answer of ``/server_info``, or None where the release has none.
        metrics: Page of Prometheus metrics; ``vllm:cache_config_info`` has settings as labels.
        log: The engine's log, with its opening lines.
        asked: Knobs to report besides those that are always reported; an assignment, so that of an object the
            keys that were asked for are reported.

    Returns:
        Knob to value as far as the engine reports it; a knob that it does not report is absent.
    """
    lines = read_lines(log)
    # Later sources are more direct and overrule earlier ones.
    reported: dict[str, object] = {}
    for source in (_from_log(lines), _from_metrics(metrics), _from_server_info(server_info)):
        reported |= {name: value for name, value in source.items() if _is_told(value)}
    replicas = _replicas(metrics)
    if replicas > 1:
        reported["data_parallel_size"] = replicas
    block_size = _block_size(reported, lines)
    if block_size is not None:
        reported["block_size"] = block_size
    given = asked if isinstance(asked, Mapping) else dict.fromkeys(asked)
    for name in _OFF_WHERE_NONE:
        if name in given and name not in reported and _is_off(name, lines):
            reported[name] = "None"
    for name in given:
        if "." in name and (inner := _inside(reported, name)) is not None:
            reported[name] = inner
    wanted = {*_ALWAYS, *given}
    return {
        name: reported_text(name, given.get(name), value)
        for name, value in sorted(reported.items())
        if name in wanted
    }


def _from_server_info(server_info: object) -> dict[str, object]:
    config = server_info.get("vllm_config") if isinstance(server_info, Mapping) else None
    if isinstance(config, str):
        return _entries(parse_pairs(config))
    if not isinstance(config, Mapping):
        return {}
    found = {str(name): value for name, value in config.items() if name not in _SECTIONS}
    for section in _SECTIONS:
        fields = config.get(section)
        if isinstance(fields, Mapping):
            found |= {_knob(name): value for name, value in fields.items() if _is_told(value)}
    return found


def _from_metrics(text: str) -> dict[str, object]:
    for name, labels, _ in samples(text):
        if name == "vllm:cache_config_info":
            return {_knob(label): parse(value) for label, value in labels.items() if value}
    return {}


def _from_log(lines: list[Line]) -> dict[str, object]:
    """Settings in the opening lines of a log: parsed arguments, overruled by the resolved configuration."""
    arguments: dict[str, object] = {}
    resolved: dict[str, object] = {}
    for place, line in enumerate(lines):
        if match := _ARGS_LINE.search(line.text):
            arguments |= _arguments(match, lines[place + 1 :])
        elif match := _CONFIG_LINE.search(line.text):
            resolved |= _entries(parse_pairs(_whole(match[1], lines[place + 1 :])))
    return arguments | {name: value for name, value in resolved.items() if _is_told(value)}


def _arguments(match: re.Match[str], following: list[Line]) -> dict[str, object]:
    if match[1] is None:
        return _entries(parse_pairs(_whole(match[2], following)))
    given = parse(_whole(f"x={match[1]}", following).removeprefix("x="))
    told = given if isinstance(given, Mapping) else {}
    return {_knob(str(name)): value for name, value in told.items() if _is_told(value)}


def _whole(text: str, following: list[Line]) -> str:
    """Join a line that was cut into pieces: while it ends in the middle, the next belongs to it."""
    for line in following[:_MOST_PIECES]:
        if line.level is not None or not is_cut_off(text):
            break
        text += line.text
    return text


def _entries(pairs: Mapping[str, object]) -> dict[str, object]:
    """Knobs in a list of pairs, and in the objects in it where the list itself has none."""
    inner: dict[str, object] = {}
    for value in pairs.values():
        if isinstance(value, Named):
            inner |= {_knob(name): item for name, item in value.fields.items() if _is_told(item)}
    return inner | {_knob(name): value for name, value in pairs.items() if _is_told(value)}


def _is_off(name: str, lines: list[Line]) -> bool:
    found = [match[1] for line in lines if (match := _CONFIG_LINE.search(line.text))]
    return any(parse_pairs(text).get(name, ...) is None for text in found)


def _replicas(metrics: str) -> int:
    """Count the engine cores that report metrics, each under a label of its own.

    Replicas of a model without experts need not agree on anything, so each is told that it is the only one,
    and the configuration that vLLM logs and serves says 1 whatever was asked.

    Source:
        vLLM 0.32.0: EngineCoreProc.run_engine_core (``data_parallel and model_config.is_moe``),
        ParallelConfig.data_parallel_size of dense models; v1/metrics/loggers.py (label ``engine``).
    """
    labels = (labels for name, labels, _ in samples(metrics) if name.startswith("vllm:"))
    return len({found["engine"] for found in labels if "engine" in found})


def _block_size(reported: Mapping[str, object], lines: list[Line]) -> int | None:
    """Tokens in a block of attention as the engine itself resolved them; None where it does not say.

    Source:
        vLLM 0.32.0: ``effective_attention_block_size`` is reported by the engine when it is ready, and counts
        a block of all ranks that share a context; ``platforms/interface.py`` logs what it sets for hybrids.
    """
    effective, ranks = reported.get("effective_attention_block_size"), reported.get(_RANKS, 1)
    if isinstance(effective, int):
        shared = ranks if isinstance(ranks, int) and ranks > 0 and effective % ranks == 0 else 1
        return effective // shared
    set_to = [int(match[1]) for line in lines if (match := _BLOCK_SIZE_LINE.search(line.text))]
    return set_to[-1] if set_to else None


_RANKS = "decode_context_parallel_size"


def _inside(reported: Mapping[str, object], name: str) -> object:
    """What is reported of one key of an object, for a knob such as ``compilation_config.mode``."""
    value: object = reported
    for key in name.split("."):
        value = value.fields if isinstance(value, Named) else value
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _knob(field: str) -> str:
    return _RENAMED.get(field, field)


def _is_told(value: object) -> bool:
    return value is not None and value not in ("None", "")
