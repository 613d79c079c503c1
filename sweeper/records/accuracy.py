"""Questions that a running engine is asked before its loads: whether a faster setting still answers right."""

from __future__ import annotations

from dataclasses import dataclass

ACCURACY_COLUMNS = (
    *("accuracy", "accuracy_low", "accuracy_high", "accuracy_questions", "accuracy_of", "accuracy_right"),
)
"""Columns of the store that say how it answered."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked, and by what.

    Attributes:
        path: File of questions and answers, a JSON object a line; None asks a task of lm-eval's own.
        digest: Of that file's content; None for a task.
        task: Name of a task of lm-eval's own; None for a file.
        limit: Questions asked, the first ones; None asks all.
        max_tokens: Of an answer to a question of the file.
        timeout_s: Until all are answered.
        python: Interpreter of lm-eval's environment; None is yet to be found.
        version: Of lm-eval there.
    """

    path: str | None = None
    digest: str | None = None
    task: str | None = None
    limit: int | None = None
    max_tokens: int = 16
    timeout_s: float = 1800.0
    python: str | None = None
    version: str | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What tells these questions from others, wherever their file lies."""
        of_file = {} if self.task is not None else {"max_tokens": self.max_tokens}
        return {"task": self.task, "digest": self.digest, "limit": self.limit, **of_file}

    @property
    def name(self) -> str:
        """What is asked, in words: the file's name with its content, or the task."""
        first = "" if self.limit is None else f", the first {self.limit}"
        if self.task is not None:
            return f"{self.task}{first}"
        return f"{(self.path or '').rpartition('/')[2]} {(self.digest or '')[:12]}{first}"
