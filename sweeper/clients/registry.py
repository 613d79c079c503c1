"""The client that a trial asks for, opened; the available clients are listed in ``kinds.CLIENTS``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sweeper.clients import Client, requirements
from sweeper.engines import instances
from sweeper.kinds import CLIENTS, ENGINES, opened
from sweeper.processes.warm import WarmProcesses
from sweeper.records import Placement, TrialSpec

OpenClient = Callable[[TrialSpec, Placement], Client]


def client_of(spec: TrialSpec, warm: WarmProcesses | None = None) -> OpenClient:
    """Return what opens the client that a trial asks for.

    Args:
        spec: The trial.
        warm: Who keeps what clients have imported from one engine to the next; None keeps nothing.

    Raises:
        ConfigError: Several engines share the load of a client that cannot split it.
    """
    own = ENGINES[spec.engine.kind].own_client
    if own is not None:
        return _opened(own)
    kind = CLIENTS[spec.client.kind]
    open_one = _opened(kind.client, **({"warm": warm} if kind.is_kept_warm and warm else {}))
    if instances.way(spec) == "split":
        from sweeper.clients.split import SplitClient

        instances.check_client(spec.assignment, engine=spec.engine, client=spec.client)
        return partial(SplitClient, parts=instances.count(spec.assignment), open_one=open_one)
    if kind.client_of_scripts is not None and requirements.is_script(spec):
        return _opened(kind.client_of_scripts)
    return open_one


def _opened(place: str, **given: object) -> OpenClient:
    open_client: OpenClient = partial(opened(place), **given)
    return open_client
