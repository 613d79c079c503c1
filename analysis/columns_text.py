"""A table as plain lines within a width, for a terminal and a log alike: nothing that is a number is cut.

Heads are broken over lines at spaces and underscores. A table that is too wide still goes on in a second
block under the first, whose lines begin with the same column.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

_GAP = "  "
_WIDEST_TEXT = 28
_LOW_HEAD = 3


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        head: Its head.
        cells: A text per row.
        is_number: Cells stand right and are never broken.
    """

    head: str
    cells: tuple[str, ...]
    is_number: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether no row has anything to say."""
        return not any(self.cells)


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """A column whose texts are broken into lines of one width."""

    width: int
    pieces: list[str]
    cells: list[list[str]]
    is_number: bool

    @property
    def head(self) -> list[str]:
        return _head(self.pieces, self.width)

    @property
    def wider(self) -> _Laid:
        """The least width at which the head has fewer lines."""
        found = self
        while len(found.head) == len(self.head):
            found = replace(found, width=found.width + 1)
        return found

    def line(self, text: str) -> str:
        return text.rjust(self.width) if self.is_number else text.ljust(self.width)


def lines(groups: Sequence[Sequence[Column]], *, width: int) -> list[str]:
    """Lay a table out.

    Args:
        groups: Columns; those of a group stay in one block where they have room. The first column of the
            first group begins every block.
        width: Of a line, in characters; a column that is wider by itself is given its room all the same.
    """
    laid = [[_laid(column) for column in group] for group in groups]
    lead = laid[0][0]
    whole = [one for group in laid for one in group]
    if _width(whole) <= width:
        return _block(whole, width)
    blocks = [[lead, *part] for group in (laid[0][1:], *laid[1:]) for part in _parts(lead, group, width)]
    found: list[str] = []
    for block in blocks:
        found += ([""] if found else []) + _block(block, width)
    return found


def _parts(lead: _Laid, group: Sequence[_Laid], width: int) -> list[list[_Laid]]:
    parts: list[list[_Laid]] = []
    for column in group:
        if parts and _width([lead, *parts[-1], column]) <= width:
            parts[-1].append(column)
        else:
            parts.append([column])
    return parts


def _width(columns: Sequence[_Laid]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _with_low_heads(columns: Sequence[_Laid], width: int) -> list[_Laid]:
    """Use the room that is left for heads of fewer lines, the highest first."""
    found = list(columns)
    while True:
        place = max(range(len(found)), key=lambda place: len(found[place].head))
        if len(found[place].head) <= _LOW_HEAD:
            return found
        wider = [*found[:place], found[place].wider, *found[place + 1 :]]
        if _width(wider) > width:
            return found
        found = wider


def _block(columns: Sequence[_Laid], width: int) -> list[str]:
    columns = _with_low_heads(columns, width)
    heads = max(len(column.head) for column in columns)
    padded = [[""] * (heads - len(column.head)) + column.head for column in columns]
    found = [
        _joined(column.line(head) for column, head in zip(columns, line, strict=True))
        for line in zip(*padded, strict=True)
    ]
    found.append(_joined("-" * column.width for column in columns))
    for row in zip(*(column.cells for column in columns), strict=True):
        found += [
            _joined(column.line(text) for column, text in zip(columns, texts, strict=True))
            for texts in zip_longest(*row, fillvalue="")
        ]
    return found


def _joined(texts: Iterable[str]) -> str:
    return _GAP.join(texts).rstrip()


def _laid(column: Column) -> _Laid:
    pieces = [piece for piece in re.split(r"(?<=_)| ", column.head) if piece]
    widest = max((len(cell) for cell in column.cells), default=0)
    room = widest if column.is_number else min(widest, _WIDEST_TEXT)
    width = max(room, *(len(piece) for piece in pieces), 1)
    return _Laid(
        width=width,
        pieces=pieces,
        cells=[[cell] if column.is_number else textwrap.wrap(cell, width) or [""] for cell in column.cells],
        is_number=column.is_number,
    )


def _head(pieces: Sequence[str], width: int) -> list[str]:
    """Fill lines with the pieces of a head; what ends in an underscore is joined without a space."""
    found: list[str] = []
    for piece in pieces:
        space = "" if not found or found[-1].endswith("_") else " "
        if found and len(found[-1]) + len(space) + len(piece) <= width:
            found[-1] += space + piece
        else:
            found.append(piece)
    return found
