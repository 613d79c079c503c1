"""Which release an engine is taken for: the one that its version shows, or one that was stated for it.

Some builds show nothing: a clone without vLLM's tags calls itself ``0.1.dev9453``, a build by hand ``dev``.
To guess would be to write flags that mean something else there; so the release is asked for, and both the
version that was found and the release that was stated are kept with every result.
"""

from __future__ import annotations

from dataclasses import replace

from sweeper import knobs
from sweeper.errors import ConfigError
from sweeper.records import EngineSpec


def settled(
    engine: EngineSpec,
    *,
    found: str,
    where: str,
    stated: bool,
    insists: bool,
    title: str = "vLLM",
    example: str | None = None,
) -> EngineSpec:
    """Return an engine the release that it is to be treated as.

    Args:
        engine: With the release that the configuration names.
        found: Version that was found; what follows a plus sign counts only where the rest shows no release.
        where: What has it, for a message: an interpreter or an address.
        stated: Whether the user named that release, and no experiment of ours did.
        insists: Whether it was named for this very run, on the command line.
        title: What was found, in a sentence.
        example: A release of it, for a message; None takes vLLM's.

    Raises:
        ConfigError: The version shows no release and none was stated, or it shows another than was
            insisted on.
    """
    unplaced = knobs.why_unplaced(found)
    if unplaced is None:
        _refuse_contradiction(engine, found=found, where=where, insists=insists, title=title)
        return replace(engine, release=found.partition("+")[0])
    if not stated:
        raise ConfigError(
            f"engine.release: {where} has {title} '{found}', which {unplaced}: cannot tell which release "
            f"this is; expected a version such as {example or knobs.releases()[-1]}. Look up what it was "
            "built from, and say on the command line what it is to be treated as, such as "
            f"engine.release={example or '0.11.0'}"
        )
    return replace(engine, build=found)


def _refuse_contradiction(engine: EngineSpec, *, found: str, where: str, insists: bool, title: str) -> None:
    if insists and knobs.release_key(engine.release) != knobs.release_key(found):
        raise ConfigError(
            f"engine.release: is {engine.release}, and {where} has {title} {found}, which says what it is; "
            "expected the same. Leave engine.release out (it corrects a version that tells no release), or "
            "name the other interpreter by engine.python."
        )
