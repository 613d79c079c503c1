"""The datasets: what a load point can send, and what each client has to be given for it."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.kinds.registry import Registry


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """What is known of a dataset without reading it.

    Where code is named, it is as ``module:name``. Lengths are in tokens.

    Attributes:
        name: Value of ``workload.dataset``.
        needs_server: It is sent to a server; otherwise it is a benchmark with the engine inside it.
        reads_file: It is read from ``workload.dataset_path``.
        draws_lengths: Its lengths are drawn around ``input_len`` and ``output_len`` (``range_ratio``).
        has_own_lengths: Its prompts have lengths of their own, so that ``input_len`` means nothing.
        is_batch: One batch is measured again and again, in place of requests.
        arguments: Function from a load point to its words for ``vllm bench serve``; None where that cannot
            send it.
        script_arguments: Function from a load point and a release to its words for the script of earlier
            releases; None where they are the same.
        draw: Function from a load point and a generator to lengths in, lengths out, and for each request the
            index of the one whose prompt it sends: what is modelled in its place.
        check: Function from a load point that raises ``ConfigError`` where its file is wrong; None for none.
        repeated: Function from a load point to how many prompts are sent more than once at least, or to None.
        mean_input_len: Prompt tokens in the mean, where it has own lengths; ShareGPT's unless it says others.
        mean_output_len: Answer tokens in the mean, where nothing else is asked.
        longest_output_len: Answer tokens of the longest that usually comes.
        most_input_len: No prompt is longer.
        most_total_len: No prompt and answer are longer together.
    """

    name: str
    needs_server: bool = True
    reads_file: bool = False
    draws_lengths: bool = False
    has_own_lengths: bool = False
    is_batch: bool = False
    arguments: str | None = None
    script_arguments: str | None = None
    draw: str = "sweeper.workload.requests:draw_random"
    check: str | None = None
    repeated: str | None = None
    mean_input_len: float = 215.0
    mean_output_len: float = 198.0
    longest_output_len: float = 1200.0
    most_input_len: int = 1024
    most_total_len: int = 2048


_SHAREGPT = DatasetKind(
    name="sharegpt",
    reads_file=True,
    has_own_lengths=True,
    arguments="sweeper.clients.dataset_arguments:sharegpt",
    draw="sweeper.workload.requests:draw_sharegpt",
    check="sweeper.clients.requirements:check_sharegpt",
    repeated="sweeper.clients.requirements:repeated_in_sharegpt",
    # Means after vLLM's filter, as published for its benchmark; and the longest of a thousand answers, about,
    # by the distribution in ``workload``: 299 ln(700) ** (1 / 1.34).
    mean_input_len=215.0,
    mean_output_len=198.0,
    longest_output_len=1200.0,
)
_RANDOM = DatasetKind(
    name="random",
    draws_lengths=True,
    arguments="sweeper.clients.dataset_arguments:random",
    script_arguments="sweeper.clients.dataset_arguments:random_for_script",
)
_LATENCY = DatasetKind(name="latency", needs_server=False, is_batch=True)
_THROUGHPUT = DatasetKind(name="throughput", needs_server=False)

DATASETS = Registry(
    "workload.dataset",
    (_SHAREGPT, _RANDOM, _LATENCY, _THROUGHPUT),
    declared_by=DatasetKind,
    group="sweeper.datasets",
)
"""What a load point can send."""
