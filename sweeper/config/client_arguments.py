"""Arguments of the load generator beside those that other keys set (``client.arguments``), checked.

Whether the client of a release takes them is asked when its release is known (``clients.given_arguments``);
here is what holds whatever the release: a word that another key sets is set there, what the sweeper writes
itself to read a report stays its own, and what belongs to a dataset that is not sent would do nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweeper import knobs
from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DATASETS
from sweeper.records import SAMPLING, GivenArgument, LoadPoint, argument_flag
from sweeper.text import confidential

_WHERE = "client.arguments"

SET_BY: Mapping[str, str] = {
    **dict.fromkeys(("backend", "endpoint_type", "endpoint"), "workload.endpoint"),
    **dict.fromkeys(("base_url", "host", "port"), "engine.url"),
    "model": "model.path",
    "served_model_name": "model.name",
    "tokenizer": "knobs.tokenizer",
    "tokenizer_mode": "knobs.tokenizer_mode",
    "trust_remote_code": "knobs.trust_remote_code",
    "dataset_name": "workload.dataset",
    "dataset_path": "workload.dataset_path",
    "num_prompts": "workload.num_prompts",
    "request_rate": "workload.request_rate_per_s",
    "max_concurrency": "workload.max_concurrency",
    "burstiness": "workload.burstiness",
    "ramp_up_strategy": "workload.ramp_up.strategy",
    "ramp_up_start_rps": "workload.ramp_up.start_per_s",
    "ramp_up_end_rps": "workload.ramp_up.end_per_s",
    "seed": "workload.client_seed",
    "ignore_eos": "workload.ignore_eos",
    "goodput": "workload.goodput",
    "extra_body": "workload.extra_body",
    "random_range_ratio": "workload.range_ratio",
    **dict.fromkeys(("input_len", "random_input_len", "sonnet_input_len"), "workload.input_len"),
    **dict.fromkeys(
        (
            *("output_len", "random_output_len", "sonnet_output_len", "sharegpt_output_len"),
            *("custom_output_len", "hf_output_len", "prefix_repetition_output_len"),
        ),
        "workload.output_len",
    ),
    **dict.fromkeys(("self_timed", "timed_trace_sec_multiplier"), "workload.dataset"),
    **dict.fromkeys(
        (
            *("timed_trace_label_timestamp", "timed_trace_label_input_length"),
            *("timed_trace_label_output_length", "timed_trace_label_hash_ids"),
        ),
        "workload.dataset_path",
    ),
    **dict.fromkeys(
        ("skip_chat_template", "custom_skip_chat_template"), "workload.options.skip_chat_template"
    ),
    **{name: f"workload.sampling.{name}" for name in SAMPLING},
}
"""Argument to the key that sets it; the options of datasets set theirs, too."""

OWN = (
    *("save_result", "save_detailed", "append_result", "result_dir", "result_filename"),
    *("percentile_metrics", "metric_percentiles", "disable_tqdm"),
)
"""Arguments by which the sweeper gets the report that it reads."""

_OF_DATASET: Mapping[str, str] = {
    "random_mm_": "random-mm",
    "random_batch_size": "random-rerank",
    "no_reranker": "random-rerank",
    "spec_bench_": "spec_bench",
    "speed_bench_": "speed_bench",
    "custom_ensure_client_side_data": "custom_image",
    **dict.fromkeys(("blazedit_", "bfcl_", "asr_", "no_stream"), "hf"),
}
"""How arguments begin that only one dataset of the benchmark reads.

Source: get_samples in vllm/benchmarks/datasets of 0.32.0.
"""


def of(given: Mapping[str, Any], load_points: Iterable[LoadPoint]) -> tuple[GivenArgument, ...]:
    """Check what the load generator is given beside what other keys set.

    Args:
        given: ``client.arguments`` as composed: argument, with dashes or underscores, to value.
        load_points: All of the study.

    Returns:
        Pairs of an argument, in underscores, and its value, in the order of their names; one that is null is
        left out. A mapping becomes JSON, a list a tuple of texts.

    Raises:
        ConfigError: No release takes it, another key sets it, it is given twice, it would do nothing, or its
            value is a secret or of no kind that an argument has.
    """
    points = tuple(load_points)
    found: dict[str, Any] = {}
    for spelled, value in given.items():
        name = str(spelled).lstrip("-").replace("-", "_")
        where = f"{_WHERE}.{name}"
        if name in found:
            raise ConfigError(f"{where}: is given twice, with dashes and underscores; expected once.")
        _check_free(where, name)
        _check_sent(where, name, points)
        found[name] = None if value is None else _value(where, value)
    return tuple(sorted((name, value) for name, value in found.items() if value is not None))


def _check_free(where: str, name: str) -> None:
    """Refuse what is no argument, or is one that is set elsewhere."""
    key = SET_BY.get(name) or _options().get(name)
    if key is not None:
        raise ConfigError(
            f"{where}: is given, and {key} sets it; expected arguments that no other key sets. Set {key}."
        )
    if name in OWN:
        raise ConfigError(
            f"{where}: is given, and the sweeper sets it to get the report that it reads; expected other "
            "arguments. Leave it out."
        )
    known = knobs.every_bench_flag()
    if argument_flag(name) not in known:
        raise ConfigError(
            f"{where}: no release of vLLM's benchmark has {argument_flag(name)}; expected one of its "
            f"arguments. Leave it out.{nearest(name, tuple(_free(known)))}"
        )


def _check_sent(where: str, name: str, points: Iterable[LoadPoint]) -> None:
    """Refuse what only a dataset reads that no load point sends."""
    dataset = next((of for start, of in _OF_DATASET.items() if name.startswith(start)), None)
    sent = {DATASETS[point.dataset].bench_name or point.dataset for point in points}
    if dataset is not None and dataset not in sent:
        is_ours = any((kind.bench_name or kind.name) == dataset for kind in DATASETS.values())
        what = f"Set workload.dataset={dataset}, or leave it out." if is_ours else "Leave it out."
        raise ConfigError(
            f"{where}: is given, and only dataset {dataset} of vLLM's benchmark reads it, which no load "
            f"point sends; expected an argument that is read. {what}"
        )


def _value(where: str, value: Any) -> Any:
    """Return a value as it is kept: a number, text or truth value, JSON, or a tuple of texts."""
    if isinstance(value, Mapping):
        value = json.dumps(value, sort_keys=True)
    elif isinstance(value, list | tuple):
        if not value or not all(isinstance(word, int | float | str) for word in value):
            raise ConfigError(f"{where}: is {value!r}; expected numbers or texts in the list. Correct it.")
        value = tuple(map(str, value))
    elif not isinstance(value, bool | int | float | str):
        raise ConfigError(f"{where}: is {type(value).__name__}; expected a number, a text, true or false.")
    for text in value if isinstance(value, tuple) else (str(value),):
        if confidential.gives_secret(text):
            raise ConfigError(
                f"{where}: holds what looks like a secret, and arguments are kept with the results; expected "
                "none. Leave it out: the key of the server reaches the client by itself (engine.api_key_env)."
            )
    return value


def _options() -> Mapping[str, str]:
    """Map arguments that options of datasets set to the option."""
    return {
        option.flag.lstrip("-").replace("-", "_"): f"workload.options.{name}"
        for kind in DATASETS.values()
        for name, option in kind.options.items()
        if option.flag is not None
    }


def _free(flags: Iterable[str]) -> Iterator[str]:
    """Return the names among flags that may be given."""
    names = (flag.lstrip("-").replace("-", "_") for flag in flags)
    taken = {*SET_BY, *OWN, *_options()}
    return (name for name in sorted(names) if name not in taken)
