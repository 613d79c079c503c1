"""Arguments of vLLM's load generator for a dataset: of the command, and of the script before it."""

from __future__ import annotations

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.kinds import DATASETS, opened
from sweeper.records import LoadPoint

# Random lengths were drawn from [ratio * len, len] before, and from len * (1 +/- ratio) since.
_RATIO_ABOUT_THE_MEAN = "0.8.4"


def of(point: LoadPoint) -> list[str]:
    """Write the words of ``vllm bench serve`` for the dataset of a load point.

    Raises:
        ConfigError: It cannot send this dataset.
    """
    kind = DATASETS.get(point.dataset)
    if kind is None or kind.arguments is None:
        able = " or ".join(sorted(known.name for known in DATASETS.values() if known.arguments is not None))
        raise ConfigError(f"load point: dataset '{point.dataset}'; expected {able}. Choose one of them.")
    words: list[str] = opened(kind.arguments)(point)
    return words


def of_script(point: LoadPoint, *, release: str) -> list[str]:
    """Write the words of a release's script for the dataset of a load point.

    Raises:
        ConfigError: As ``of``.
    """
    place = DATASETS[point.dataset].script_arguments
    if place is None:
        return of(point)
    words: list[str] = opened(place)(point, release=release)
    return words


def sharegpt(point: LoadPoint) -> list[str]:
    """Return the arguments for the file of conversations, and the length of their answers if given."""
    path = [] if point.dataset_path is None else ["--dataset-path", point.dataset_path]
    output = [] if point.output_len is None else ["--sharegpt-output-len", str(point.output_len)]
    return ["--dataset-name", "sharegpt", *path, *output]


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
