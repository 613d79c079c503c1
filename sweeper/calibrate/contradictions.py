"""Numbers of one run that cannot all be right: a slip of the pen, or a source that contradicts itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sweeper.calibrate.figures import Figure
from sweeper.records.plurals import amount
from sweeper.simulation import settings

_FACTOR = 2.0
"""How far beyond what is possible. Of public sources means over requests are up to 1.4 times beyond it, where
answers end early and several tokens come at a time; the next is 3."""

_TOKENS, _REQUESTS = "output_throughput_tok_per_s", "request_throughput_per_s"
_PER_TOKEN = ("mean_tpot_ms", "median_tpot_ms")


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """Numbers that cannot all be right.

    Attributes:
        figures: The numbers.
        why: What follows from them, and what is possible.
    """

    figures: tuple[Figure, ...]
    why: str


def contradictions(figures: Iterable[Figure]) -> Iterator[Contradiction]:
    """Yield what contradicts itself in a source, run by run.

    Tokens a second times the time of each are sequences under way (Little's law); a server answers no more
    than it is sent, and no longer than it is asked to.
    """
    runs: dict[object, dict[str, Figure]] = {}
    for figure in figures:
        runs.setdefault((figure.spec.key, figure.point), {}).setdefault(figure.metric, figure)
    for run in runs.values():
        yield from _too_many_at_a_time(run)
        yield from _more_than_sent(run)
        yield from _longer_than_asked(run)


def _too_many_at_a_time(run: Mapping[str, Figure]) -> Iterator[Contradiction]:
    tokens = run.get(_TOKENS)
    per_token = next((run[name] for name in _PER_TOKEN if name in run), None)
    if tokens is None or per_token is None:
        return
    found = tokens.value * per_token.value / 1000
    limits = _limits(tokens)
    name = min(limits, key=limits.__getitem__)
    if found > _FACTOR * limits[name]:
        yield Contradiction(
            figures=(tokens, per_token),
            why=f"{tokens.value:,.6g} output tokens/s at {per_token.value:g} ms each are {found:,.0f} "
            f"requests at a time; expected at most {limits[name]:,}, by {name}",
        )


def _limits(figure: Figure) -> dict[str, int]:
    """Return how many requests can be under way, by what says so."""
    replicas = int(figure.spec.assignment.get("data_parallel_size", 1))
    limits = {
        "max_num_seqs": replicas * int(settings.resolve(figure.spec)["max_num_seqs"]),
        "num_prompts": figure.point.num_prompts,
    }
    if figure.point.max_concurrency is not None:
        limits["max_concurrency"] = figure.point.max_concurrency
    return limits


def _more_than_sent(run: Mapping[str, Figure]) -> Iterator[Contradiction]:
    requests = run.get(_REQUESTS)
    rate = requests.point.request_rate_per_s if requests is not None else None
    if requests is not None and rate is not None and requests.value > _FACTOR * rate:
        yield Contradiction(
            figures=(requests,),
            why=f"{requests.value:g} requests/s were answered; expected at most those sent, {rate:g} by "
            "request_rate_per_s",
        )


def _longer_than_asked(run: Mapping[str, Figure]) -> Iterator[Contradiction]:
    tokens, requests = run.get(_TOKENS), run.get(_REQUESTS)
    if tokens is None or requests is None or tokens.point.output_len is None:
        return
    length = tokens.value / requests.value
    if length > _FACTOR * tokens.point.output_len:
        yield Contradiction(
            figures=(tokens, requests),
            why=f"{tokens.value:,.6g} output tokens/s in {requests.value:g} requests/s are answers of "
            f"{amount(round(length), 'token', ',')}; expected at most {tokens.point.output_len:,}, by "
            "output_len (or are those prompts and answers together?)",
        )
