"""What we count of published models beside what their makers state, as a page of Markdown.

The page is the proof of `architecture`: a build that were read wrong would miss its model's stated size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from sweeper.models.builds import architecture_of
from sweeper.records.architecture import Architecture
from sweeper.records.plurals import percent

CLOSE_SHARE = 0.01
"""Differences above this share are explained."""

_HEAD = """# Published models, counted

What `fit` counts from a model's config.json lies within {most} of the size that its maker states, for all
of these {count} models but where a row says why.

Weights are in billions, without layers that only predict further tokens (drafts). Stated sizes are from the
model's card or announcement where no source is named. KV bytes are those of a token that every layer sees, in
16 bits over all devices of a replica; a state is a sequence's. Made by `python -m sweeper models`.

## All weights active

| model | build | weights | stated | off | KV bytes | source |
|---|---|--:|--:|--:|--:|---|
"""
_EXPERTS = """
## Mixtures of experts

Makers count active weights in two ways: one row of the table of embeddings and all of the head (first number:
DeepSeek, OpenAI), or both tables whole (in brackets: Qwen, Mistral, Meta). The stated one lies at one of the
two, rounded as its maker rounds.

| model | build | weights | stated | off | active | stated | KV bytes | source |
|---|---|--:|--:|--:|--:|--:|--:|---|
"""
_ROUNDED = {"moonshotai/Kimi-K2-Instruct": "stated as 1T; 1026B are counted"}


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A published model.

    Attributes:
        name: Its id on the hub.
        architecture: What it is built of.
        parameters_b: Weights as its maker states them, billions.
        active_b: Weights of one token as stated, billions; None where all are active.
        source: Where that is stated.
    """

    name: str
    architecture: Architecture
    parameters_b: float
    active_b: float | None
    source: str

    @property
    def off_share(self) -> float:
        """How far our count of the weights lies from the stated one."""
        return self.architecture.parameters / 1e9 / self.parameters_b - 1


def published_models() -> Sequence[PublishedModel]:
    """Return the published models, in the order of their file."""
    # Imported here: it is needed for this page alone.
    import yaml

    text = resources.files("sweeper.models").joinpath("data", "published_models.yaml").read_text("utf-8")
    return [
        PublishedModel(
            name=row["name"],
            architecture=architecture_of(row["config"], where=row["name"]),
            parameters_b=float(row["parameters_b"]),
            active_b=None if row["active_b"] is None else float(row["active_b"]),
            source=row["source"],
        )
        for row in yaml.safe_load(text)
    ]


def page() -> str:
    """Return the page."""
    found = published_models()
    dense = (_row(model) for model in found if not model.architecture.has_experts)
    experts = (_row(model) for model in found if model.architecture.has_experts)
    most = max(abs(model.off_share) for model in found if model.name not in _ROUNDED)
    return "".join((_HEAD.format(most=percent(most, ".1"), count=len(found)), *dense, _EXPERTS, *experts))


def _row(model: PublishedModel) -> str:
    built = model.architecture
    note = f" ({_ROUNDED[model.name]})" if model.name in _ROUNDED else ""
    extra = "; encoder of images" if built.encoder_parameters else ""
    if built.draft_layers:
        extra += f"; {built.draft_parameters / 1e9:.2f} of drafts"
    state = f"; state {2 * built.state_values():,}" if built.state_values() else ""
    stated = "" if model.active_b is None else f"{model.active_b:g}"
    cells = (
        model.name,
        built.words + extra,
        f"{built.parameters / 1e9:.2f}",
        f"{model.parameters_b:g}",
        f"{percent(model.off_share, '+.1')}{note}",
        *((_active(built), stated) if built.has_experts else ()),
        f"{built.kv_bytes_per_token():,.0f}{state}",
        _where(model.source),
    )
    return f"| {' | '.join(cells)} |\n"


def _where(source: str) -> str:
    """Return where a size is stated, without the size itself; of a sum its parts stay."""
    parts = (part if "+" in part else part.partition(": ")[0] for part in source.split("; "))
    return "; ".join(part for part in parts if part not in ("model card", "announcement"))


def _active(built: Architecture) -> str:
    both = built.active_parameters + (0 if built.is_tied else built.vocab * built.hidden)
    return f"{built.active_parameters / 1e9:.2f} ({both / 1e9:.2f})"
