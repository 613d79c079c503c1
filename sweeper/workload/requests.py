"""What a load point sends: when each request arrives, and how many tokens it has.

Everything follows from the load point and its seed. Lengths and arrivals have generators of their own, so
the same seed gives the same requests at every rate, and the arrivals of two rates are the same draw
stretched: a difference between load points is never a difference between samples.

Left out: the words. A model of a server needs lengths only, and a real client reads its own dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ConfigError, nearest
from sweeper.kinds import DATASETS, opened
from sweeper.records import LoadPoint, Ramp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Split = Callable[[LoadPoint, Ints, np.random.Generator], tuple["Prompt", ...]]
Draw = Callable[[LoadPoint, np.random.Generator], tuple[Ints, Ints, Ints]]

SHAREGPT_MIN_TOKENS = 4
"""Shortest prompt and shortest answer that are kept. Source: vLLM, benchmarks/benchmark_serving.py 0.6.2."""

SHAREGPT_MAX_PROMPT_TOKENS = 1024
"""Longest prompt that is kept. Source: as above."""

SHAREGPT_MAX_TOTAL_TOKENS = 2048
"""Largest sum of prompt and answer that is kept. Source: as above."""

SHAREGPT_PROMPT_MEDIAN = 163.0
SHAREGPT_PROMPT_SIGMA = 1.8
"""Log-normal prompt lengths before the filter; 215 tokens in the mean after it, the public figure. The spread
is chosen, not measured."""

SHAREGPT_SHORT_FRAC = 0.295
SHAREGPT_SHORT_TOKENS = 40
SHAREGPT_OUTPUT_SCALE = 299.0
SHAREGPT_OUTPUT_SHAPE = 1.34
"""Answer lengths: a part of short ones up to a bound, even in the logarithm, and Weibull lengths for the
rest; 198 tokens in the mean, the public figure. Part and shape are not measured. They are fitted, together
with ``simulation.calibration.Calibration``, to Cases 1 and 2 of "Serving LLMs on AMD MI300X": the longest
answers decide how long a run drains, the shortest weigh most in the mean TPOT."""

SHAREGPT_REPEAT_FRAC = 0.009
"""Part of the requests that send an earlier request's prompt again. Stands for the prompts of ShareGPT that
share a beginning: "Serving LLMs on AMD MI300X" (Case 3) saw 0.9 % prefix hits on a fresh server."""

_LENGTHS, _ARRIVALS, _PIECES = 0, 1, 2

Prompt = tuple[tuple[int, int], ...]
"""A prompt in pieces: the number of each, and the tokens up to its end."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The requests of one client run, in order of arrival.

    Attributes:
        arrival_s: When each is sent, seconds from the first, ascending, shape (requests,).
        input_tokens: Prompt lengths, same shape, at least 1.
        output_tokens: Tokens to generate, same shape, at least 1.
        prompt_ids: Equal where prompts are equal, also between workloads; same shape.
        pieces: Of each prompt, where some begin alike without being equal: a number for each piece, equal
            where everything up to its end is equal, and the tokens up to there. Empty where prompts are equal
            as a whole or not at all.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    prompt_ids: Ints
    pieces: tuple[Prompt, ...] = ()

    def __post_init__(self) -> None:
        shapes = {
            array.shape for array in (self.arrival_s, self.input_tokens, self.output_tokens, self.prompt_ids)
        }
        if len(shapes) != 1 or self.arrival_s.ndim != 1:
            raise ConfigError(
                f"workload: got arrays of shapes {sorted(shapes)}; expected one shape (requests,) for all. "
                "Give every request each of its numbers."
            )
        if self.requests and (np.any(np.diff(self.arrival_s) < 0) or self.arrival_s[0] < 0):
            raise ConfigError(
                "workload: got arrivals that are not ascending from 0; expected the order of arrival. Sort."
            )
        if self.requests and min(self.input_tokens.min(), self.output_tokens.min()) < 1:
            raise ConfigError(
                "workload: got a request without tokens; expected at least 1 in and 1 out. Drop it."
            )

    @property
    def requests(self) -> int:
        """How many there are."""
        return len(self.arrival_s)

    def part(self, *, index: int, parts: int) -> Workload:
        """Return the share of one of several replicas behind a round-robin balancer, arrivals unchanged."""
        share = slice(index, None, parts)
        return Workload(
            arrival_s=self.arrival_s[share],
            input_tokens=self.input_tokens[share],
            output_tokens=self.output_tokens[share],
            prompt_ids=self.prompt_ids[share],
            pieces=self.pieces[share],
        )

    def prompt(self, index: int) -> Prompt:
        """Return a request's prompt in pieces; a single one unless some prompts begin alike."""
        if self.pieces:
            return self.pieces[index]
        return ((int(self.prompt_ids[index]), int(self.input_tokens[index])),)


def make_workload(point: LoadPoint, *, seed: int) -> Workload:
    """Draw the requests of a load point.

    Args:
        point: What is sent; its own ``client_seed`` is not looked at.
        seed: Seed of lengths, arrivals and the identity of prompts.

    Returns:
        ``point.num_prompts`` requests.

    Raises:
        ConfigError: The dataset is unknown, or the load point lacks a length or has an impossible one.
    """
    _check(point)
    draw: Draw = opened(_place(point))
    input_tokens, output_tokens, originals = draw(point, np.random.default_rng([seed, _LENGTHS]))
    offset = _content_offset(point, seed)
    return Workload(
        arrival_s=_arrivals_s(point, np.random.default_rng([seed, _ARRIVALS])),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        prompt_ids=originals + offset,
        pieces=_pieces(point, input_tokens, seed=seed, offset=offset),
    )


def _pieces(point: LoadPoint, input_tokens: Ints, *, seed: int, offset: int) -> tuple[Prompt, ...]:
    """Return which prompts of a load point begin alike; nothing where none do."""
    place = DATASETS[point.dataset].pieces
    if place is None:
        return ()
    split: Split = opened(place)
    prompts = split(point, input_tokens, np.random.default_rng([seed, _PIECES]))
    return tuple(tuple((number + offset, end) for number, end in prompt) for prompt in prompts)


def _place(point: LoadPoint) -> str:
    """Return where the lengths of a dataset are drawn.

    Raises:
        ConfigError: They are not modelled.
    """
    place = DATASETS[point.dataset].draw
    if place is None:
        raise ConfigError(
            f"workload.dataset: is {point.dataset}, whose lengths are not known before it is sent; expected "
            "on the simulated platform a dataset whose lengths are. Measure it, or use dataset custom or "
            "random."
        )
    return place


def _arrivals_s(point: LoadPoint, rng: np.random.Generator) -> Floats:
    """Return when each request of a load point is sent, as ``arrivals_s``."""
    times = DATASETS[point.dataset].times
    if times is not None:
        own: Floats = opened(times)(point)
        return own
    if point.ramp is not None:
        return ramped_s(requests=point.num_prompts, ramp=point.ramp, burstiness=point.burstiness, rng=rng)
    return arrivals_s(
        requests=point.num_prompts,
        rate_per_s=point.request_rate_per_s,
        burstiness=point.burstiness,
        rng=rng,
    )


def ramped_s(*, requests: int, ramp: Ramp, burstiness: float, rng: np.random.Generator) -> Floats:
    """Draw arrivals at a rate that rises from request to request; the first is at 0.

    Args:
        requests: How many.
        ramp: From which rate to which, and how.
        burstiness: Shape of the gaps' Gamma distribution; 1 is Poisson.
        rng: Generator.

    Returns:
        Seconds, ascending, shape (requests,).

    Source:
        vllm/benchmarks/serve.py of 0.32.0: the rate follows the request's index.
    """
    progress = np.arange(requests) / max(requests - 1, 1)
    if ramp.strategy == "linear":
        rates = ramp.start_per_s + (ramp.end_per_s - ramp.start_per_s) * progress
    else:
        rates = ramp.start_per_s * (ramp.end_per_s / ramp.start_per_s) ** progress
    gaps = rng.gamma(burstiness, 1 / burstiness, requests) / rates
    gaps[:1] = 0.0
    return np.cumsum(gaps)


def arrivals_s(
    *, requests: int, rate_per_s: float | None, burstiness: float = 1.0, rng: np.random.Generator
) -> Floats:
    """Draw arrivals, Poisson unless a burstiness says otherwise.

    The first is at 0, as a client sends its first request at once.

    Args:
        requests: How many.
        rate_per_s: Mean arrivals per second; None lets all arrive at 0.
        burstiness: Shape of the gaps' Gamma distribution; 1 is Poisson.
        rng: Generator; the same one gives the same gaps, stretched, at every rate.

    Returns:
        Seconds, ascending, shape (requests,).

    Raises:
        ConfigError: The rate is not above 0.

    Source:
        vLLM, benchmarks/benchmark_serving.py, get_request at burstiness 1: exponential gaps.
    """
    if rate_per_s is None:
        return np.zeros(requests)
    if not rate_per_s > 0:
        raise ConfigError(
            f"load point: request_rate_per_s is {rate_per_s:g}; expected above 0. Use null for all at once."
        )
    if burstiness == 1.0:
        gaps = rng.standard_exponential(requests) / rate_per_s
    else:
        gaps = rng.gamma(burstiness, 1 / burstiness, requests) / rate_per_s
    gaps[:1] = 0.0
    return np.cumsum(gaps)


def sharegpt_lengths(*, requests: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw prompt and answer lengths with the statistics of ShareGPT as vLLM's benchmark filters it.

    A fitted distribution, not the dataset: lengths of prompt and answer are independent of each other. The
    draw is stratified, one length from each of as many equal slices as there are requests, so that the totals
    of every seed are close to the public figures, as those of the dataset's usual sample are.

    Args:
        requests: How many.
        rng: Generator.

    Returns:
        Prompt tokens and answer tokens, each of shape (requests,).
    """
    normal = NormalDist(np.log(SHAREGPT_PROMPT_MEDIAN), SHAREGPT_PROMPT_SIGMA)
    low, high = (
        normal.cdf(np.log(edge)) for edge in (SHAREGPT_MIN_TOKENS - 0.5, SHAREGPT_MAX_PROMPT_TOKENS + 0.5)
    )
    levels = low + (high - low) * _stratified(requests, rng)
    prompts = np.exp([normal.inv_cdf(level) for level in levels])

    levels = _stratified(requests, rng)
    low, high = np.log(SHAREGPT_MIN_TOKENS - 0.5), np.log(SHAREGPT_SHORT_TOKENS + 0.5)
    short = np.exp(low + (high - low) * levels / SHAREGPT_SHORT_FRAC)
    survival = np.clip((1 - levels) / (1 - SHAREGPT_SHORT_FRAC), 0, 1)
    long = SHAREGPT_OUTPUT_SCALE * (-np.log(survival)) ** (1 / SHAREGPT_OUTPUT_SHAPE)
    answers = np.where(levels < SHAREGPT_SHORT_FRAC, short, np.maximum(long, SHAREGPT_MIN_TOKENS))

    prompt_tokens = np.rint(prompts).astype(np.int64)
    answer_tokens = np.minimum(np.rint(answers).astype(np.int64), SHAREGPT_MAX_TOTAL_TOKENS - prompt_tokens)
    return prompt_tokens, answer_tokens


def random_lengths(*, requests: int, mean_tokens: int, range_ratio: float, rng: np.random.Generator) -> Ints:
    """Draw whole lengths uniformly from mean * (1 +/- ratio), both ends included, at least 1.

    Args:
        requests: How many.
        mean_tokens: Middle of the range, tokens.
        range_ratio: Half its width as a part of the mean, 0 to 1.
        rng: Generator.

    Returns:
        Tokens, shape (requests,).

    Source:
        vLLM bench serve's random dataset since 0.9.1, whose ``--random-range-ratio`` means this.
    """
    low = max(1, int(np.floor(mean_tokens * (1 - range_ratio))))
    high = max(low, int(np.ceil(mean_tokens * (1 + range_ratio))))
    return rng.integers(low, high, size=requests, endpoint=True)


def draw_random(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw lengths around their means; all prompts differ."""
    own = np.arange(point.num_prompts, dtype=np.int64)
    assert point.input_len is not None and point.output_len is not None
    lengths = [
        random_lengths(requests=point.num_prompts, mean_tokens=mean, range_ratio=point.range_ratio, rng=rng)
        for mean in (point.input_len, point.output_len)
    ]
    return lengths[0] + int(point.option("prefix_len") or 0), lengths[1], own


def pieces_after_one_prefix(
    point: LoadPoint, input_tokens: Ints, rng: np.random.Generator
) -> tuple[Prompt, ...]:
    """Return prompts that all begin with the same ``prefix_len`` tokens; nothing without such."""
    shared = int(point.option("prefix_len") or 0)
    if not shared:
        return ()
    return tuple(((0, shared), (1 + place, int(end))) for place, end in enumerate(input_tokens))


def pieces_after_prefixes(
    point: LoadPoint, input_tokens: Ints, rng: np.random.Generator
) -> tuple[Prompt, ...]:
    """Return prompts of which equally many begin with each of ``num_prefixes`` prefixes, in random order."""
    options = dict(point.options)
    prefixes, shared = int(options["num_prefixes"]), int(options["prefix_len"])
    which = rng.permutation(np.arange(point.num_prompts) % prefixes)
    return tuple(
        ((int(which[place]), shared), (prefixes + place, int(end))) for place, end in enumerate(input_tokens)
    )


def draw_sharegpt(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Draw ShareGPT's lengths, and for each request the index of the one whose prompt it sends."""
    own = np.arange(point.num_prompts, dtype=np.int64)
    prompts, answers = sharegpt_lengths(requests=point.num_prompts, rng=rng)
    if point.output_len is not None:
        answers = np.full(point.num_prompts, point.output_len, np.int64)
    repeats = rng.random(point.num_prompts) < SHAREGPT_REPEAT_FRAC
    repeats[:1] = False
    earlier = (rng.random(point.num_prompts) * own).astype(np.int64)
    originals = np.where(repeats, earlier, own)
    # An original may be a repeat itself; its own original then lies further back.
    while np.any(originals[originals] != originals):
        originals = originals[originals]
    return prompts[originals], answers, originals


def draw_prefix_repetition(point: LoadPoint, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Return prompts of a prefix and a suffix each, in random order; which prefix is drawn with them."""
    options = dict(point.options)
    whole = np.full(point.num_prompts, int(options["prefix_len"]) + int(options["suffix_len"]), np.int64)
    assert point.output_len is not None
    return whole, np.full(point.num_prompts, point.output_len, np.int64), np.arange(point.num_prompts)


def _stratified(count: int, rng: np.random.Generator) -> Floats:
    """Draw numbers from 0 to 1, one from each of ``count`` equal slices, in random order."""
    return (rng.permutation(count) + rng.random(count)) / max(count, 1)


def _content_offset(point: LoadPoint, seed: int) -> int:
    """Return prompts of different seeds, datasets or lengths different identities; rates do not matter."""
    text = f"{seed}/{point.dataset}/{point.input_len}/{point.range_ratio}"
    if point.options:
        text += f"/{point.dataset_options}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") << 24


def _check(point: LoadPoint) -> None:
    kind = DATASETS.get(point.dataset)
    if kind is None or not kind.needs_server:
        known = [name for name in DATASETS if DATASETS[name].needs_server]
        raise ConfigError(
            f"load point: dataset is '{point.dataset}'; expected one of {', '.join(known)}. "
            f"Choose one of them.{nearest(point.dataset, known)}"
        )
    if point.num_prompts < 0:
        raise ConfigError(f"load point: num_prompts is {point.num_prompts}; expected 0 or more. Raise it.")
    if not 0 <= point.range_ratio <= 1:
        raise ConfigError(f"load point: range_ratio is {point.range_ratio:g}; expected 0 to 1. Change it.")
    if not kind.has_own_lengths and (point.input_len is None or point.output_len is None):
        raise ConfigError(
            f"load point: dataset {point.dataset} with input_len {point.input_len} and output_len "
            f"{point.output_len}; expected both in tokens. Give them."
        )
    for name, tokens in (("input_len", point.input_len), ("output_len", point.output_len)):
        if tokens is not None and tokens < 1:
            raise ConfigError(f"load point: {name} is {tokens}; expected at least 1 token. Raise it.")
