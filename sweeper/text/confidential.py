"""What must never be written down: which names hold secrets, and texts without them.

Secrets reach the engine by its environment, which only its own user can read, and nothing else: they are in
no command line, row, dump or message of ours. What others say (an engine's last words, a database's
complaint, Ray's errors) may hold any, known to us or not, and passes ``redacted`` before it is stored or
printed. Only their own logs are left as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

_MASK = "***"
# Shorter values are words that stand in any text.
_SHORTEST = 8

_PERHAPS = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?(?:$|_)", re.IGNORECASE)
# The end of a name says what it is: a TOKEN_THRESHOLD is a number, max_num_batched_tokens another.
_SURELY = re.compile(
    r"(?:^|_)(?:TOKEN|KEY|KEY_ID|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$|(?:^|_)(?:SECRET|PASSWORD|PASSWD)_",
    re.IGNORECASE,
)
_REMOTELY = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|URL|HEADER", re.IGNORECASE)
# Whose values are masked wherever they turn up: PGPASSWORD, DB_PASS, REDIS_AUTH, SESSION_COOKIE.
_VALUED = re.compile(r"PASSWORD$|PASSWD$|PASSPHRASE$|(?:^|_)(?:PASS|PWD|AUTH|COOKIE)$", re.IGNORECASE)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})

# Flags of vLLM that look alike: allow_credentials, max_prompt_adapter_token.
_HARMLESS = ("allow_", "max_")

# Between the user's ':' and the last '@' before the host; a password may hold '/' and '@' itself.
_URL_PASSWORD = re.compile(r"(?P<before>[A-Za-z][\w+.-]{0,40}://[^:/\s]{0,200}:)[^\s\"'<>]+@")
_URL_PARAMETER = re.compile(
    r"(?P<before>[?&][^=&\s]{0,80}(?:password|passwd|secret|token|signature|access_key|account_key|sig)"
    r"[^=&\s]{0,80}=)[^&\s]+",
    re.IGNORECASE,
)

# ---- what a secret looks like in the words of others ----

# A user's name of this length in a URL is a token: https://ghp_...@github.com.
_URL_TOKEN = re.compile(r"(?P<before>[A-Za-z][\w+.-]{0,40}://)[^\s:/@]{16,}@")
_SHAPES = re.compile(
    r"\bhf_(?=\w*[A-Z0-9])[A-Za-z0-9]{16,}"  # Hugging Face
    r"|\bsk-[\w-]{16,}|\bnvapi-[\w-]{16,}|\bAIza[\w-]{30,}|\bya29\.[\w.-]{16,}"  # OpenAI, NVIDIA, Google
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bxox[abeprs]-[\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web token
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_SCHEME = re.compile(
    r"(?P<before>\b(?:bearer|basic)\s+)(?:(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{20,})", re.IGNORECASE
)
_NAME = (
    r"(?:[\w.-]{0,60}(?:password|passwd|passphrase|secret|credentials?|(?:api|access|account|secret|private|"
    r"auth|master|license|encryption|signing)[_-]?key(?:[_-]?id)?)"
    r"|[\w.-]{0,60}(?:hf|hub|auth|access|api|session|refresh|security|bot|github|gitlab|wandb)[_-]?token"
    r"|(?-i:[A-Z0-9_]{0,60}(?:_TOKEN|_KEY|_SECRET|_PASS|_PWD|PASSWORD)|TOKEN)"
    r"|(?:password|passphrase) for [\w '\"@.-]{1,60}"
    # Of a working directory, which is called so too, the value begins as a path.
    r"|(?:[\w.-]{0,60}[_-])?pwd(?=[\"']?\s{0,3}[=:]\s{0,3}[\"']?[^\s/.~\"'])"
    r"|(?:set-)?cookie|(?:proxy-)?authorization)"
)
_VALUE = r"""(?:"[^"\n]*"|'[^'\n]*'|(?:bearer|basic)\s+[^\s,;'"]+|[^\s,;'")\]}]+)"""
_GIVEN = re.compile(
    rf"""(?P<before>(?<![\w-]){_NAME}["']?\s{{0,3}}(?:=|:(?!//))\s{{0,3}}){_VALUE}""", re.IGNORECASE
)
# In JSON; a tokenizer's own tokens are short, or words.
_TOKEN = re.compile(
    r"""(?P<before>["']token["']\s{0,3}:\s{0,3})["'](?=[^"'\s]*\d)[^"'\s]{12,}["']""", re.IGNORECASE
)
_FLAG = re.compile(rf"(?P<before>--?(?:{_NAME}|token)(?:\s+|=)){_VALUE}", re.IGNORECASE)
_NONE = re.compile(r"""^["']?(?:none|null|true|false|\*\*\*|\d{1,3})["']?$""", re.IGNORECASE)


def may_hold_secret(name: str) -> bool:
    """Whether a variable is better left out of what is stored, for its name speaks of secrets."""
    return _PERHAPS.search(name) is not None


def holds_secret(name: str) -> bool:
    """Whether a variable or a flag holds a secret by its name, such as ``HF_TOKEN`` or ``api_key``."""
    return _SURELY.search(name) is not None and not name.startswith(_HARMLESS)


def speaks_of_secrets(name: str) -> bool:
    """Whether a variable could hold a secret, however remotely; none is stored of the surroundings."""
    return _REMOTELY.search(name) is not None


def assigned_secret(words: Iterable[str]) -> str | None:
    """Name what is given a secret among the words of a command: ``HF_TOKEN=...``, ``--api-key ...``."""
    words = list(words)
    for word, following in zip(words, [*words[1:], "-"], strict=False):
        is_flag = word.startswith("--") and not following.startswith("-")
        if is_flag and holds_secret(word.lstrip("-").replace("-", "_")):
            return word
        name, equals, value = word.lstrip("-").partition("=")
        inner = value.partition("=")[0] if "=" in value else ""
        for found in (name, inner):
            if equals and found and holds_secret(found.replace("-", "_")):
                return found
        if has_password(word):
            return name if equals else "a URL"
        if is_secret(word):
            return name if equals else "a word"
    return None


def has_password(text: str) -> bool:
    """Return whether a text holds a URL with a password in it."""
    return bool(masked(text) != text)


def is_secret(text: str) -> bool:
    """Return whether a text holds what has the form of a secret by itself, whatever it is given to."""
    return has_password(text) or _without_forms(text) != text


def gives_secret(text: str) -> bool:
    """Return whether a text, such as JSON, holds a secret by its form or by the name that it is given to."""
    return redacted(text, {}) != text


def masked(content: Any) -> Any:
    """Return the same text, list or mapping, at any depth, with every URL's password replaced."""
    if isinstance(content, str):
        without = _URL_PASSWORD.sub(rf"\g<before>{_MASK}@", content)
        return _URL_PARAMETER.sub(rf"\g<before>{_MASK}", without) if "://" in content else without
    if isinstance(content, Mapping):
        return {name: masked(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [masked(value) for value in content]
    return content


def redacted(text: str, environment: Mapping[str, str], *, known: Iterable[str] = ()) -> str:
    """Return a text with its secrets masked.

    An engine may say in its last words what it was given, and those words are stored.

    Args:
        text: What was said.
        environment: The values of its secrets are masked, and the passwords in its URLs.
        known: Further secrets, such as the key of a server.

    Returns:
        The text without these, without passwords in URLs, without what has the form of a token, and without
        what is given to a name that speaks of a secret (``--api-key X``, ``password='x'``).
    """
    return without(text, secrets_of(environment, known=known))


def secrets_of(environment: Mapping[str, str], *, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the secrets of an environment that ``without`` masks, the longest first.

    Args:
        environment: The values of its secrets, and the passwords in its URLs.
        known: Further secrets, such as the key of a server.
    """
    values = set(known)
    for name, value in environment.items():
        if _is_secret_variable(name):
            values.add(value)
        values.update(_passwords_in(value))
    return tuple(sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True))


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text as ``redacted`` does, of which these secrets are known: what ``secrets_of`` returned."""
    for value in secrets:
        text = text.replace(value, _MASK)
    text = _without_forms(masked(text))
    for pattern in (_GIVEN, _FLAG, _TOKEN):
        text = pattern.sub(_without_value, text)
    return text


def _without_forms(text: str) -> str:
    text = _URL_TOKEN.sub(rf"\g<before>{_MASK}@", text)
    text = _SHAPES.sub(_MASK, text)
    return _SCHEME.sub(rf"\g<before>{_MASK}", text)


@lru_cache(maxsize=1024)
def _is_secret_variable(name: str) -> bool:
    return name not in _NO_SECRETS and (holds_secret(name) or _VALUED.search(name) is not None)


@lru_cache(maxsize=1024)
def _passwords_in(value: str) -> tuple[str, ...]:
    found = _URL_PASSWORD.search(value)
    return () if found is None else (value[found.end("before") : found.end() - 1],)


def _without_value(found: re.Match[str]) -> str:
    before = found.group("before")
    value = found.group()[len(before) :]
    return found.group() if _NONE.match(value) else f"{before}{_MASK}"
