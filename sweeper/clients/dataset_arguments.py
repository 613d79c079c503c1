"""Arguments of vLLM's load generator for a dataset: of the command, and of the script before it."""

from __future__ import annotations

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, DATASETS, opened
from sweeper.models.chat_template import lacks_chat_template
from sweeper.records import LoadPoint
from sweeper.workload.logs import BLOCK_TOKENS

# Random lengths were drawn from [ratio * len, len] before, and from len * (1 +/- ratio) since.
_RATIO_ABOUT_THE_MEAN = "0.8.4"

_SKIP = "skip_chat_template"

OWN_OUTPUT_LEN = -1
"""Stands for the answer lengths of a custom file in ``--custom-output-len``."""

OWN_OUTPUT_LEN_SINCE = "0.14.0"
"""First release that reads them. Source: vllm/benchmarks/datasets.py of 0.13.0 and 0.14.0."""


def of(point: LoadPoint) -> list[str]:
    """Write the words of ``vllm bench serve`` for the dataset of a load point.

    The words of its options (``workload.options``) come last.

    Raises:
        ConfigError: It cannot send this dataset.
    """
    words: list[str] = opened(check_known(point))(point)
    return [*words, *_options(point)]


def untemplated(point: LoadPoint, *, release: str, tokenizer: str) -> list[str]:
    """Return the argument by which a client does not put the prompts of a file into a chat template.

    It would put them into it for either endpoint. At the chat endpoint the server does so; and a model
    without a template has none to put them into. What ``workload.options`` says of it holds as it stands.

    Args:
        point: What is sent.
        release: Of the vLLM whose benchmark it is.
        tokenizer: Folder or hub id; only a folder is looked into.

    Source: CustomDataset.sample, vllm/benchmarks/datasets of 0.32.0, which does so whatever the backend.
    """
    if not DATASETS[point.dataset].is_templated or point.option(_SKIP) is not None:
        return []
    if point.form.endpoint != "chat" and not lacks_chat_template(tokenizer):
        return []
    flags = ("--skip-chat-template", "--custom-skip-chat-template")
    return [flag for flag in flags if knobs.bench_flag(flag, release) is not None]


def check_known(point: LoadPoint) -> str:
    """Return where the words of a dataset are written.

    Raises:
        ConfigError: There is no such dataset, or it is not sent to a server.
    """
    kind = DATASETS.get(point.dataset)
    if kind is not None and kind.conversations is not None:
        clients = [one.name for one in CLIENTS.values() if kind.name in (one.datasets or ())]
        expected = " or ".join(f"client={name}" for name in clients) or "the simulated platform"
        raise ConfigError(
            f"workload.dataset: is {kind.name}, whose requests wait for the answers before them, and vLLM's "
            f"benchmark sends single ones; expected {expected}. Set it, or choose another dataset."
        )
    if kind is None or kind.arguments is None:
        able = " or ".join(sorted(known.name for known in DATASETS.values() if known.arguments is not None))
        raise ConfigError(f"load point: dataset '{point.dataset}'; expected {able}. Choose one of them.")
    return kind.arguments


def _options(point: LoadPoint) -> list[str]:
    """Return the arguments for what the dataset was told beside lengths."""
    declared, words = DATASETS[point.dataset].options, []
    for name, value in point.options:
        option = declared[name]
        if option.flag is None:
            continue
        if option.type is bool:
            words += [option.flag] if value else []
        else:
            words += [option.flag, str(value)]
    return words


def of_script(point: LoadPoint, *, release: str) -> list[str]:
    """Write the words of a release's script for the dataset of a load point.

    Raises:
        ConfigError: As ``of``.
    """
    place = DATASETS[point.dataset].script_arguments
    if place is None:
        raise ConfigError(
            f"workload.dataset: is '{point.dataset}', and the benchmark script of vLLM {release} is not "
            "given it here; expected sharegpt or random. Take vLLM 0.9.1 or later for the client "
            "(client.python=...)."
        )
    words: list[str] = opened(place)(point, release=release)
    return words


def sharegpt(point: LoadPoint) -> list[str]:
    """Return the arguments for the file of conversations, and the length of their answers if given."""
    path = [] if point.dataset_path is None else ["--dataset-path", point.dataset_path]
    output = [] if point.output_len is None else ["--sharegpt-output-len", str(point.output_len)]
    return ["--dataset-name", "sharegpt", *path, *output]


def sharegpt_for_script(point: LoadPoint, *, release: str) -> list[str]:
    """Return the same for the script, which takes it in the same words in every release."""
    return sharegpt(point)


def random(point: LoadPoint) -> list[str]:
    """Return the arguments for the mean lengths, and the range around them."""
    lengths = (("--random-input-len", point.input_len), ("--random-output-len", point.output_len))
    return [
        *("--dataset-name", "random", "--random-range-ratio", f"{point.range_ratio:g}"),
        *(word for flag, value in lengths if value is not None for word in (flag, str(value))),
    ]


def random_for_script(point: LoadPoint, *, release: str) -> list[str]:
    """Return the same range in the arguments of a release."""
    assert point.input_len is not None and point.output_len is not None
    ratio, longest = point.range_ratio, 1.0
    if knobs.release_key(release) < knobs.release_key(_RATIO_ABOUT_THE_MEAN):
        # The same range in the older words: its upper end, and its lower end as a part of that.
        ratio, longest = (1 - ratio) / (1 + ratio), 1 + ratio
    return [
        *("--dataset-name", "random", "--random-range-ratio", f"{ratio:g}"),
        *("--random-input-len", str(round(point.input_len * longest))),
        *("--random-output-len", str(round(point.output_len * longest))),
    ]


def prefix_repetition(point: LoadPoint) -> list[str]:
    """Return the arguments for the answers; the lengths of the prompts are options."""
    return ["--dataset-name", "prefix_repetition", "--prefix-repetition-output-len", str(point.output_len)]


def sonnet(point: LoadPoint) -> list[str]:
    """Return the arguments for prompts made of lines of a text."""
    return [
        *_from_file("sonnet", point),
        *("--sonnet-input-len", str(point.input_len), "--sonnet-output-len", str(point.output_len)),
    ]


def from_file(point: LoadPoint) -> list[str]:
    """Return the arguments for a file that says all by itself."""
    return _from_file(point.dataset, point)


def custom(point: LoadPoint) -> list[str]:
    """Return the arguments for prompts of a file, in its order, and the length of their answers."""
    return [
        *_from_file("custom", point),
        # The lengths of the file itself; releases before have no other than the one given.
        *("--custom-output-len", str(OWN_OUTPUT_LEN if point.output_len is None else point.output_len)),
    ]


def timed_trace(point: LoadPoint) -> list[str]:
    """Return the arguments for a trace in Mooncake's layout, replayed at its own times."""
    speed = float(point.option("speed") or 1.0)
    # Its times are in milliseconds.
    return [*_trace(point), "--self-timed", "--timed-trace-sec-multiplier", f"{0.001 / speed:g}"]


def trace_lengths(point: LoadPoint) -> list[str]:
    """Return the arguments for the lengths and equal beginnings of a trace, sent at a rate."""
    # Left out, the trace's own times would hold (vllm/benchmarks/datasets of 0.32.0, get_samples).
    return [*_trace(point), "--no-self-timed"]


def _trace(point: LoadPoint) -> list[str]:
    has_chunk = point.option("chunk_len") is not None
    chunk = [] if has_chunk else ["--timed-trace-chunk-hash-size", str(BLOCK_TOKENS)]
    return [
        *_from_file("timed_trace", point),
        *("--timed-trace-label-timestamp", "timestamp"),
        *("--timed-trace-label-input-length", "input_length"),
        *("--timed-trace-label-output-length", "output_length"),
        *("--timed-trace-label-hash-ids", "hash_ids"),
        *chunk,
    ]


def hugging_face(point: LoadPoint) -> list[str]:
    """Return the arguments for a dataset of the hub, or a folder with a copy of one."""
    output = [] if point.output_len is None else ["--hf-output-len", str(point.output_len)]
    return [*_from_file("hf", point), *output]


def _from_file(name: str, point: LoadPoint) -> list[str]:
    return ["--dataset-name", name, "--dataset-path", str(point.dataset_path)]
