"""Addresses as people give them: what lies below one, and what of it must not be shown.

A URL may carry a password. It reaches the driver that asks for it and nothing else: whatever is written
down or printed goes through ``masked`` first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_MASK = "***"
# What stands between the first ':' after '://' and the '@' before the host; it may hold a '/'.
_PASSWORD = re.compile(r"(?P<before>[A-Za-z][\w+.-]*://[^:/@\s]*:)(?P<password>[^@\s]+)@")
_SECRET_PARAMETER = re.compile(
    r"(?P<before>[?&][^=&\s]*(?:password|passwd|secret|token|signature|access_key|account_key|sig)[^=&\s]*=)"
    r"[^&\s]+",
    re.IGNORECASE,
)


def is_url(text: str) -> bool:
    """Tell a URL from the path of a folder."""
    return re.match(r"[A-Za-z][\w+.-]*://", text) is not None


def below(url: str, name: str) -> str:
    """Give the URL of what lies directly below another; parameters behind a '?' stay behind it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def has_password(text: str) -> bool:
    """Tell whether a text holds a URL with a password in it."""
    return bool(masked(text) != text)


def masked(content: Any) -> Any:
    """Give the same content, text or nested lists and mappings of it, with every password replaced."""
    if isinstance(content, str):
        without = _PASSWORD.sub(rf"\g<before>{_MASK}@", content)
        return _SECRET_PARAMETER.sub(rf"\g<before>{_MASK}", without) if "://" in content else without
    if isinstance(content, Mapping):
        return {name: masked(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [masked(value) for value in content]
    return content
