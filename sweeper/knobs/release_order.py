"""The releases of vLLM: how they followed one another, and which of them the tables cover.

A later release is taken to be like the last one covered, a development build like the last release before
it: every question about a release goes through ``covered`` or ``is_between``, so that rule is written here
    alone.
"""

from __future__ import annotations

import re
from functools import cache

from packaging.version import Version

from sweeper.errors import ConfigError
from sweeper.knobs.tables import table

ReleaseKey = Version
"""What orders releases, so that a later release is greater."""

# Narrower than PEP 440, whose other spellings (``0.6.2-1``, ``0.9.1rc2.dev``, ``1!0.6``) name no vLLM. Python
# reads no number of thousands of digits, which no release has.
_RELEASE = re.compile(
    r"(?=.{1,200}$)v?(?P<public>\d+(?:\.\d+)*(?:\.?(?:a|b|rc)\d+)?(?:\.?post\d+)?(?:\.?dev\d+)?)(?:\+.*)?"
)


@cache
def release_key(text: str) -> ReleaseKey:
    """Order releases of vLLM as they followed one another.

    Args:
        text: ``0.6.2``, ``0.6.3.post1``, ``0.6.3.dev116+g151ef4ef``, ``0.32.0+cpu``, or ``pre-0.4.3``
            for anything before 0.4.3. What follows a plus sign does not count.

    Returns:
        Something that compares; the texts of one release give equal keys.

    Raises:
        ConfigError: The text is no release.

    Source:
        PEP 440, "Summary of permitted suffixes and relative ordering".
    """
    match = _RELEASE.fullmatch(text.removeprefix("pre-").strip())
    if match is None:
        raise ConfigError(
            f"engine release: '{text}' is no release of vLLM; expected a version such as 0.6.2 or "
            "0.6.3.post1. Write the one that the engine's environment reports."
        )
    key = Version(match["public"])
    return Version(f"{key.base_version}.dev0") if text.startswith("pre-") else key


@cache
def releases() -> tuple[str, ...]:
    """Return the releases that the tables cover, oldest first."""
    return tuple(row["release"] for row in table("vllm_releases.csv"))


def why_unplaced(version: str) -> str | None:
    """Explain why a version does not show which release a build is; None where it does.

    A build from a clone without vLLM's tags calls itself 0.1.dev9453, whatever it is of: setuptools-scm
    counts commits where it finds no tag. Some builds are named by hand (``dev``).
    """
    if not _RELEASE.fullmatch(version.strip()):
        return "is no version of the form that releases have"
    if release_key(version) < release_key(releases()[0]):
        return f"is older than {releases()[0]} (builds made without vLLM's tags call themselves so)"
    return None


def is_clean(release: str) -> bool:
    """Return whether a version is that of a release, and not of a build before one or after one (dev, rc)."""
    match = _RELEASE.fullmatch(release.strip())
    return match is not None and not Version(match["public"]).is_prerelease


@cache
def covered(release: str) -> ReleaseKey:
    """Key of the last covered release that is not newer than this one; the tables know no other."""
    key = release_key(release)
    keys = [release_key(known) for known in releases()]
    return max((known for known in keys if known <= key), default=keys[0])


@cache
def is_between(release: str, first: str | None, last: str | None) -> bool:
    """Return whether a release lies from the first to the last, both included; None leaves an end open."""
    key = covered(release)
    return (first is None or release_key(first) <= key) and (last is None or key <= release_key(last))


def release_after(release: str) -> str:
    """Return the covered release that followed this one."""
    return next(other for other in releases() if release_key(other) > release_key(release))
