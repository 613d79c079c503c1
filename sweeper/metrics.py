"""From the times of single requests to the numbers of a serving benchmark.

Names, units and definitions are those of vLLM's own benchmark, because that is what the source documents
and everyone else's charts use: a number from here may be compared with one from there. Latencies are of what
the client sees. Only completed requests enter; how many failed is a number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import MeasurementError, nearest
from sweeper.records import GOODPUT_BOUNDS, FailureClass
from sweeper.records.metrics import PERCENTILES, statistic_names

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class RequestRecords:
    """What a client saw of each request.

    Attributes:
        arrival_s: When it was sent, seconds on one monotonic clock, shape (requests,).
        first_token_s: When its first token came; NaN where it failed; same shape and clock.
        last_token_s: When its last token came; shape as above.
        input_tokens: Prompt tokens, same shape.
        output_tokens: Tokens received, same shape; 0 where it failed.
        inter_token_s: Gaps between consecutive messages of one request, of all completed requests, flat.
    """

    arrival_s: Floats
    first_token_s: Floats
    last_token_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    inter_token_s: Floats

    def __post_init__(self) -> None:
        done = self.is_complete
        too_early = np.flatnonzero(done & (self.first_token_s < self.arrival_s))
        out_of_order = np.flatnonzero(done & (self.last_token_s < self.first_token_s))
        for wrong, what in (
            (too_early, "a first token before it was sent"),
            (out_of_order, "a last token before its first"),
        ):
            if len(wrong):
                raise MeasurementError(
                    f"request {wrong[0]}: got {what}; expected times in order. Look at the client's clock.",
                    failure=FailureClass.CLIENT,
                )

    @property
    def is_complete(self) -> Bools:
        """Which requests came back whole, shape (requests,)."""
        return np.isfinite(self.last_token_s)

    def answered_within(self, seconds: float) -> RequestRecords:
        """Return what a client saw that stops counting so many seconds after its first request.

        Requests that are under way then fail. Gaps between messages are not told apart by request, so there
        are none.
        """
        is_late = self.last_token_s > np.min(self.arrival_s) + seconds
        return replace(
            self,
            first_token_s=np.where(is_late, np.nan, self.first_token_s),
            last_token_s=np.where(is_late, np.nan, self.last_token_s),
            output_tokens=np.where(is_late, 0, self.output_tokens),
            inter_token_s=np.empty(0),
        )


def ttft_ms(records: RequestRecords) -> Floats:
    """Time to first token of each request, from sending.

    Returns:
        Milliseconds, shape (requests,); NaN where it failed.

    Source:
        vLLM, benchmarks/benchmark_serving.py 0.6.2, calculate_metrics; so are the others here.
    """
    return (records.first_token_s - records.arrival_s) * 1e3


def e2el_ms(records: RequestRecords) -> Floats:
    """End-to-end latency of each request, from sending to its last token.

    Returns:
        Milliseconds, shape (requests,); NaN where it failed.
    """
    return (records.last_token_s - records.arrival_s) * 1e3


def tpot_ms(records: RequestRecords) -> Floats:
    """Mean time per output token after the first, for each request.

    Returns:
        Milliseconds, shape (requests,); NaN where it failed or produced a single token.

    Source:
        (latency - TTFT) / (n - 1). GuideLLM's metric of the same name divides by n and includes the first
        token: the two are not comparable.
    """
    later_tokens = np.where(records.output_tokens > 1, records.output_tokens - 1, np.nan)
    return (records.last_token_s - records.first_token_s) * 1e3 / later_tokens


def summarize(
    records: RequestRecords, *, goodput_bounds_ms: Mapping[str, float] | None = None
) -> dict[str, float | None]:
    """Return the benchmark's numbers.

    Args:
        records: All requests of one run.
        goodput_bounds_ms: Upper bounds on ``ttft_ms``, ``tpot_ms`` or ``e2el_ms`` that a good request
            keeps; None leaves goodput unknown.

    Returns:
        Number by name. Rates are per second of ``duration_s``, from the first request sent to the last
        completed. A statistic of nothing is None.

    Raises:
        MeasurementError: A bound is on something else.
    """
    done = records.is_complete
    lasted_s = duration_s(records)
    inputs, outputs = int(records.input_tokens[done].sum()), int(records.output_tokens[done].sum())
    good = None if goodput_bounds_ms is None else _good_requests(records, goodput_bounds_ms)
    numbers: dict[str, float | None] = {
        "completed": int(done.sum()),
        "failed": int((~done).sum()),
        "duration_s": lasted_s,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput_per_s": _rate(done.sum(), lasted_s),
        "output_throughput_tok_per_s": _rate(outputs, lasted_s),
        "total_throughput_tok_per_s": _rate(inputs + outputs, lasted_s),
        "request_goodput_per_s": None if good is None else _rate(good, lasted_s),
    }
    for name, values in (
        ("ttft", ttft_ms(records)),
        ("tpot", tpot_ms(records)),
        ("itl", records.inter_token_s * 1e3),
        ("e2el", e2el_ms(records)),
    ):
        numbers |= statistics_ms(name, values)
    return numbers


def batch_metrics(
    latencies_s: Floats, *, requests: int, input_len: int, output_len: int
) -> dict[str, float | None]:
    """Return the numbers of one batch that is served again and again.

    Args:
        latencies_s: Seconds from handing over the batch to its last token, shape (iterations,).
        requests: Prompts in the batch.
        input_len: Tokens of each prompt.
        output_len: Tokens generated for each.

    Returns:
        Number by name: statistics of the batch's latency, and the tokens of one iteration;
        ``duration_s`` is that of all iterations.

    Source:
        vLLM's latency benchmark (``vllm bench latency``), which times rounds of one batch.
    """
    return {
        **statistics_ms("batch_latency", latencies_s * 1e3),
        "completed": requests,
        "failed": 0,
        "total_input_tokens": requests * input_len,
        "total_output_tokens": requests * output_len,
        "duration_s": float(latencies_s.sum()),
    }


def statistics_ms(name: str, values_ms: Floats) -> dict[str, float | None]:
    """Return mean, median, standard deviation and percentiles, NaN left out.

    Args:
        name: Of the latency; it goes into the names of the numbers, as ``mean_ttft_ms``.
        values_ms: Milliseconds, flat.

    Returns:
        Milliseconds by name; None where there is no value. The deviation is the population's, and
        percentiles interpolate linearly, as numpy's defaults, which vLLM's benchmark uses.
    """
    values = values_ms[np.isfinite(values_ms)]
    names = statistic_names(name)
    if not len(values):
        return dict.fromkeys(names)
    numbers = [values.mean(), np.median(values), values.std(), *np.percentile(values, PERCENTILES)]
    return {full: float(number) for full, number in zip(names, numbers, strict=True)}


def duration_s(records: RequestRecords) -> float | None:
    """Return the seconds from the first request sent to the last completed; None where none completed."""
    done = records.is_complete
    if not np.any(done):
        return None
    return float(records.last_token_s[done].max() - records.arrival_s.min())


def _rate(amount: float, duration_s: float | None) -> float | None:
    return float(amount) / duration_s if duration_s else None


def _good_requests(records: RequestRecords, bounds_ms: Mapping[str, float]) -> int:
    """Count the completed requests that keep every bound; a single token has no TPOT and keeps any.

    Source:
        vLLM 0.32.0, vllm/benchmarks/serve.py, calculate_metrics: good where every latency is at most its
        bound, with a TPOT of 0 for a single token; divided by the duration of the whole run.
    """
    latencies_ms = {
        "ttft_ms": ttft_ms(records),
        "tpot_ms": np.nan_to_num(tpot_ms(records), nan=0.0),
        "e2el_ms": e2el_ms(records),
    }
    good = records.is_complete.copy()
    for name, bound_ms in bounds_ms.items():
        if name not in latencies_ms:
            raise MeasurementError(
                f"goodput: got a bound on '{name}'; expected {', '.join(GOODPUT_BOUNDS)}. "
                f"Rename it.{nearest(name, GOODPUT_BOUNDS)}",
                failure=FailureClass.CLIENT,
            )
        good &= latencies_ms[name] <= bound_ms
    return int(good.sum())
