"""What a study wants: objectives, the bounds to keep, and when a trial may be stopped early."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is better.

    Attributes:
        metric: A metric column of the store, such as ``request_throughput_per_s``.
        direction: ``maximize`` or ``minimize``.
        request_rate_per_s: The load point that counts; None takes the mean over all load points.
        per: ``GPU`` divides by the GPUs used; None takes the metric as it is.
    """

    metric: str
    direction: str
    request_rate_per_s: float | None = None
    per: str | None = None

    @property
    def name(self) -> str:
        """Name on the dashboard's axes; the unit is the end of the metric's own name."""
        return _quantity_name(self.metric, self.request_rate_per_s, self.per)

    @property
    def is_higher_better(self) -> bool:
        """Whether more of it is better."""
        return self.direction == "maximize"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is: what values are multiplied by so that more is better."""
        return 1 if self.is_higher_better else -1


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What a setting has to keep to be feasible, such as a service level objective.

    Attributes:
        metric: A metric column of the store, such as ``p99_ttft_ms``.
        limit: The bound, in the metric's unit; a value equal to it keeps it.
        is_upper: Whether values may not lie above it; otherwise not below.
        request_rate_per_s: The load point that counts; None takes the mean over all load points.
        per: As in ``Objective``.
    """

    metric: str
    limit: float
    is_upper: bool
    request_rate_per_s: float | None = None
    per: str | None = None

    @property
    def name(self) -> str:
        """Return the bound in words: ``p99_ttft_ms at 16 QPS <= 2000``."""
        quantity = _quantity_name(self.metric, self.request_rate_per_s, self.per)
        return f"{quantity} {'<=' if self.is_upper else '>='} {self.limit:g}"

    def violation(self, value: float) -> float:
        """Return how far a value is past the limit, as a share of it; 0 or less keeps it.

        A share, so that a search may add up bounds in milliseconds and in requests; a limit of 0 has no
        shares, so the distance itself is returned.
        """
        past = value - self.limit if self.is_upper else self.limit - value
        return past / abs(self.limit) if self.limit else past


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """What a running trial is held against, to stop once it can no longer matter.

    Attributes:
        objectives: What is better.
        constraints: What has to be kept.
        incumbents: Values, one per objective, of the best trials known when it began.
        margin: By what share of a value it has to be behind, or past a bound.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    incumbents: tuple[tuple[float, ...], ...] = ()
    margin: float = 0.05


def _quantity_name(metric: str, rate: float | None, per: str | None) -> str:
    divided = "" if per is None else f" per {per.upper()}"
    at = "" if rate is None else f" at {rate:g} QPS"
    return f"{metric}{divided}{at}"
