"""Addresses as people give them: what is one, and what lies below it.

A URL may carry a password. It reaches the driver that asks for it and nothing else: whatever is written
down or printed goes through ``confidential.masked`` first.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def is_url(text: str) -> bool:
    """Tell a URL from the path of a folder."""
    return re.match(r"[A-Za-z][\w+.-]*://", text) is not None


def below(url: str, name: str) -> str:
    """Return the URL of what lies directly below another; parameters behind a '?' stay behind it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))
