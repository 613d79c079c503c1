"""When trials and studies end, and what is measured again at the end: checks of those keys of ``search``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.config.checks import MOST_STARTS, check_count, check_not_negative, check_positive
from sweeper.errors import ConfigError
from sweeper.goals.termination import Termination
from sweeper.kinds import SEARCH_METHODS


def endings(search: Mapping[str, Any]) -> Termination:
    """Check the keys.

    A search stops hopeless trials unless it is told not to; a grid does not unless it is told to, since a
    chart has a place for every load point.

    Raises:
        ConfigError: A value is out of range; the message names its key.
    """
    for key in ("max_hours", "max_node_hours", "min_improvement"):
        if search[key] is not None:
            check_positive(f"search.{key}", search[key])
    for key in ("patience", "final_repeats"):
        check_count(f"search.{key}", search[key], most=MOST_STARTS)
    if check_not_negative("search.finalists", search["finalists"]):
        check_count("search.finalists", search["finalists"], most=MOST_STARTS)
    margin = search["stop_margin"]
    if not 0 <= margin < 1:
        raise ConfigError(
            f"search.stop_margin: is {margin}; expected a share, 0 <= margin < 1, such as 0.05 for 5 %."
        )
    wants_early = search["stops_early"]
    if wants_early is None:
        wants_early = not SEARCH_METHODS[search["method"]].is_exhaustive
    return Termination(
        stop_margin=margin if wants_early else None,
        max_hours=search["max_hours"],
        max_node_hours=search["max_node_hours"],
        min_improvement=search["min_improvement"],
        patience=search["patience"],
        finalists=search["finalists"],
        final_repeats=search["final_repeats"],
    )
