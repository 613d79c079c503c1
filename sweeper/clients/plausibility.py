"""Whether what a load generator or a server reports can be true; looked at before a number is believed.

A report comes from another program, over a network, out of a file. What is no number, what no
run of this load point can have, and what contradicts the rest of the same report ends the trial with the
reason: a wrong number in a row is worse than none. What a report leaves out stays unknown; older releases
tell less.

Not everything can be seen from here: who shortens every duration alike and counts what was asked for is
believed.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from sweeper.errors import MeasurementError
from sweeper.kinds import DATASETS
from sweeper.records import (
    FailureClass,
    LoadPoint,
    Measurement,
)
from sweeper.records.metrics import LATENCIES, METRICS, PERCENTILE_NAMES, statistic_names
from sweeper.records.plurals import amount
from sweeper.workload import lengths

LARGEST = 2.0**53
"""No number of a report is larger: beyond it a float does not tell neighbouring whole numbers apart."""

_WHOLE = tuple(metric.name for metric in METRICS if metric.is_whole)
# Rates are quotients of numbers of the same report; what is lost is the last digits of a decimal fraction.
_RATE_TOLERANCE = 0.01
# A text may have some tokens more or fewer when it is tokenized again, as older releases count.
_TOKEN_TOLERANCE = 0.1
_TOKENS_ASIDE = 8
# Prompts of random tokens are shortened and lengthened by tokenizers; another load is off by more.
_PROMPT_FACTOR = 2.0
_COUNTER_PATIENCE_S = 5.0
_POLL_S = 0.25


def number(report: Mapping[str, object], name: str, *, log_path: str | None = None) -> float | None:
    """Read one number of a report.

    Returns:
        The number; None where the report does not have it, or says null.

    Raises:
        MeasurementError: It is a text, a truth value, not finite, negative, or larger than any count.
    """
    value = report.get(name)
    if value is None:
        return None
    if not _is_possible(value):
        refuse(
            f"{name} is {_shown(value)}; expected a number of at least 0, or none at all",
            log_path=log_path,
        )
    return float(value)  # type: ignore[arg-type]


def numbers(report: Mapping[str, object], name: str, *, log_path: str | None = None) -> list[float]:
    """Read a list of numbers of a report.

    Raises:
        MeasurementError: It is no list, or one of them is no number of at least 0.
    """
    values = report.get(name)
    if not isinstance(values, list):
        refuse(f"{name} is {_shown(values)}; expected a list of numbers", log_path=log_path)
    for place, value in enumerate(values):
        if not _is_possible(value):
            refuse(
                f"{name} has {_shown(value)} at place {place}; expected numbers of at least 0",
                log_path=log_path,
            )
    return [float(value) for value in values]


def check(measured: Measurement, *, log_path: str | None = None) -> None:
    """Check that the numbers of one measurement can be those of its load point, and agree with each other.

    Raises:
        MeasurementError: They cannot, or do not; the message names the numbers.
    """
    found = {name: number(measured.metrics, name, log_path=log_path) for name in measured.metrics}
    problem = (
        _wrong_count(found, measured.load_point)
        or _wrong_tokens(found, measured.load_point)
        or _wrong_rate(found)
        or _wrong_latency(found)
    )
    if problem is not None:
        refuse(problem, log_path=log_path)


def check_single_requests(report: Mapping[str, Any], *, log_path: str | None = None) -> None:
    """Check that a report's data on single requests have its shape and add up to its totals.

    Args:
        report: The benchmark's JSON; without the lists of ``--save-detailed`` there is nothing to see.
        log_path: For the message.

    Raises:
        MeasurementError: A list holds something else than numbers, has another length than the others, does
            not add up to the total, or more messages came than tokens are counted.
    """
    kept = [
        name
        for name in ("input_lens", "output_lens", "ttfts", "latencies", "start_times")
        if name in report and report[name] is not None
    ]
    lists = {name: numbers(report, name, log_path=log_path) for name in kept}
    gaps = _gaps(report, log_path=log_path)
    lengths = {name: len(values) for name, values in lists.items()}
    if gaps is not None:
        lengths["itls"] = len(gaps)
    wanted = number(report, "num_prompts", log_path=log_path)
    if wanted is not None:
        lengths["num_prompts"] = int(wanted)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        refuse(
            f"its lists are of different lengths ({told}); expected one entry a request", log_path=log_path
        )
    for name, total in (("input_lens", "total_input_tokens"), ("output_lens", "total_output_tokens")):
        whole = number(report, total, log_path=log_path)
        # Failed requests have a prompt and are not in the total; then the run is refused anyway.
        is_whole_run = not number(report, "failed", log_path=log_path)
        if name in lists and whole is not None and is_whole_run and sum(lists[name]) != whole:
            refuse(
                f"{total} is {whole:g} and its {name} add up to {sum(lists[name]):g}; expected the same",
                log_path=log_path,
            )
    if gaps is not None and "output_lens" in lists:
        for place, (between, tokens) in enumerate(zip(gaps, lists["output_lens"], strict=True)):
            # A last message may carry the reason of the end and no token.
            if len(between) > tokens + _TOKENS_ASIDE:
                refuse(
                    f"request {place} has {amount(tokens, 'token', 'g')} in "
                    f"{amount(len(between) + 1, 'message')}; expected at least a token a message",
                    log_path=log_path,
                )
    _check_spans(lists, gaps, report, log_path=log_path)


def check_engine_agrees(
    before: Mapping[str, float],
    counters: Callable[[], Mapping[str, float]],
    *,
    answered: int,
    log_path: str | None = None,
) -> None:
    """Check that the engine ended at least as many requests by itself as the client counts as answered.

    A stream that broke off is an answer to some clients and none to the engine, which gave it up.

    Args:
        before: The engine's counters before the load.
        counters: Reads them now. They may come a moment after the last answer.
        answered: Requests that the client says were answered.
        log_path: For the message.

    Raises:
        MeasurementError: It ended fewer. An engine that does not count is believed.
    """
    deadline = time.monotonic() + _COUNTER_PATIENCE_S
    while True:
        now = counters().get("requests_answered")
        then = before.get("requests_answered", 0.0)
        if now is None or now < then or now - then >= answered:
            return
        if time.monotonic() >= deadline:
            raise MeasurementError(
                f"client: it counts {amount(answered, 'request')} as completed, and the engine says "
                "that it answered "
                f"{now - then:g}; expected as many at least. Streams broke off: look into the engine's log.",
                failure=FailureClass.WRONG_ANSWER,
                log_path=log_path,
            )
        time.sleep(_POLL_S)


def refuse(problem: str, *, log_path: str | None) -> NoReturn:
    """Refuse a report, with what is wrong with it.

    Raises:
        MeasurementError: Always.
    """
    raise MeasurementError(
        f"client: the report cannot be believed: {problem}. Look into the client's own JSON and log.",
        failure=FailureClass.CLIENT,
        log_path=log_path,
    )


def refuse_unanswered(
    *,
    done: int,
    failed: int,
    given_up: int,
    wanted: int,
    first: str | None,
    client: str,
    log_path: str | None,
) -> NoReturn:
    """Refuse a load of which some requests were not answered.

    Args:
        done: Requests answered.
        failed: Requests that ended in an error.
        given_up: Requests that the client gave up.
        wanted: Requests that were to be answered.
        first: The first error in words; None where none is told.
        client: Whose log has more.
        log_path: That log.

    Raises:
        MeasurementError: Always.
    """
    why = "" if first is None else f" The first error: {first}."
    raise MeasurementError(
        f"client: {done} of {amount(wanted, 'request')} completed, {failed} failed and {given_up} were "
        f"given up; expected all to complete.{why} See {client}'s log.",
        failure=FailureClass.CLIENT,
        log_path=log_path,
    )


def _is_possible(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= LARGEST


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "a number beyond 2**53"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong_count(found: Mapping[str, float | None], point: LoadPoint) -> str | None:
    for name in _WHOLE:
        value = found.get(name)
        if value is not None and value % 1:
            return f"{name} is {value:g}; expected a whole number"
    completed, failed = found.get("completed"), found.get("failed")
    if completed != point.num_prompts or failed:
        return (
            f"completed is {_told(completed)} and failed {_told(failed)}; expected that all of "
            f"{amount(point.num_prompts, 'request')} completed"
        )
    return None


def _wrong_tokens(found: Mapping[str, float | None], point: LoadPoint) -> str | None:
    for name, (fewest, most) in _token_bounds(point).items():
        value = found.get(name)
        if value is not None and not fewest <= value <= most:
            return (
                f"{name} is {value:g}; expected {math.ceil(fewest)} to {math.floor(most)} for "
                f"{amount(point.num_prompts, 'request')} of this load point"
            )
    return None


def _token_bounds(point: LoadPoint) -> dict[str, tuple[float, float]]:
    requests = point.num_prompts
    aside = _TOKENS_ASIDE * requests
    longest = 1 + point.range_ratio
    kind = DATASETS[point.dataset]
    answer = kind.most_total_len if point.output_len is None else point.output_len * longest
    bounds = {"total_output_tokens": (1.0, requests * answer * (1 + _TOKEN_TOLERANCE) + aside)}
    if not kind.has_own_lengths and point.input_len is not None:
        shared = lengths.expected(point).mean_input - point.input_len
        shortest = requests * (shared + point.input_len * (1 - point.range_ratio)) / _PROMPT_FACTOR
        bounds["total_input_tokens"] = (
            max(1.0, shortest),
            requests * (shared + point.input_len * longest) * _PROMPT_FACTOR + aside,
        )
    elif kind.has_own_lengths:
        most = requests * kind.most_input_len * (1 + _TOKEN_TOLERANCE) + aside
        bounds["total_input_tokens"] = (float(requests), most)
    return bounds


def _wrong_rate(found: Mapping[str, float | None]) -> str | None:
    duration_s = found.get("duration_s")
    if duration_s is None:
        return None
    if duration_s == 0:
        return "duration_s is 0; expected more"
    inputs, outputs = found.get("total_input_tokens"), found.get("total_output_tokens")
    amounts = {
        "request_throughput_per_s": found.get("completed"),
        "output_throughput_tok_per_s": outputs,
        "total_throughput_tok_per_s": None if None in (inputs, outputs) else inputs + outputs,  # type: ignore[operator]
    }
    for name, whole in amounts.items():
        rate = found.get(name)
        if rate is None or whole is None:
            continue
        if not math.isclose(rate, whole / duration_s, rel_tol=_RATE_TOLERANCE, abs_tol=1e-6):
            return f"{name} is {rate:g} where {whole:g} in {duration_s:g} s are {whole / duration_s:g}"
    good, all_requests = found.get("request_goodput_per_s"), found.get("request_throughput_per_s")
    if good is not None and all_requests is not None and good > all_requests * (1 + _RATE_TOLERANCE):
        return f"request_goodput_per_s is {good:g}, above the {all_requests:g} of all requests"
    return None


def _wrong_latency(found: Mapping[str, float | None]) -> str | None:
    duration_s = found.get("duration_s")
    for latency in (one.name for one in LATENCIES):
        names = statistic_names(latency, PERCENTILE_NAMES)
        ladder = [(name, value) for name in names if (value := found.get(name)) is not None]
        for (lower, low), (upper, high) in itertools.pairwise(ladder):
            if low > high * (1 + 1e-9):
                return f"{lower} is {low:g}, above {upper}, {high:g}"
        longest = max((value for _, value in ladder), default=0.0)
        if duration_s is not None and longest > duration_s * 1000 * (1 + _RATE_TOLERANCE):
            return f"a {latency} of {longest:g} ms lies in a run of {duration_s:g} s; expected none so long"
    first, last = found.get("mean_ttft_ms"), found.get("mean_e2el_ms")
    if first is not None and last is not None and first > last * (1 + 1e-6):
        return f"mean_ttft_ms is {first:g}, above mean_e2el_ms, {last:g}"
    return None


def _gaps(report: Mapping[str, Any], *, log_path: str | None) -> list[list[float]] | None:
    told = report.get("itls")
    if told is None:
        return None
    if not isinstance(told, list):
        refuse(f"itls is {_shown(told)}; expected a list for each request", log_path=log_path)
    return [
        numbers({f"itls of request {i}": gaps}, f"itls of request {i}", log_path=log_path)
        for i, gaps in enumerate(told)
    ]


def _check_spans(
    lists: Mapping[str, Sequence[float]],
    gaps: Sequence[Sequence[float]] | None,
    report: Mapping[str, object],
    *,
    log_path: str | None,
) -> None:
    """Check that answers last at least from their first to their last message.

    Scripts up to 0.6 take the end of an answer from the stream's closing mark, and 0 where it never came.
    """
    if gaps is None or "ttfts" not in lists or not gaps:
        return
    seen_s = [first + sum(between) for first, between in zip(lists["ttfts"], gaps, strict=True)]
    told_ms = number(report, "mean_e2el_ms", log_path=log_path)
    mean_ms = sum(seen_s) / len(seen_s) * 1e3
    if told_ms is not None and told_ms < mean_ms * (1 - _RATE_TOLERANCE) - 1e-3:
        refuse(
            f"mean_e2el_ms is {told_ms:g}, and the messages of the answers came over {mean_ms:g} on average; "
            "expected no less: some streams never told their end",
            log_path=log_path,
        )
    for place, (told, seen) in enumerate(zip(lists.get("latencies", seen_s), seen_s, strict=True)):
        if told < seen * (1 - _RATE_TOLERANCE) - 1e-6:
            refuse(
                f"request {place} ended after {told:g} s, and its messages came over {seen:g} s; expected no "
                "less",
                log_path=log_path,
            )


def _told(value: float | None) -> str:
    return "not told" if value is None else f"{value:g}"
