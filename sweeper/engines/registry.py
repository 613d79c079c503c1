"""The engine that a trial asks for, opened; the available engines are listed in ``kinds.ENGINES``."""

from __future__ import annotations

from sweeper.engines import Engine
from sweeper.errors import ConfigError
from sweeper.kinds import CLIENTS, ENGINES, opened
from sweeper.processes.warm import WarmProcesses
from sweeper.records import INSTANCES, TrialSpec


def engine_of(spec: TrialSpec, warm: WarmProcesses | None = None) -> Engine:
    """Return the engine that a trial asks for, several of it where the knob ``instances`` is set.

    Args:
        spec: The trial.
        warm: Who keeps what engines import from one start to the next; None keeps nothing.

    Raises:
        ConfigError: Engine, client and knob do not go together.
    """
    engine = _one(spec, warm)
    if INSTANCES not in spec.assignment:
        return engine
    if CLIENTS[spec.client.kind].has_engine_inside:
        raise ConfigError(
            f"knobs.{INSTANCES}: is given with client.kind={spec.client.kind}, whose engines serve nobody; "
            "expected a server to share a load. Use workload dataset random or sharegpt."
        )
    from sweeper.engines.instances import InstancesEngine

    return InstancesEngine(engine)


def _one(spec: TrialSpec, warm: WarmProcesses | None) -> Engine:
    kind, inside = ENGINES[spec.engine.kind], CLIENTS[spec.client.kind].engine
    # A model stands for the engine inside a client, too.
    place = kind.engine if kind.is_modelled or inside is None else inside
    is_kept = kind.is_kept_warm and place == kind.engine and warm is not None
    engine: Engine = opened(place)(**({"warm": warm} if is_kept else {}))
    return engine
