"""Distributions that a load is drawn from: gaps between arrivals, and lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import ConfigError
from sweeper.records import Ramp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAREGPT_MIN_TOKENS = 4
"""Shortest prompt and shortest answer that are kept. Source: vLLM, benchmarks/benchmark_serving.py 0.6.2."""

SHAREGPT_PROMPTS = (
    *(4, 6, 8, 9, 10, 11, 13, 14, 15, 17, 19, 22, 24, 27, 31, 35, 43, 48, 58, 72, 83, 112, 140, 175),
    *(209, 236, 258, 287, 315, 333, 357, 384, 426, 475, 516, 564, 621, 681, 756, 770, 997),
)
"""Tokens of the usual 1000 prompts by Llama 3's tokenizer, at every fortieth of them, ascending.

Source: raw results of github.com/dstackai/benchmarks, comparison/h100sxm5_vs_mi300x, ``input_lens``."""

SHAREGPT_ANSWERS = (
    *(4, 4, 5, 7, 10, 11, 13, 14, 14, 18, 23, 26, 32, 41, 46, 50, 70, 102, 120, 140, 157, 172, 186, 205),
    *(215, 228, 256, 273, 295, 311, 329, 341, 361, 383, 401, 429, 486, 505, 588, 650, 801),
)
"""Tokens that are asked for with them, likewise: what several of six runs gave at most, each prompt as often
as such runs are rare among prompts of its length, and 2.7 % more, which gives the public total of 198,000.

Source: as above, ``output_lens``. Of 570 prompts two runs or more ended at one length, their limit."""

SHAREGPT_GIVEN_TOKENS = 187.0
"""What a model gives of them in the mean, where nothing makes it go on: Llama 3.1 70B Instruct, by "Notes on
benchmark_serving.py" of Shisa and Hot Aisle (2024-12-16). 405B Instruct gives 180 (as above)."""


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

    Not the dataset: lengths of prompt and answer are independent of each other. The draw is stratified, one
    length from each of as many equal slices as there are requests, so that the totals of every seed are close
    to the public figures, as those of the dataset's usual sample are.

    Args:
        requests: How many.
        rng: Generator.

    Returns:
        Prompt tokens and answer tokens, each of shape (requests,).
    """
    prompts, answers = (
        np.rint(np.interp(_stratified(requests, rng), np.linspace(0, 1, len(known)), known)).astype(np.int64)
        for known in (SHAREGPT_PROMPTS, SHAREGPT_ANSWERS)
    )
    return prompts, answers


def ended_early(answers: Ints, *, mean_tokens: float, rng: np.random.Generator) -> Ints:
    """Return answers of which a model ends some by itself: after each token with the same probability.

    Args:
        answers: Longest length of each, shape (requests,).
        mean_tokens: What is left of them in the mean; all of it where that is no more.
        rng: Generator; stratified, as ``sharegpt_lengths``.

    Returns:
        Tokens, shape (requests,), at least 1.
    """
    if not len(answers) or mean_tokens >= answers.mean():
        return answers
    own = -np.log1p(-_stratified(len(answers), rng))
    # How far apart ends are, in the mean: halve its range, in the logarithm.
    low, high = 1e-3, 1e6
    left = answers
    for _ in range(50):
        middle = float(np.sqrt(low * high))
        left = np.minimum(answers, np.maximum(np.rint(middle * own), 1)).astype(np.int64)
        low, high = (low, middle) if left.mean() > mean_tokens else (middle, high)
    return left


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


def _stratified(count: int, rng: np.random.Generator) -> Floats:
    """Draw numbers from 0 to 1, one from each of ``count`` equal slices, in random order."""
    return (rng.permutation(count) + rng.random(count)) / max(count, 1)
