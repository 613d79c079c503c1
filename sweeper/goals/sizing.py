"""How many GPUs serve a load: what one instance serves within bounds, and how many of them that takes.

Instances stand side by side behind something that shares requests out evenly, so each sees its part of the
load. What one serves within the bounds is known between a load that kept them and one that did not; from the
two ends come the fewest and the most instances that it may take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.errors import ConfigError, nearest
from sweeper.records import Constraint
from sweeper.records.metrics import REQUEST_LATENCIES, statistic_names

KEEPS_UP = 0.95
"""Share of the offered rate that an instance has to complete: below it requests pile up, however good the
latencies of a short run look."""

HOURS_PER_MONTH = 730.0

_SLO = re.compile(r"\s*(?P<metric>[^<=>\s]+)\s*<=\s*(?P<limit>\S+)\s*")
_LATENCIES = tuple(name for latency in REQUEST_LATENCIES for name in statistic_names(latency.name))


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What one instance of a setting serves within the bounds, requests per second.

    Attributes:
        setting: Its name.
        gpus: That one instance holds; a partition counts as its share.
        per_s: The highest rate seen to keep the bounds; 0 where none did.
        low_per_s: Where even the bad end of the intervals keeps them.
        high_per_s: Where they were seen broken, or what the good end would keep; None where no load tried
            broke them, so that it may be more.
        because: What the numbers are of, in words.
    """

    setting: str
    gpus: float
    per_s: float
    low_per_s: float
    high_per_s: float | None
    because: str = ""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Instances of one setting that serve a rate.

    Attributes:
        capacity: Of one instance.
        rate_per_s: To be served.
        instances: Expected.
        fewest: At the good end; None where that is not known.
        most: At the bad end; None where not even one load is sure to keep the bounds.
    """

    capacity: Capacity
    rate_per_s: float
    instances: int
    fewest: int | None
    most: int | None

    @property
    def gpus(self) -> int:
        """GPUs for them; parts of one are bought whole."""
        return self.gpus_for(self.instances)

    def gpus_for(self, instances: int) -> int:
        """Return the GPUs that so many instances take."""
        return math.ceil(instances * self.capacity.gpus - 1e-9)

    def cost_per_hour(self, price_per_gpu_hour: float) -> float:
        """Return what its GPUs cost by the hour, in the price's currency."""
        return self.gpus * price_per_gpu_hour


def bound(text: str) -> Constraint:
    """Read a bound such as ``p99_ttft_ms<=2000``.

    Raises:
        ConfigError: It is none, or not on a latency of requests.
    """
    found = _SLO.fullmatch(text)
    if found is None:
        raise ConfigError(f"--slo: is '{text}'; expected a bound such as 'p99_ttft_ms<=2000', in quotes.")
    metric = found["metric"]
    if metric not in _LATENCIES:
        raise ConfigError(
            f"--slo: '{metric}' is no latency of requests; expected one such as p99_ttft_ms or p99_tpot_ms."
            f"{nearest(metric, _LATENCIES)}"
        )
    try:
        limit = float(found["limit"])
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ConfigError(f"--slo: is '{text}'; expected a bound above 0, in milliseconds.")
    return Constraint(metric=metric, limit=limit, is_upper=True)


def fleets(capacities: Sequence[Capacity], *, rate_per_s: float) -> list[Fleet]:
    """Return the instances of each setting that serve a rate, those with the fewest GPUs first.

    A setting that keeps the bounds at no load that was tried is left out. Of equal numbers of GPUs the
    setting that serves more with one comes first.
    """
    found = [
        Fleet(
            capacity=one,
            rate_per_s=rate_per_s,
            instances=_instances(rate_per_s, one.per_s),
            fewest=None if one.high_per_s is None else _instances(rate_per_s, one.high_per_s),
            most=None if one.low_per_s <= 0 else _instances(rate_per_s, one.low_per_s),
        )
        for one in capacities
        if one.per_s > 0
    ]
    return sorted(found, key=lambda fleet: (fleet.gpus, -fleet.capacity.per_s / fleet.capacity.gpus))


def keeps_up(*, completed: float, duration_s: float, latency_ms: float, rate_per_s: float) -> bool:
    """Return whether an instance answered as fast as it was asked, so that no requests piled up.

    Args:
        completed: Requests answered.
        duration_s: From the first request sent to the last answered.
        latency_ms: Median of whole requests: the last answer comes so long after the last request.
        rate_per_s: Offered, as Poisson arrivals.

    Source:
        The sum of n exponential gaps has a relative standard deviation of 1 / sqrt(n), and two are allowed.
    """
    if completed <= 0:
        return False
    sent_s = max(duration_s - latency_ms / 1000, 1e-9)
    return completed / sent_s >= KEEPS_UP * (1 - 2 / math.sqrt(max(completed, 4))) * rate_per_s


def _instances(rate_per_s: float, each_per_s: float) -> int:
    # Rounding must not buy another instance where the division is exact.
    return max(1, math.ceil(rate_per_s / each_per_s - 1e-9))
