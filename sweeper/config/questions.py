"""Questions that engines are asked before their loads, checked: ``accuracy.*``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.config.checks import check_positive
from sweeper.errors import ConfigError
from sweeper.records import Questions
from sweeper.records.text_rows import numbered

_KEYS = ("question", "answer")


def of(given: Mapping[str, Any]) -> Questions | None:
    """Return the questions that are asked; None where none are.

    Raises:
        ConfigError: A value is wrong, or a line of the file is.
    """
    path, task = given["path"], given["task"]
    if path is None and task is None:
        return None
    if path is not None and task is not None:
        raise ConfigError(
            "accuracy: names path and task; expected one of them: a file of questions, or a task of lm-eval."
        )
    for name in ("limit", "max_tokens", "timeout_s"):
        if given[name] is not None:
            check_positive(f"accuracy.{name}", given[name])
    return Questions(
        path=None if path is None else str(Path(path).absolute()),
        digest=None if path is None else _digest(Path(path)),
        task=task,
        limit=given["limit"],
        max_tokens=given["max_tokens"],
        timeout_s=given["timeout_s"],
        python=given["python"],
    )


def _digest(path: Path) -> str:
    """Check each line of a file, and return what its content hashes to."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"accuracy.path: {path} cannot be read ({exc.strerror}); expected a file with an object a line, "
            '{"question": "2+3=", "answer": "5"}. Correct the path.'
        ) from exc
    lines = numbered(content.decode("utf-8", "replace"))
    for number, line in lines:
        _check_line(f"{path}, line {number}", line)
    if not lines:
        raise ConfigError(f"accuracy.path: {path} is empty; expected questions. Write some.")
    return hashlib.sha256(content).hexdigest()


def _check_line(where: str, line: str) -> None:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    is_whole = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in _KEYS)
    if not is_whole or not entry["question"] or not entry["answer"].strip():
        raise ConfigError(
            f"{where}: is {line[:60]!r}; expected an object with the texts question and answer, such as "
            '{"question": "2+3=", "answer": "5"}. Correct the line.'
        )
    if entry["answer"] != entry["answer"].strip() or "\n" in entry["answer"]:
        raise ConfigError(
            f"{where}: its answer is {entry['answer']!r}; expected one line without blanks around it, as "
            "answers are compared. Correct the line."
        )
