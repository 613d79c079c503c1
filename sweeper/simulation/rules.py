"""What the releases of vLLM's V1 scheduler do differently."""

from __future__ import annotations

from dataclasses import dataclass

from sweeper.knobs.release_order import release_key


@dataclass(frozen=True, kw_only=True)
class V1Rules:
    """How V1 schedules where its releases differ; the defaults are those of the newest.

    Attributes:
        obeys_uncut: Whether prompts can be kept whole at all.
        skips_uncut: Whether a whole prompt that does not fit lets those behind it pass; else all wait.
        reserves_prompts: Whether a request is admitted only where there are blocks for all of it, and not
            just for its first piece.
        is_plain_first: Whether blocks that are not full are given away next; else they join the line.
        spares_lone: Whether the threshold for long prompts is not applied to a request that is alone.

    Source:
        v1/core/sched/scheduler.py and v1/core/block_pool.py in the wheels of vLLM 0.8.5, 0.9.1, 0.9.2,
        0.10.0, 0.11.0 to 0.12.0, 0.14.0, 0.16.0, 0.18.0 to 0.20.0, 0.22.0 to 0.23.0, 0.26.0 and
        0.29.0 to 0.32.0.
    """

    obeys_uncut: bool = True
    skips_uncut: bool = False
    reserves_prompts: bool = True
    is_plain_first: bool = True
    spares_lone: bool = True


def rules_of(release: str) -> V1Rules:
    """Return the rules of a release of vLLM."""
    key = release_key(release)
    return V1Rules(
        obeys_uncut=key >= release_key("0.9.2"),
        skips_uncut=key < release_key("0.12.0"),
        reserves_prompts=key >= release_key("0.19.0"),
        is_plain_first=key >= release_key("0.23.0"),
        spares_lone=key >= release_key("0.31.0"),
    )


NEWEST = V1Rules()


@dataclass(frozen=True, kw_only=True)
class V0Rules:
    """How V0 schedules where its releases differ; the defaults are those of the newest.

    Attributes:
        budgets_found: Whether tokens that are found in the prefix cache count for a step's budget.
        finds_answers: Whether a turn of a conversation finds the answers to those before it.
        looks_again: Whether a request that waits is looked up in the prefix cache in every step, and not only
            when it first comes to the front.
        computes_late: Whether the blocks of a prompt count as computed only as they are, and not all of them
            with the first piece.
        spares_last: Whether the last block of a prompt is never found, instead of its last token.
        counts_begun: Whether a block must be free for a prompt to be continued that has all of its own.

    Source:
        core/scheduler.py, core/block_manager_v1.py and core/block_manager_v2.py (later core/block_manager.py)
        in the wheels of vLLM 0.6.2, 0.6.3.post1, 0.6.4.post1, 0.6.5, 0.6.6 and 0.8.5.
    """

    budgets_found: bool = False
    finds_answers: bool = True
    looks_again: bool = False
    computes_late: bool = False
    spares_last: bool = False
    counts_begun: bool = False


def v0_rules_of(release: str, *, scheduler_steps: int = 1) -> V0Rules:
    """Return the rules of a release of vLLM with V0, which at first had other blocks for several steps."""
    key = release_key(release)
    has_first_blocks = key < release_key("0.6.3") and scheduler_steps == 1
    return V0Rules(
        budgets_found=key < release_key("0.6.5"),
        finds_answers=not has_first_blocks,
        looks_again=key < release_key("0.6.5"),
        computes_late=has_first_blocks,
        spares_last=key < release_key("0.6.5"),
        counts_begun=has_first_blocks,
    )


NEWEST_V0 = V0Rules()
