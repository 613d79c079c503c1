"""Whether a model has a chat template, as far as a folder of this machine says."""

from __future__ import annotations

import json
from pathlib import Path


def lacks_chat_template(tokenizer: str) -> bool:
    """Return whether a tokenizer's folder is here and holds no chat template; False of a hub id.

    Source:
        transformers, "Chat templates": chat_template.jinja, the older chat_template.json, or the key
        ``chat_template`` of tokenizer_config.json.
    """
    folder = Path(tokenizer)
    if not folder.is_dir() or any((folder / f"chat_template.{kind}").exists() for kind in ("jinja", "json")):
        return False
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(told, dict) and told.get("chat_template"))
