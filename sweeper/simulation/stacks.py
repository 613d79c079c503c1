"""Which calibration a run gets: that of the stack nearest to its own, and how near that is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from sweeper.records import TrialSpec
from sweeper.records.kinds import IMAGE
from sweeper.simulation import calibration
from sweeper.simulation.builds import kinds_of
from sweeper.simulation.calibration import Calibration, NamedCalibration
from sweeper.simulation.device import device_named
from sweeper.simulation.settings import generation_of
from sweeper.simulation.stack import Asked, Stack, day_of, has_aiter, kernels_of, weights_of

NEW = 3.0
"""What a kind of run adds to a distance that its calibration was never compared with."""


def asked_of(spec: TrialSpec) -> Asked:
    """Return the stack of a trial."""
    return Asked(
        release=spec.engine.release,
        generation=generation_of(spec),
        device=spec.modelled_device,
        weights=kernels_of(weights_of(spec.model), has_rocm=device_named(spec.modelled_device).has_rocm),
        aiter=has_aiter(spec.assignment),
        date=_image_day(spec),
    )


def _image_day(spec: TrialSpec) -> str | None:
    """Return the day in the reference of the image that a trial runs in, where there is one."""
    container = spec.engine.container
    image = spec.assignment.get(IMAGE, container.image if container else None)
    return day_of(str(image)) if image else None


def nearest(asked: Asked) -> NamedCalibration:
    """Return the shipped calibration whose stack is nearest; of those equally near, the newest."""
    known = {named.name: named for named in sorted(_shipped(), key=_age)}
    return known[nearest_name({name: _stack(named) for name, named in known.items()}, asked)]


def nearest_name(known: Mapping[str, Stack], asked: Asked) -> str:
    """Return the name of the stack nearest to a run; of those equally near, the first."""
    return min(known, key=lambda name: known[name].distance(asked))


def nearness(named: NamedCalibration, asked: Asked) -> str | None:
    """Say how near a calibration's stack is to a run's; None where its file does not say what it is of."""
    return None if named.stack is None else named.stack.nearness(asked)


def distance(named: NamedCalibration, spec: TrialSpec) -> float | None:
    """Return how far a trial is from what a calibration is of; None where its file does not say what that is.

    What it was never compared with (a dataset, a build of models) counts as another stack.
    """
    if named.stack is None:
        return None
    compared = named.compared
    is_new = any(point.dataset not in compared.datasets for point in spec.load_points) or any(
        kind not in compared.kinds for kind in kinds_of(spec.model, spec.assignment)
    )
    return named.stack.distance(asked_of(spec)) + (NEW if is_new else 0.0)


def parameters_of(spec: TrialSpec) -> Calibration:
    """Return the parameters of a trial: those that it carries, and of the nearest stack what it does not.

    A trial that carries a whole calibration leaves out what came later only where that is as it was before.

    Raises:
        ConfigError: It carries a name that is unknown, or a value that is out of range.
    """
    whole = set(Calibration.__dataclass_fields__) - set(calibration.LATER)
    start = Calibration() if whole <= set(spec.calibration) else nearest(asked_of(spec)).calibration
    return _with(start, tuple(spec.calibration.items()))


@lru_cache(maxsize=256)
def _with(start: Calibration, values: tuple[tuple[str, float], ...]) -> Calibration:
    return start.override(dict(values))


@cache
def _shipped() -> tuple[NamedCalibration, ...]:
    found = (calibration.load(name) for name in calibration.names())
    return tuple(named for named in found if named.stack is not None)


def _stack(named: NamedCalibration) -> Stack:
    assert named.stack is not None
    return named.stack


def _age(named: NamedCalibration) -> tuple[int, ...]:
    return tuple(-ord(character) for character in _stack(named).date)
