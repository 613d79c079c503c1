"""Text as a chart can draw it: the one place through which labels and names reach the drawing library.

A label is text and nothing else: not mathematics between dollar signs (``style`` switches that off), not a
control character, and no sign without a glyph, which would be drawn as an empty box with a warning. A sign is
looked for in the font of all charts and then in fonts that this machine may have; where none has it, its code
is drawn instead.
"""

from __future__ import annotations

import textwrap
from functools import cache
from typing import Any

from sweeper.text.printable import escape, legible, shortened

FAMILY = "DejaVu Sans"
"""Comes with matplotlib, so a chart looks the same on every machine."""

LONGEST = 300
"""Characters of a label; of a longer one the middle is left out. The data beside a chart has it whole."""

# Fonts for what DejaVu Sans lacks, the widest first; whatever of them is installed is used.
_FALLBACKS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "Noto Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "IPAexGothic"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "FreeSans"),
    *("Noto Emoji", "Symbola", "Segoe UI Symbol", "Unifont"),
)


def drawn(text: object, *, most: int = LONGEST) -> str:
    """Return a text of one line as it is drawn; every sign of it has a glyph."""
    return shortened("".join(sign if _has_glyph(sign) else escape(sign) for sign in legible(text)), most)


def drawn_lines(text: object, *, width: int, most: int = LONGEST) -> list[str]:
    """Break such a text into lines of some characters; an empty text is one empty line."""
    return textwrap.wrap(drawn(text, most=most), width, break_on_hyphens=False) or [""]


@cache
def families() -> tuple[str, ...]:
    """Return the fonts of charts, in the order in which a glyph is looked for."""
    from matplotlib.font_manager import fontManager

    installed = {entry.name for entry in fontManager.ttflist}
    return (FAMILY, *(name for name in _FALLBACKS if name in installed))


@cache
def _has_glyph(sign: str) -> bool:
    if " " <= sign <= "~":
        return True
    return any(font.get_char_index(ord(sign)) for font in _fonts())


@cache
def _fonts() -> tuple[Any, ...]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return tuple(get_font(findfont(FontProperties(family=name))) for name in families())
