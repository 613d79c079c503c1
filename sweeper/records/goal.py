"""What a study wants: objectives, the bounds to keep, and when a trial may be stopped early."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.records.load import users_text


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is better.

    Attributes:
        metric: A metric column of the store, such as ``request_throughput_per_s``.
        direction: ``maximize`` or ``minimize``.
        request_rate_per_s: Rate of the load point that counts; None takes the mean over all load points.
        max_concurrency: Requests under way at once, or users of a closed loop, of the load point that counts;
            None as above.
        per: ``GPU`` divides by the GPUs used; None takes the metric as it is.
        price_per_gpu_hour: What a GPU costs by the hour, for a metric that is a cost; else None.
    """

    metric: str
    direction: str
    request_rate_per_s: float | None = None
    per: str | None = None
    max_concurrency: int | None = None
    price_per_gpu_hour: float | None = None

    @property
    def name(self) -> str:
        """Name on the dashboard's axes; the unit is the end of the metric's own name."""
        return _quantity_name(self)

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
        request_rate_per_s: Rate of the load point that counts; None takes the mean over all load points.
        max_concurrency: Requests under way at once, or users of a closed loop, of the load point that counts;
            None as above.
        per: As in ``Objective``.
        price_per_gpu_hour: As in ``Objective``.
    """

    metric: str
    limit: float
    is_upper: bool
    request_rate_per_s: float | None = None
    per: str | None = None
    max_concurrency: int | None = None
    price_per_gpu_hour: float | None = None

    @property
    def name(self) -> str:
        """Return the bound in words: ``p99_ttft_ms at 16 QPS <= 2000``."""
        quantity = _quantity_name(self)
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


def load_text(*, request_rate_per_s: float | None, max_concurrency: int | None) -> str:
    """Return the load point that a quantity is taken at in words; empty where it is taken at all.

    ``at 16 QPS``, ``at 64 users``; ``at 16 QPS, 64 at a time`` where both are told.
    """
    if request_rate_per_s is None:
        return "" if max_concurrency is None else f"at {users_text(max_concurrency)}"
    limited = "" if max_concurrency is None else f", {max_concurrency} at a time"
    return f"at {request_rate_per_s:g} QPS{limited}"


def _quantity_name(quantity: Objective | Constraint) -> str:
    divided = "" if quantity.per is None else f" per {quantity.per.upper()}"
    where = load_text(
        request_rate_per_s=quantity.request_rate_per_s, max_concurrency=quantity.max_concurrency
    )
    price = quantity.price_per_gpu_hour
    # With its price, so that a search never goes on among values of another one.
    priced = "" if price is None else f" at {price:g} per GPU-hour"
    return f"{quantity.metric}{divided}{' ' if where else ''}{where}{priced}"
