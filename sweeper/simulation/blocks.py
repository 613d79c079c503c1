"""What blocks of the KV cache are known by, in both of vLLM's schedulers."""

from __future__ import annotations

Key = tuple[int, int]
"""What is in a block: the piece of a prompt that its last token belongs to, and its number in the prompt."""


class Pieces:
    """Gives numbers to pieces of prompts that nothing else has."""

    def __init__(self) -> None:
        self._next_piece = -1

    def own_pieces(self, count: int) -> int:
        """Return the first of so many numbers of pieces that nothing else has; the others are below it."""
        first = self._next_piece
        self._next_piece -= count
        return first
