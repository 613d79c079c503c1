"""What must never be written down: which names hold secrets, and texts without the secrets of an environment.

Secrets reach the engine by its environment, which only its own user can read, and nothing else: they stand in
no command line, row, log, dump or message of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_MASK = "***"
# Shorter values are words that stand in any text.
_SHORTEST = 8

_PERHAPS = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?(?:$|_)", re.IGNORECASE)
# The end of a name says what it is: a TOKEN_THRESHOLD is a number, max_num_batched_tokens another.
_SURELY = re.compile(
    r"(?:^|_)(?:TOKEN|KEY|KEY_ID|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$|(?:^|_)(?:SECRET|PASSWORD|PASSWD)_",
    re.IGNORECASE,
)

# Flags of vLLM that look alike: allow_credentials, max_prompt_adapter_token.
_HARMLESS = ("allow_", "max_")


def may_hold_secret(name: str) -> bool:
    """Whether a variable is better left out of what is stored, for its name speaks of secrets."""
    return _PERHAPS.search(name) is not None


def holds_secret(name: str) -> bool:
    """Whether a variable or a flag holds a secret by its name, such as ``HF_TOKEN`` or ``api_key``."""
    return _SURELY.search(name) is not None and not name.startswith(_HARMLESS)


def assigned_secret(words: Iterable[str]) -> str | None:
    """Name the variable that is given a secret among the words of a command, ``HF_TOKEN=...``; else None."""
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        inner = value.partition("=")[0] if "=" in value else ""
        for found in (name, inner):
            if equals and found and holds_secret(found.replace("-", "_")):
                return found
    return None


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """Give a text in which the values of an environment's secrets are masked.

    An engine may say in its last words what it was given, and those words are stored.
    """
    values = {v for name, v in environment.items() if holds_secret(name) and len(v) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, _MASK)
    return text
