"""The client of a study, with the environment of its own where it has one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.kinds import CLIENTS, ENGINES
from sweeper.prepare.interpreter import find_benchmark_python
from sweeper.records import ClientSpec

if TYPE_CHECKING:
    from sweeper.config import Settings


def found_client(settings: Settings) -> ClientSpec:
    """Return what loads, with the interpreter and the version that were found.

    Raises:
        ConfigError: It is not installed, or too old.
    """
    client, engine = settings.client, ENGINES[settings.engine.kind]
    kind = CLIENTS[client.kind]
    if kind.is_of_vllm and engine.lies_without_vllm:
        from sweeper.engines.vllm_environment import probe

        python = client.python or find_benchmark_python(settings.platform, engine)
        return replace(client, python=python, version=probe(python).release)
    if kind.package is None or engine.is_modelled:
        return client
    from sweeper.clients import own_environment

    python = own_environment.find_python(kind, client.python)
    return replace(client, python=python, version=own_environment.version_at(kind, python))
