"""What is measured before any method chooses: the defaults, the published best, the predicted best.

The defaults are what every later gain is compared with, the published best is what others found before, and
the predicted best is where the simulated platform would begin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from sweeper.errors import ConfigError, nearest
from sweeper.records import Assignment, Scalar
from sweeper.search.candidates import first_value, identity, is_valid
from sweeper.search.prior import Ranking
from sweeper.space.space import Point, Space


def check_starts(starts: Sequence[Mapping[str, Scalar]], space: Space) -> None:
    """Check that given starting points lie in the space.

    Raises:
        ConfigError: A knob is not varied, a value is outside of its domain, or a rule is broken.
    """
    for number, start in enumerate(starts):
        where = f"search.start[{number}]"
        known = (*(("series",) if space.series else ()), *space.domains)
        for name, value in start.items():
            if name not in known:
                raise ConfigError(
                    f"{where}: '{name}' is not varied; expected knobs of space.knobs "
                    f"({', '.join(known) or 'none'}).{nearest(name, known)} Correct or remove it."
                )
            if name != "series" and not space.domains[name].holds(value):
                raise ConfigError(
                    f"{where}.{name}: is {value!r}, which space.knobs.{name} does not hold; expected one of "
                    "its values. Change one of the two."
                )


def starting_points(
    space: Space,
    *,
    defaults: Assignment,
    given: Sequence[Mapping[str, Scalar]] = (),
    ranking: Callable[[], Ranking | None] = lambda: None,
    pool: Callable[[], Sequence[Point]] = tuple,
) -> Iterator[Point]:
    """Return the first points in their order, each once; those that break a rule are left out.

    Args:
        defaults: The engine's own values of knobs, as far as they are known.
        given: Choices that the experiment names, such as the published best; what they leave open is as in
            the defaults.
        ranking: Makes the simulated platform's ranking, when it is needed; None where there is none.
        pool: Points among which the predicted best is found.
    """
    usual = default_choices(space, defaults)
    named = [usual, *({**usual, **start} for start in given)]
    seen: set[str] = set()
    # One after the other: a ranking takes its time, and is not made before it is asked for.
    for point in itertools.chain((space.point(choices) for choices in named), _predicted(ranking, pool)):
        if identity(point) not in seen and is_valid(space, point):
            seen.add(identity(point))
            yield point


def default_choices(space: Space, defaults: Assignment) -> dict[str, Scalar]:
    """Return the choices that come closest to changing nothing.

    A knob has its base value, else the engine's default, if its domain holds it; else the domain's first.
    """
    known = {**defaults, **space.base}
    found: dict[str, Scalar] = {"series": space.series[0].name} if space.series else {}
    for name, domain in space.domains.items():
        value = known.get(name)
        is_there = value is not None and domain.holds(value)
        found[name] = value if value is not None and is_there else first_value(domain)
    return found


def _predicted(ranking: Callable[[], Ranking | None], pool: Callable[[], Sequence[Point]]) -> Iterator[Point]:
    found = ranking()
    points = pool() if found is not None else ()
    if found is not None and len(points):
        scores = found.scores(points)
        if scores.max() > scores.min():
            yield points[int(scores.argmax())]
