"""What running out of memory teaches: a setting that needs at least as much of everything fails, too.

Memory grows with some knobs and shrinks with others, whatever the rest. So when a setting ran out of it,
a second one is held back if it asks for at least as much in each of these and is equal in everything else
that could touch memory. Knobs that cannot (communication, host) may differ.

``gpu_memory_utilization`` is in neither list on purpose: a start that finds no room for its cache is cured by
more of it, a run that is killed by less. So it has to be equal for a lesson to hold.

Held back means: not proposed by a search. A grid runs every point of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sweeper.records import HOST_PREFIX, Assignment, FailureClass, Scalar

GROWS_WITH = frozenset({"max_num_seqs", "max_num_batched_tokens", "max_model_len", "max_seq_len_to_capture"})
"""Knobs of which more needs more memory: working memory of a step, one longest sequence, captured graphs."""

SHRINKS_WITH = frozenset({"tensor_parallel_size", "pipeline_parallel_size"})
"""Knobs of which more leaves each device a smaller share of the weights and of each sequence."""

_CANNOT_TOUCH = ("NCCL_", "RCCL_", "HSA_", HOST_PREFIX)
_REASON = "fail_reason"


def is_out_of_memory(attributes: Assignment) -> bool:
    """Return whether a trial, by its attributes in the study, ran out of memory, or would have."""
    return str(attributes.get(_REASON, "")).partition(":")[0] == FailureClass.OUT_OF_MEMORY


def is_doomed(assignment: Assignment, failures: Iterable[Assignment]) -> bool:
    """Return whether an assignment needs at least the memory of one that ran out of it.

    Args:
        assignment: What might be tried.
        failures: Assignments that ran out of memory.
    """
    return any(_needs_as_much(assignment, failed) for failed in failures)


def _needs_as_much(wanted: Assignment, failed: Assignment) -> bool:
    names = {name for name in (*wanted, *failed) if not name.startswith(_CANNOT_TOUCH)}
    return all(_is_at_least(name, wanted.get(name), failed.get(name)) for name in names)


def _is_at_least(name: str, wanted: Scalar | None, failed: Scalar | None) -> bool:
    if wanted == failed:
        return True
    if not isinstance(wanted, (int, float)) or not isinstance(failed, (int, float)):
        # A default stands on one side; it may be larger or smaller.
        return False
    if name in GROWS_WITH:
        return wanted > failed
    return name in SHRINKS_WITH and wanted < failed
