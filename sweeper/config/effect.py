"""Where keys of the configuration act: what a run is to them, and reasons why some do nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sweeper.records import CLIENTS, INSTANCES, OFFLINE_DATASETS, Platform


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
    def engines(self) -> frozenset[str]:
        """What serves, or would on a machine, where it is simulated: ``vllm``, ``tgi``, ``attach``."""
        kind = self.root["engine"]["kind"]
        usual = "vllm" if kind in ("auto", "simulated") else kind
        series = self.root["space"]["series"].values()
        return frozenset("tgi" if item["engine"] == "tgi" else usual for item in series) or frozenset({usual})

    @property
    def is_simulated(self) -> bool:
        """Whether nothing is started."""
        return self.platform is Platform.SIMULATED

    @property
    def client(self) -> str:
        """What loads."""
        return str(self.root["client"]["kind"])

    @property
    def method(self) -> str:
        """How the space is walked."""
        return str(self.root["search"]["method"])

    @property
    def is_offline(self) -> bool:
        """Whether nothing that is sent reaches a server."""
        return self.client == "offline" or (
            bool(self.datasets) and self.datasets <= frozenset(OFFLINE_DATASETS)
        )

    @property
    def stops_early(self) -> bool:
        """Whether hopeless trials are ended."""
        wanted = self.root["search"]["stops_early"]
        return self.method != "grid" if wanted is None else bool(wanted)

    @property
    def has_instances(self) -> bool:
        """Whether some setting has several engines."""
        space = self.root["space"]
        places = [self.root["knobs"], space["knobs"], *(item["knobs"] for item in space["series"].values())]
        return any(place.get(INSTANCES) not in (None, 1) for place in places)

    @property
    def needs_engine_python(self) -> bool:
        """Whether vLLM's interpreter runs something, or would on a machine: server or load generator."""
        client = self.root["client"]
        has_own = client["python"] is not None and client["script"] is None
        return "vllm" in self.engines or (self.client == CLIENTS[0] and not has_own)

    @property
    def words(self) -> Mapping[str, str]:
        """What a reason may name."""
        kind = self.root["engine"]["kind"]
        engine = "simulated" if self.is_simulated else "vllm" if kind == "auto" else kind
        dataset = " and ".join(sorted(self.datasets))
        return {
            "engine": engine,
            "platform": str(self.platform),
            "client": self.client,
            "method": self.method,
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
