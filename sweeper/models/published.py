"""What we count of published models beside what their makers state, as a page of Markdown.

The page is the proof of `architecture`: a build that were read wrong would miss its model's stated size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from sweeper.models.builds import architecture_of
from sweeper.records.architecture import Architecture

CLOSE_SHARE = 0.01
"""Differences above this share are explained."""

_HEAD = """# Published models, counted

Made by `python -m sweeper models`. For each model: its weights as they follow from its config.json, without
layers that only predict further tokens (drafts, apart), beside what its maker states; the weights that a
token passes through; and, in 16 bits over all devices of one replica, the bytes of KV cache of one token that
every layer sees, and those of a sequence's state.

Makers count active weights in two ways: a token reads one row of the table of embeddings and all of the head
(first number: DeepSeek, OpenAI), or both tables count whole (in brackets: Qwen, Mistral, Meta). The stated
one lies at one of the two, rounded as its maker rounds.

| model | build | weights, B | stated | off | active, B | stated | KV bytes | state | draft, B | source |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|
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
    return _HEAD + "".join(map(_row, published_models()))


def _row(model: PublishedModel) -> str:
    built = model.architecture
    note = f" ({_ROUNDED[model.name]})" if model.name in _ROUNDED else ""
    cells = (
        model.name,
        built.words + ("; encoder of images" if built.encoder_parameters else ""),
        f"{built.parameters / 1e9:.2f}",
        f"{model.parameters_b:g}",
        f"{model.off_share:+.1%}{note}",
        _active(built),
        "all" if model.active_b is None else f"{model.active_b:g}",
        f"{built.kv_bytes_per_token():,.0f}",
        f"{2 * built.state_values():,}",
        f"{built.draft_parameters / 1e9:.2f}" if built.draft_layers else "",
        model.source,
    )
    return f"| {' | '.join(cells)} |\n"


def _active(built: Architecture) -> str:
    if not built.has_experts:
        return "all"
    both = built.active_parameters + (0 if built.is_tied else built.vocab * built.hidden)
    return f"{built.active_parameters / 1e9:.2f} ({both / 1e9:.2f})"
