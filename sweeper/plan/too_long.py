"""Lengths that do not go together: of the model, of the engine's longest sequence, and of the requests.

An engine does not start with a longest sequence beyond its model's, and a request beyond the engine's it
refuses or cuts short. Both are told here before anything starts.
"""

from __future__ import annotations

from sweeper.kinds import DATASETS, ENGINES
from sweeper.knobs import WHAT_FITS
from sweeper.records import Assignment, LoadPoint, Model, TrialSpec
from sweeper.records.plurals import amount
from sweeper.workload import lengths

# With these the model's own length is another, or does not bound the engine's.
_STRETCHING = (
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN",
    "hf_overrides",
    "hf_config_path",
    "rope_scaling",
    "rope_theta",
)
TOO_LONG = "longer than "
"""How it is told that the load's requests have no room."""

_STEP = 1024
# A text's tokens are counted by its characters.
_ROOM_FOR_TEXT = 1.25


def why_too_long(spec: TrialSpec) -> str | None:
    """Say which length of a trial another one leaves no room for, and what to do; None where all fit."""
    kind = ENGINES[spec.engine.kind]
    if kind.longest is None:
        return None
    own = None if is_stretched(spec.assignment) else model_positions(spec.model)
    said = spec.assignment.get(kind.longest)
    limit = own if said in (None, WHAT_FITS) else said
    if not isinstance(limit, int) or limit <= 0:
        # Not known, or none that the engine takes.
        return None
    if own is not None and limit > own:
        return (
            f"{kind.longest} = {limit} is more than the {own} tokens of {spec.model.name}, with which "
            f"{kind.title} does not start. Lower it, or leave it out for the model's own."
        )
    tells = (p for p in spec.load_points if kind.is_modelled or DATASETS[p.dataset].has_exact_lengths)
    where = f"the model's {limit}" if said in (None, WHAT_FITS) else f"{kind.longest} = {limit}"
    return next((why for p in tells if (why := _why_load_is(p, kind.longest, limit, where, own=own))), None)


def longest_asked(points: tuple[LoadPoint, ...]) -> int:
    """Return the tokens of the longest request of all load points; 0 where no dataset tells.

    Text is given a quarter more than its characters say.
    """
    longest = 0
    for point in points:
        sent = lengths.of_requests(point)
        if sent is not None:
            room = 1.0 if DATASETS[point.dataset].has_exact_lengths else _ROOM_FOR_TEXT
            longest = max(longest, int(sent[-1] * room))
    return longest


def model_positions(model: Model) -> int | None:
    """Return the tokens of a model's longest sequence; None where they are not known."""
    return None if model.built is None else model.built.max_positions or None


def is_stretched(assignment: Assignment) -> bool:
    """Whether knobs make the model's own longest sequence another than its config.json says."""
    return any(assignment.get(name) not in (None, 0, False, "0") for name in _STRETCHING)


def _why_load_is(point: LoadPoint, knob: str, limit: int, where: str, *, own: int | None) -> str | None:
    sent = lengths.of_requests(point)
    if sent is None or sent[-1] <= limit:
        return None
    longest, over = int(sent[-1]), int((sent > limit).sum())
    enough = -(-longest // _STEP) * _STEP if own is None else min(-(-longest // _STEP) * _STEP, own)
    advice = (
        f"Set knobs.{knob}={enough}."
        if enough >= longest
        else "Choose a model of longer sequences, or shorter requests."
    )
    return (
        f"{TOO_LONG}{where} tokens: {over:,} of the load's {amount(len(sent), 'request', ',')}, the "
        f"longest with {longest:,} of prompt and answer. {advice}"
    )
