"""What is tried next, and what is remembered of it.

record        the Optuna study: the only memory of a search, kept in its database
proposer      which point is measured next, from that memory alone; asks one of the next three
samplers      the methods by name: Optuna's, and what they need to be installed
guided        our own method: a Gaussian process that knows what the simulated platform expects
stages        parallelism, then batching, then the rest
starts        what is measured before any method chooses
prior         what is expected of each point, by an estimate that is handed in: a ranking, never a result
out_of_memory what running out of memory teaches about similar settings
candidates    the points of a space that can be proposed, and how far apart they are
"""

from __future__ import annotations

from sweeper.search.optuna_study import Candidate, Hints, Search, refuse_other_terms, storage_url
from sweeper.search.proposer import CUT_OFF
from sweeper.search.samplers import check_method
from sweeper.search.stages import check_stages
from sweeper.search.starts import check_starts

__all__ = [
    "CUT_OFF",
    "Candidate",
    "Hints",
    "Search",
    "check_method",
    "check_stages",
    "check_starts",
    "refuse_other_terms",
    "storage_url",
]
