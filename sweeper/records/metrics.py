"""The declared metrics: name, unit, which way is better, words, and which of vLLM's benchmarks reports each.

Columns of the store, charts, the block of ``benchmark_results.md``, what a calibration is fitted to and what
the dashboard shows come from here: another metric, or a chart of another one, is a change of this file.
Names and definitions are those of vLLM's benchmarks; ``max_rate_per_s``,
``max_users`` and those of the steady part are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

PERCENTILES = (50, 90, 95, 99)
"""Percentiles of every latency."""

PERCENTILE_NAMES = tuple(f"p{percent}" for percent in PERCENTILES)
"""The same as they stand in the names of metrics."""

STATISTICS: Mapping[str, str] = {
    "mean": "Mean",
    "median": "Median",
    "std": "Standard deviation of the",
    **{f"p{percent}": f"{percent}th percentile of the" for percent in PERCENTILES},
}
"""Statistics of every latency, with the words that begin their description."""


class Benchmark(StrEnum):
    """What of vLLM reports a metric: its benchmark of a server, or one of the two without a server."""

    SERVING = "serving"
    THROUGHPUT = "throughput"
    LATENCY = "latency"


class Kind(StrEnum):
    """Runs that a calibration is fitted to: of a server, or of the benchmarks without one."""

    SERVER = "server"
    OFFLINE = "offline"


class Chart(StrEnum):
    """Charts that a study has unasked: bars of any study, lines of one over batch or prompt length."""

    BARS = "bars"
    LINES = "lines"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A latency, of which a client reports the statistics.

    Attributes:
        name: As it appears in the names of metrics.
        meaning: What is timed; it ends the description of each statistic.
        heading: Its heading in the text of vLLM's benchmark; empty where it has none.
        axis: Title of its axis in the chart of one trial; None leaves it out there.
        benchmark: Which benchmark reports it.
    """

    name: str
    meaning: str
    heading: str = ""
    axis: str | None = None
    benchmark: Benchmark = Benchmark.SERVING


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a calibration of the model is fitted to a metric and judged by it.

    Attributes:
        kind: Runs whose metric it is.
        weight: How much a relative error of it counts.
        bar_pct: Mean error, in percent, up to which the validation page calls the model good enough; None
            where it sets no bar.
    """

    kind: Kind
    weight: float
    bar_pct: float | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of one run.

    Attributes:
        name: The same in code, Parquet and tables; the unit ends it.
        unit: Unit of the values.
        description: What a value means.
        is_whole: Whether values are whole numbers.
        is_higher_better: Which way is good; None for what is neither.
        title: Title of its chart and axis, with the unit.
        words: Its name in a sentence or a table's head.
        statistic: One of ``STATISTICS`` where it is one of a latency.
        latency: Name of that latency.
        benchmarks: Which of vLLM's benchmarks report it; none reports what is ours.
        reported_as: Names in the JSON of vLLM's serving benchmark, of which the first that is there counts.
        printed_as: Its line in the text of vLLM's serving benchmark; empty where it has none.
        charts: Charts that show it unasked.
        fit: How a calibration is fitted to it; None where none is.
        is_compared: Whether trials alone and with others on the node are compared by it.
        is_on_dashboard: Whether the dashboard shows it next to each trial.
        is_offered: Whether it cannot be above the rate at which requests are sent.
    """

    name: str
    unit: str
    description: str
    is_whole: bool = False
    is_higher_better: bool | None = None
    title: str
    words: str
    statistic: str | None = None
    latency: str | None = None
    benchmarks: frozenset[Benchmark] = frozenset()
    reported_as: tuple[str, ...] = ()
    printed_as: str = ""
    charts: frozenset[Chart] = frozenset()
    fit: Fit | None = None
    is_compared: bool = False
    is_on_dashboard: bool = False
    is_offered: bool = False


@dataclass(frozen=True, kw_only=True)
class _Use:
    """What is particular to one statistic of one latency."""

    title: str | None = None
    words: str | None = None
    charts: frozenset[Chart] = frozenset()
    fit: Fit | None = None
    is_compared: bool = False
    is_on_dashboard: bool = False


LATENCIES: tuple[Latency, ...] = (
    Latency(
        name="ttft",
        meaning="time to first token",
        heading="Time to First Token",
        axis="Time to first token (ms)",
    ),
    Latency(
        name="tpot",
        meaning="time per output token after the first, per request",
        heading="Time per Output Token (excl. 1st token)",
        axis="Time per output token (ms)",
    ),
    Latency(name="itl", meaning="time between consecutive tokens", heading="Inter-token Latency"),
    Latency(
        name="e2el",
        meaning="end-to-end latency of a request",
        heading="End-to-end Latency",
        axis="Whole request (ms)",
    ),
    Latency(
        name="batch_latency",
        meaning="latency of a whole batch, over its iterations; dataset latency only",
        benchmark=Benchmark.LATENCY,
    ),
)
"""Every latency."""

REQUEST_LATENCIES = tuple(one for one in LATENCIES if one.benchmark is Benchmark.SERVING)
"""Latencies of requests that are sent to a server."""

_USES: Mapping[str, _Use] = {
    "mean_ttft_ms": _Use(
        title="Mean TTFT (ms)",
        charts=frozenset({Chart.BARS, Chart.LINES}),
        fit=Fit(kind=Kind.SERVER, weight=0.6, bar_pct=25.0),
        is_compared=True,
        is_on_dashboard=True,
    ),
    "p99_ttft_ms": _Use(is_compared=True),
    "mean_tpot_ms": _Use(
        title="Mean TPOT (ms)",
        charts=frozenset({Chart.BARS}),
        fit=Fit(kind=Kind.SERVER, weight=1.0, bar_pct=15.0),
        is_compared=True,
        is_on_dashboard=True,
    ),
    "p99_tpot_ms": _Use(is_compared=True),
    "mean_e2el_ms": _Use(words="mean latency", is_compared=True),
    "p99_e2el_ms": _Use(is_compared=True),
    "mean_batch_latency_ms": _Use(
        words="latency of a batch", fit=Fit(kind=Kind.OFFLINE, weight=2.0), is_compared=True
    ),
}

_ALL_BENCHMARKS = frozenset(Benchmark)
_RATES_OF = frozenset({Benchmark.SERVING, Benchmark.THROUGHPUT})


def _statistic(latency: Latency, statistic: str) -> Metric:
    """Declare one statistic of a latency."""
    name = f"{statistic}_{latency.name}_ms"
    use = _USES.get(name, _Use())
    is_of_request = latency.benchmark is Benchmark.SERVING
    short = f"{statistic} {latency.name.upper()}" if is_of_request else name
    return Metric(
        name=name,
        unit="ms",
        description=f"{STATISTICS[statistic]} {latency.meaning}",
        is_higher_better=False,
        title=use.title or (f"{short} (ms)" if is_of_request else name),
        words=use.words or short,
        statistic=statistic,
        latency=latency.name,
        benchmarks=frozenset({latency.benchmark}),
        reported_as=(name,) if is_of_request else (),
        charts=use.charts,
        fit=use.fit,
        is_compared=use.is_compared,
        is_on_dashboard=use.is_on_dashboard,
    )


def _count(name: str, unit: str, description: str, *, printed_as: str = "") -> Metric:
    """Declare a count, which every benchmark reports."""
    return Metric(
        name=name,
        unit=unit,
        description=description,
        is_whole=True,
        title=name,
        words=name,
        benchmarks=_ALL_BENCHMARKS,
        reported_as=(name,),
        printed_as=printed_as,
    )


METRICS: tuple[Metric, ...] = (
    Metric(
        name="request_throughput_per_s",
        unit="1/s",
        description="Completed requests per second of the run",
        is_higher_better=True,
        title="Requests per second",
        words="requests/s",
        benchmarks=_RATES_OF,
        reported_as=("request_throughput",),
        printed_as="Request throughput (req/s):",
        charts=frozenset({Chart.BARS}),
        fit=Fit(kind=Kind.SERVER, weight=3.0, bar_pct=8.0),
        is_compared=True,
        is_on_dashboard=True,
        is_offered=True,
    ),
    Metric(
        name="output_throughput_tok_per_s",
        unit="tokens/s",
        description="Output tokens per second of the run",
        is_higher_better=True,
        title="Output tokens per second",
        words="output tokens/s",
        benchmarks=_RATES_OF,
        reported_as=("output_throughput",),
        printed_as="Output token throughput (tok/s):",
        fit=Fit(kind=Kind.OFFLINE, weight=3.0),
        is_compared=True,
        is_on_dashboard=True,
    ),
    Metric(
        name="total_throughput_tok_per_s",
        unit="tokens/s",
        description="Input and output tokens per second",
        is_higher_better=True,
        title="Total throughput (tokens/s)",
        words="total tokens/s",
        benchmarks=_RATES_OF,
        reported_as=("total_token_throughput",),
        printed_as="Total Token throughput (tok/s):",
        charts=frozenset({Chart.LINES}),
    ),
    Metric(
        name="request_goodput_per_s",
        unit="1/s",
        description="Requests per second that met the latency bounds",
        is_higher_better=True,
        title="request_goodput_per_s",
        words="goodput",
        benchmarks=frozenset({Benchmark.SERVING}),
        # Releases before 0.9.2 really write the colon.
        reported_as=("request_goodput", "request_goodput:"),
        is_offered=True,
    ),
    *(_statistic(latency, statistic) for latency in LATENCIES for statistic in STATISTICS),
    _count("completed", "requests", "Requests that completed", printed_as="Successful requests:"),
    _count("failed", "requests", "Requests that failed"),
    _count(
        "total_input_tokens",
        "tokens",
        "Prompt tokens of completed requests",
        printed_as="Total input tokens:",
    ),
    _count(
        "total_output_tokens",
        "tokens",
        "Tokens generated for completed requests",
        printed_as="Total generated tokens:",
    ),
    Metric(
        name="duration_s",
        unit="s",
        description="First request sent to last one completed",
        title="duration_s",
        words="duration",
        benchmarks=_ALL_BENCHMARKS,
        reported_as=("duration",),
        printed_as="Benchmark duration (s):",
    ),
    Metric(
        name="max_rate_per_s",
        unit="1/s",
        description="Highest request rate tried that kept max_rate_slo, in the row of that probe; 0, in the "
        "row of the lowest rate, where none did. Ours, not vLLM's",
        is_higher_better=True,
        title="Highest request rate within bounds (offered, per second)",
        words="highest rate within bounds",
    ),
    Metric(
        name="max_users",
        unit="users",
        description="Most users of a closed loop tried with whom max_users_slo was kept, in the row of that "
        "probe; 0, in the row of the fewest, where it never was. Ours, not vLLM's",
        is_whole=True,
        is_higher_better=True,
        title="Most users within bounds",
        words="most users within bounds",
    ),
)
"""Every metric, in the order of the columns of the store."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
"""Every metric by its name."""

METRIC_NAMES = tuple(BY_NAME)
"""The names of all metrics."""

_BENCHMARK_OF = {"latency": Benchmark.LATENCY, "throughput": Benchmark.THROUGHPUT}

MAX_RATE = "max_rate_per_s"
"""The highest request rate that keeps its bounds; measured by load points that search for it."""

MAX_USERS = "max_users"
"""The most users of a closed loop with whom bounds are kept; measured by load points that search for it."""

SEARCH_SLOS: Mapping[str, str] = {MAX_RATE: "max_rate_slo", MAX_USERS: "max_users_slo"}
"""What searches over the load find, to the column with the bounds of one: it tells its probes."""


FEWEST_STEADY_REQUESTS = 30
"""Completed in the steady part of a run; of fewer a rate is known to worse than a fifth (1 / sqrt(30))."""

STEADY: tuple[Metric, ...] = (
    Metric(
        name="steady_request_throughput_per_s",
        unit="1/s",
        description="Requests answered per second within it, each by the part of its time that lies within",
        is_higher_better=True,
        title="Requests per second, steady part",
        words="steady requests/s",
        benchmarks=frozenset({Benchmark.SERVING}),
    ),
    Metric(
        name="steady_output_throughput_tok_per_s",
        unit="1/s",
        description="Tokens produced within it, per second",
        is_higher_better=True,
        title="Output tokens per second, steady part",
        words="steady output tokens/s",
        benchmarks=frozenset({Benchmark.SERVING}),
    ),
    *(
        Metric(
            name=f"steady_{statistic}_{latency}_ms",
            unit="ms",
            description=f"{statistic} {latency.upper()} of the requests sent within it",
            is_higher_better=False,
            title=f"{statistic} {latency.upper()}, steady part (ms)",
            words=f"steady {statistic} {latency.upper()}",
            benchmarks=frozenset({Benchmark.SERVING}),
        )
        for latency in ("ttft", "tpot")
        for statistic in ("mean", "median", "p99")
    ),
)
"""Metrics of the steady part of a run; unknown where it has none, or where single requests have no times."""

STEADY_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in STEADY}
"""Each of them by its name."""

STEADY_LATENCIES = tuple(metric.name for metric in STEADY if metric.unit == "ms")
"""Latencies among them."""

_STORED: Mapping[str, Metric] = {**BY_NAME, **STEADY_BY_NAME}


def reported_by(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the names of the metrics that one of vLLM's benchmarks reports."""
    return tuple(metric.name for metric in METRICS if benchmark in metric.benchmarks)


def is_reported_at(name: str, dataset: str) -> bool:
    """Return whether a load point that sends a dataset can have a number of a metric.

    What no benchmark reports is left to those who measure it.
    """
    benchmarks = _STORED[name].benchmarks if name in _STORED else frozenset()
    return not benchmarks or _BENCHMARK_OF.get(dataset, Benchmark.SERVING) in benchmarks


def fitted(kind: Kind) -> tuple[Metric, ...]:
    """Return the metrics that a calibration is fitted to and judged by, for one kind of run."""
    return tuple(metric for metric in METRICS if metric.fit is not None and metric.fit.kind is kind)


def charted(chart: Chart) -> tuple[Metric, ...]:
    """Return the metrics that a chart shows unasked."""
    return tuple(metric for metric in METRICS if chart in metric.charts)


def title_of(name: str) -> str:
    """Return the title of a column's chart and axis; a column that is no metric keeps its name."""
    return _STORED[name].title if name in _STORED else name


def statistic_names(latency: str, statistics: Iterable[str] = STATISTICS) -> tuple[str, ...]:
    """Return the names of a latency's statistics."""
    return tuple(f"{statistic}_{latency}_ms" for statistic in statistics)
