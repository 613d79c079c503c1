"""Memory that vLLM logged on Instinct GPUs, beside what ``fit`` says of the same start, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from sweeper.models import published, quantization
from sweeper.models.fit import GIB, Fit, fit
from sweeper.records import Assignment, Model
from sweeper.records.plurals import percent

CLOSE_SHARE = 0.01
"""Differences above this share are explained."""

_HEAD = """# Published starts on Instinct GPUs

Made by `python -m sweeper models --starts`. What vLLM logged when it started, as people published it, beside
what `fit` works out for the same knobs: GiB of weights on a device, GiB left for the KV cache,
and blocks or tokens of the cache. Two columns for the last: from the memory that fit leaves over, and from the
memory that vLLM said was left, which checks the groups and pages alone.

| model, device, vLLM | weights, GiB | here | off | cache, GiB | here | off | blocks or tokens | here | off | of its own memory | source |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|
"""  # noqa: E501

_TAIL = """
What differs by more than a hundredth, and why:

"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start of vLLM whose memory was published.

    Attributes:
        model: What was served, as its checkpoint stores it.
        device: Name of the GPU.
        release: Release of vLLM.
        fit: What ``fit`` says of it.
        weights_gib: Weights on one device as logged; None where that was not published.
        kv_gib: Memory left for the KV cache, as logged.
        blocks: Blocks of the cache, as logged by V0.
        tokens: Tokens of the cache, as logged by V1.
        concurrency: Sequences of the longest length, as logged.
        why: Why the two differ by more than a hundredth, where they do.
        source: Where it was published.
    """

    model: Model
    device: str
    release: str
    fit: Fit
    weights_gib: float | None
    kv_gib: float | None
    blocks: int | None
    tokens: int | None
    concurrency: float | None
    why: str
    source: str

    def blocks_of(self, kv_gib: float) -> int:
        """Return the blocks of a cache of this size."""
        return int(kv_gib * GIB // self.fit.cache.block_bytes)

    @property
    def logged(self) -> int | None:
        """Blocks or tokens of the cache, whichever was logged."""
        return self.blocks if self.tokens is None else self.tokens

    def counted(self, blocks: int) -> int:
        """Return so many blocks in what was logged: blocks themselves, or tokens."""
        if self.tokens is None:
            return blocks
        return self.fit.cache.logged_tokens(blocks, max_model_len=self.fit.max_model_len)

    @property
    def offs(self) -> Sequence[float]:
        """How far ``fit`` lies from each logged number, as shares."""
        pairs = (
            (self.fit.weights_gib, self.weights_gib),
            (self.fit.free_gib, self.kv_gib),
            (float(self.counted(self.fit.blocks)), self.logged),
        )
        return [found / said - 1 for found, said in pairs if said is not None]


def published_starts() -> Sequence[Start]:
    """Return the published starts, in the order of their file."""
    # Imported here: it is needed for this page alone.
    import yaml

    text = resources.files("sweeper.models").joinpath("data", "published_starts.yaml").read_text("utf-8")
    built = {model.name: model.architecture for model in published.published_models()}
    return [_start(row, built) for row in yaml.safe_load(text)]


def page() -> str:
    """Return the page."""
    starts = published_starts()
    whys = dict.fromkeys(
        f"- {start.model.name}, vLLM {start.release}: {start.why}\n" for start in starts if start.why
    )
    return _HEAD + "".join(map(_row, starts)) + _TAIL + "".join(whys)


def _start(row: Mapping[str, object], built: Mapping[str, object]) -> Start:
    stored = quantization.read({"quantization_config": row.get("stored")}, where=str(row["source"]))
    is_plain_fp8 = quantization.is_plain_fp8(stored)
    model = Model(
        name=str(row.get("checkpoint", row["model"])),
        path=str(row["model"]),
        shape=None,
        architecture=built[str(row["model"])],  # type: ignore[arg-type]
        dtype="fp8" if is_plain_fp8 else "bfloat16",
        quantization=None if is_plain_fp8 else stored,
    )
    knobs: Assignment = {**row["knobs"], **row.get("environment", {})}  # type: ignore[dict-item]
    said: Mapping[str, float] = row["said"]  # type: ignore[assignment]
    release = str(row["release"])
    return Start(
        model=model,
        device=str(row["device"]),
        release=release,
        fit=fit(model, knobs, release=release, device_memory_gib=float(str(row["memory_gib"]))),
        weights_gib=said.get("weights_gib"),
        kv_gib=said.get("kv_gib"),
        blocks=None if "blocks" not in said else int(said["blocks"]),
        tokens=None if "tokens" not in said else int(said["tokens"]),
        concurrency=said.get("concurrency"),
        why=str(row.get("why", "")).strip(),
        source=str(row["source"]),
    )


def _row(start: Start) -> str:
    own = ""
    if start.kv_gib is not None and start.logged is not None:
        own = f"{start.counted(start.blocks_of(start.kv_gib)):,}"
    counted = None if start.logged is None else float(start.counted(start.fit.blocks))
    cells = [
        f"{start.model.name}, {start.device}, {start.release}",
        *_pair(start.weights_gib, start.fit.weights_gib, ".2f"),
        *_pair(start.kv_gib, start.fit.free_gib, ".2f"),
        *_pair(start.logged, counted, ",.0f"),
        own,
        start.source,
    ]
    return f"| {' | '.join(cells)} |\n"


def _pair(said: float | None, found: float | None, form: str) -> tuple[str, str, str]:
    if said is None or found is None:
        return "", "", ""
    return format(said, form), format(found, form), percent(found / said - 1, "+.1")
