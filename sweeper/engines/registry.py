"""The engines that there are, and the one that a trial asks for."""

from __future__ import annotations

from sweeper.engines import Engine
from sweeper.errors import ConfigError
from sweeper.records import (
    INSTANCES,
    TrialSpec,
)


def engine_of(spec: TrialSpec) -> Engine:
    """Return the engine that a trial asks for, several of it where the knob ``instances`` is set.

    Raises:
        ConfigError: Engine, client and knob do not go together.
    """
    engine = _one(spec)
    if INSTANCES not in spec.assignment:
        return engine
    if spec.client.kind == "offline":
        raise ConfigError(
            f"knobs.{INSTANCES}: is given with client.kind=offline, whose engines serve nobody; expected a "
            "server to share a load. Use workload dataset random or sharegpt."
        )
    from sweeper.engines.instances import InstancesEngine

    return InstancesEngine(engine)


def _one(spec: TrialSpec) -> Engine:
    if spec.engine.kind == "simulated":
        from sweeper.engines.simulated import SimulatedEngine

        return SimulatedEngine()
    if spec.client.kind == "offline":
        from sweeper.engines.vllm_offline import OfflineEngine

        return OfflineEngine()
    if spec.engine.kind == "attach":
        from sweeper.engines.attach import AttachEngine

        return AttachEngine()
    if spec.engine.kind == "tgi":
        from sweeper.engines.tgi import TgiEngine

        return TgiEngine()
    from sweeper.engines.vllm import VllmEngine

    return VllmEngine()
