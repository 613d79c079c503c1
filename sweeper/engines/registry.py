"""The engine that a trial asks for, opened; the available engines are listed in ``kinds.ENGINES``."""

from __future__ import annotations

from sweeper.engines import Engine
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, ENGINES, opened
from sweeper.records import INSTANCES, TrialSpec


def engine_of(spec: TrialSpec) -> Engine:
    """Return the engine that a trial asks for, several of it where the knob ``instances`` is set.

    Raises:
        ConfigError: Engine, client and knob do not go together.
    """
    engine = _one(spec)
    if INSTANCES not in spec.assignment:
        return engine
    if CLIENTS[spec.client.kind].has_engine_inside:
        raise ConfigError(
            f"knobs.{INSTANCES}: is given with client.kind={spec.client.kind}, whose engines serve nobody; "
            "expected a server to share a load. Use workload dataset random or sharegpt."
        )
    from sweeper.engines.instances import InstancesEngine

    return InstancesEngine(engine)


def _one(spec: TrialSpec) -> Engine:
    kind, inside = ENGINES[spec.engine.kind], CLIENTS[spec.client.kind].engine
    # A model stands for the engine inside a client, too.
    place = kind.engine if kind.is_modelled or inside is None else inside
    engine: Engine = opened(place)()
    return engine
