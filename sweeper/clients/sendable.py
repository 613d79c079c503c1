"""What ``vllm bench serve`` of a release can send, looked at before anything is started.

Source: the parser of each release's benchmark, in sweeper/knobs/data/vllm_bench.csv.
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeper import knobs
from sweeper.clients.dataset_arguments import OWN_OUTPUT_LEN_SINCE, check_known
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS
from sweeper.records import LoadPoint

_REMEDY = "Take a later vLLM (client.python names one for the client alone), or leave it out."


def check(point: LoadPoint, *, release: str) -> None:
    """Check that the benchmark of a release can send a load point.

    Raises:
        ConfigError: It cannot; the message names the key, and the release that can.
    """
    _check_dataset(point, release=release)
    for key, value, flag in _flags(point):
        if knobs.bench_flag(flag, release) is None:
            raise ConfigError(
                f"workload.{key}: is {value}, and vllm bench serve of vLLM {release} has no {flag} "
                f"({_when(flag)}); expected a release that has it. {_REMEDY}"
            )


def _check_dataset(point: LoadPoint, *, release: str) -> None:
    name = point.dataset
    check_known(point)
    kind = DATASETS[name]
    span = knobs.bench_releases(kind.bench_name or name)
    # A dataset of a plug-in may be one of vLLM's under another name.
    if span is not None and not knobs.is_between(release, span[0], None):
        raise ConfigError(
            f"workload.dataset: is '{name}', and vllm bench serve of vLLM {release} cannot send it "
            f"({_when(kind.bench_name or name)}); expected a dataset that it knows. Take a later vLLM "
            "(client.python names one for the client alone), or another dataset."
        )
    if span is not None and span[1] is not None and knobs.is_between(release, span[1], None):
        raise ConfigError(
            f"workload.dataset: is '{name}', and vllm bench serve of vLLM {release} cannot send it any more "
            f"({_when(kind.bench_name or name)}); expected a dataset that it knows. Use dataset custom with "
            "a file of prompts, or prefix_repetition."
        )
    if kind.sends_tokens and point.form.endpoint == "chat":
        raise ConfigError(
            f"workload.endpoint: is chat with dataset '{name}', whose prompts are token ids; expected "
            "completions, which alone takes them. Set workload.endpoint=completions."
        )
    reads_answers = knobs.is_between(release, OWN_OUTPUT_LEN_SINCE, None)
    if kind.has_answers_in_file and point.output_len is None and not reads_answers:
        raise ConfigError(
            f"workload.output_len: is null, and vllm bench serve of vLLM {release} does not read the answer "
            f"lengths of a file (it does from {OWN_OUTPUT_LEN_SINCE}); expected one for all. Set "
            "workload.output_len, or take a later vLLM."
        )


def _flags(point: LoadPoint) -> Iterator[tuple[str, object, str]]:
    """Return each key that needs a flag, its value, and the flag."""
    options = DATASETS[point.dataset].options
    for name, value in point.options:
        flag = options[name].flag
        if flag is not None:
            yield f"options.{name}", value, flag
    if point.burstiness != LoadPoint.burstiness:
        yield "burstiness", f"{point.burstiness:g}", "--burstiness"
    if point.ramp is not None:
        yield "ramp_up", f"a {point.ramp}", "--ramp-up-strategy"
    for name, number in point.form.sampling:
        yield f"sampling.{name}", f"{number:g}", f"--{name.replace('_', '-')}"
    if point.form.extra_body is not None:
        yield "extra_body", point.form.extra_body, "--extra-body"


def _when(item: str) -> str:
    """Describe which releases have a flag or a dataset."""
    span = knobs.bench_releases(item)
    if span is None:
        return "no release has it"
    first, without = span
    return f"it came with {first}" if without is None else f"it is in {first} and later, before {without}"
