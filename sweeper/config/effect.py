"""Where keys of the configuration act: what a run is to them, and reasons why some do nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeper.kinds import (
    CLIENTS,
    DATASETS,
    DEFAULT_ENGINE,
    ENGINES,
    MODEL_OF_ENGINE,
    SEARCH_METHODS,
    ClientKind,
    EngineKind,
    SearchMethod,
)
from sweeper.records import IMAGE, INSTANCES, Platform


@dataclass(frozen=True, kw_only=True)
class Run:
    """What decides where a key acts.

    Attributes:
        root: The composed configuration.
        platform: The machine.
        datasets: What the load points send that a key of the workload is for.
    """

    root: Mapping[str, Any]
    platform: Platform
    datasets: frozenset[str]

    @cached_property
    def engines(self) -> frozenset[EngineKind]:
        """What serves, or would on a machine, where it is simulated."""
        own = ENGINES[self._engine]
        usual = ENGINES[DEFAULT_ENGINE] if own.is_modelled and own.takes_vllm_flags else own
        named = [ENGINES[item["engine"]] for item in self.root["space"]["series"].values()]
        return frozenset(usual if kind.takes_vllm_flags else kind for kind in named) or frozenset({usual})

    @property
    def _engine(self) -> str:
        kind = str(self.root["engine"]["kind"])
        return kind if kind in ENGINES else MODEL_OF_ENGINE if self.is_simulated else DEFAULT_ENGINE

    @property
    def is_attached(self) -> bool:
        """Whether all that serves runs already."""
        return not any(kind.is_started_by_us for kind in self.engines)

    @property
    def starts_servers(self) -> bool:
        """Whether the study's own engine is started for it."""
        return ENGINES[self._engine].is_started_by_us

    @property
    def has_foreign_engine(self) -> bool:
        """Whether something is started that is not vLLM."""
        return any(kind.is_started_by_us and not kind.takes_vllm_flags for kind in self.engines)

    @property
    def is_simulated(self) -> bool:
        """Whether nothing is started."""
        return self.platform is Platform.SIMULATED

    @property
    def client(self) -> ClientKind:
        """What loads."""
        return CLIENTS[str(self.root["client"]["kind"])]

    @property
    def method(self) -> SearchMethod:
        """How the space is walked."""
        return SEARCH_METHODS[str(self.root["search"]["method"])]

    @property
    def is_offline(self) -> bool:
        """Whether nothing that is sent reaches a server."""
        needs_server = (DATASETS[name].needs_server for name in self.datasets)
        return self.client.has_engine_inside or (bool(self.datasets) and not any(needs_server))

    @property
    def stops_early(self) -> bool:
        """Whether hopeless trials are ended."""
        wanted = self.root["search"]["stops_early"]
        return not self.method.is_exhaustive if wanted is None else bool(wanted)

    @property
    def has_instances(self) -> bool:
        """Whether some setting has several engines."""
        return any(place.get(INSTANCES) not in (None, 1) for place in self._knobs)

    @property
    def has_images(self) -> bool:
        """Whether some setting runs in a container."""
        return bool(self.root["engine"]["image"]) or any(place.get(IMAGE) for place in self._knobs)

    @property
    def _knobs(self) -> list[Mapping[str, Any]]:
        space = self.root["space"]
        return [self.root["knobs"], space["knobs"], *(item["knobs"] for item in space["series"].values())]

    @property
    def needs_engine_python(self) -> bool:
        """Whether vLLM's interpreter runs something, or would on a machine: server or load generator."""
        client = self.root["client"]
        has_own = client["python"] is not None and client["script"] is None
        is_served_by_it = any(kind.is_run_by_python for kind in self.engines)
        is_beside_it = self.client.has_own_python and self.client.package is None
        return is_served_by_it or (is_beside_it and not has_own)

    @property
    def words(self) -> Mapping[str, str]:
        """What a reason may name."""
        dataset = " and ".join(sorted(self.datasets))
        return {
            "engine": MODEL_OF_ENGINE if self.is_simulated else self._engine,
            "platform": str(self.platform),
            "client": self.client.name,
            "method": self.method.name,
            "dataset": dataset,
            "order": str(self.root["study"]["order"]),
        }


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A reason why a key does nothing.

    Attributes:
        when: Whether it holds in a run.
        because: In words, which may name what ``Run.words`` holds, such as ``{engine}``.
        remedy: What to do.
        is_said: Whether it is said in one line and not refused.
        heeds_presets: Whether also a value is refused that a shipped file brings along, since it would stand
            in the rows as if it had been so.
    """

    when: Callable[[Run], bool]
    because: str
    remedy: str = "Leave it out."
    is_said: bool = False
    heeds_presets: bool = False


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Keys that act in the same places.

    Attributes:
        keys: Dotted paths; ``*`` stands for a name of the user's own.
        idle: Where they do nothing, those first that are refused; empty where they always act.
        is_shown: Whether a message shows the value: one may hold a password, or be long.
    """

    keys: tuple[str, ...]
    idle: tuple[Idle, ...] = ()
    is_shown: bool = True

    def idle_in(self, run: Run) -> tuple[Idle, ...]:
        """Find why the keys do nothing in a run; nothing where they act."""
        return tuple(idle for idle in self.idle if idle.when(run))
