"""A search in stages: some knobs at a time, while all others keep the best values found so far.

A knob of parallelism moves throughput by factors, one of batching by tenths, most others by hundredths, and
with few trials a search of all at once sees the small ones only as noise. The price: knobs of different
stages that help only together are missed.

Where a stage stands is read from the trials alone, so that a study that was cut off goes on in it: a trial
belongs to a stage if it agrees with the best one before that stage in every knob of other stages that both
have. A trial that ends after its stage may still move what the next one is built on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.errors import ConfigError, nearest
from sweeper.records import INSTANCES, Scalar
from sweeper.space.space import Space

PARALLELISM = (
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", INSTANCES),
    "enable_expert_parallel",
)
BATCHING = (
    *("max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "num_scheduler_steps"),
    *("async_scheduling", "max_num_partial_prefills"),
)

_TRIALS_WITHOUT_BUDGET = 10


@dataclass(frozen=True, kw_only=True)
class Past:
    """A trial as stages see it.

    Attributes:
        choices: What it chose.
        value: Larger is better; None where it failed, broke a bound or is running.
    """

    choices: Mapping[str, Scalar]
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage at work.

    Attributes:
        free: Coordinates that it searches.
        held: The values of all others.
    """

    free: frozenset[str]
    held: Mapping[str, Scalar]

    def has(self, choices: Mapping[str, Scalar]) -> bool:
        """Return whether a trial is one of this stage.

        What the stage chooses may take a held knob out of the space, or bring in one that is held nowhere.
        """
        return all(choices.get(name, value) == value for name, value in self.held.items())


def check_stages(stages: Sequence[Sequence[str]], space: Space) -> None:
    """Check that stages name domains of the space, each once.

    Raises:
        ConfigError: One is unknown or named twice.
    """
    known = (*(("series",) if space.series else ()), *space.domains)
    seen: set[str] = set()
    for name in (name for stage in stages for name in stage):
        if name not in known:
            raise ConfigError(
                f"search.stages: '{name}' is not varied; expected knobs of space.knobs "
                f"({', '.join(known) or 'none'}).{nearest(name, known)} Correct or remove it."
            )
        if name in seen:
            raise ConfigError(f"search.stages: '{name}' stands there twice; expected it in one stage.")
        seen.add(name)


def stages_of(space: Space, given: Sequence[Sequence[str]]) -> tuple[frozenset[str], ...]:
    """Return the stages of a space: those given, else parallelism and batching; what is left comes last."""
    names = [*(["series"] if space.series else []), *space.domains]
    wanted = [*given] if given else [PARALLELISM, BATCHING]
    found = [frozenset(stage) & frozenset(names) for stage in wanted]
    rest = frozenset(names) - frozenset().union(*found)
    return tuple(stage for stage in (*found, rest) if stage)


def current(
    stages: Sequence[frozenset[str]], past: Sequence[Past], *, starts: int, trials: int | None
) -> list[Stage]:
    """Return the stage that is at work and those after it, which take over when it has no free point left.

    Args:
        past: The trials in their order, running ones included.
        starts: How many of the first ones were given, and belong to no stage.
        trials: The budget, shared evenly; None gives each stage ten.
    """
    if not past:
        return []
    first = list(past[: max(starts, 1)])
    share = _TRIALS_WITHOUT_BUDGET if trials is None else max(1, (trials - starts) // len(stages))
    best = _best(first) or first[0]
    found: list[Stage] = []
    for number, free in enumerate(stages):
        stage = Stage(free=free, held={k: v for k, v in best.choices.items() if k not in free})
        members = [trial for trial in past[len(first) :] if stage.has(trial.choices)]
        if found or len(members) < share or number == len(stages) - 1:
            found.append(stage)
        else:
            best = _best([best, *members]) or best
    return found


def _best(trials: Sequence[Past]) -> Past | None:
    known = [trial for trial in trials if trial.value is not None]
    return max(known, key=lambda trial: trial.value or 0.0, default=None)
