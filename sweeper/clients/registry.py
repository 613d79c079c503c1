"""The clients that there are, and the one that a trial asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sweeper.clients import Client, requirements
from sweeper.engines import instances
from sweeper.errors import ConfigError
from sweeper.records import (
    CLIENTS,
    Placement,
    TrialSpec,
)

OpenClient = Callable[[TrialSpec, Placement], Client]


def client_of(spec: TrialSpec) -> OpenClient:
    """Return what opens the client that a trial asks for.

    Raises:
        ConfigError: Several engines share the load of a client that cannot split it.
    """
    if spec.engine.kind == "simulated":
        from sweeper.clients.simulated import SimulatedClient

        return lambda spec, placement: SimulatedClient(spec)
    if instances.way(spec) == "split":
        from sweeper.clients.split import SplitClient
        from sweeper.clients.vllm_bench import VllmBenchClient

        if spec.client.kind != CLIENTS[0]:
            raise ConfigError(
                f"client.kind: is '{spec.client.kind}' for {instances.count(spec.assignment)} servers that "
                f"share a load; expected '{CLIENTS[0]}', which tells the times of single requests. "
                "Set client=vllm_bench."
            )
        return partial(SplitClient, parts=instances.count(spec.assignment), open_one=VllmBenchClient)
    if spec.client.kind == "offline":
        from sweeper.clients.vllm_offline import OfflineClient

        return OfflineClient
    if spec.client.kind == "locust":
        from sweeper.clients.locust import LocustClient

        return LocustClient
    if requirements.is_script(spec):
        from sweeper.clients.bench_script import BenchScriptClient

        return BenchScriptClient
    from sweeper.clients.vllm_bench import VllmBenchClient

    return VllmBenchClient
