"""The page as one file: the data of a study, with the styles and the scripts of this folder."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from analysis import style
from analysis.browser.contents import contents
from analysis.browser.plain import Plain
from analysis.study import Study
from sweeper.text.writing import write_answer

FILE = "report.html"

_SCRIPTS = ("draw.js", "charts.js", "page.js")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "connect-src {connects}; base-uri 'none'; form-action 'none'"
)
"""What the browser lets the page do: nothing beyond itself, whatever a label should hold."""


def write(study: Study) -> Path:
    """Write a study's ``report.html``, and return its path.

    Raises:
        AnswerError: It cannot be written.
    """
    return write_answer(study.folder / FILE, page(contents(study)))


def page(told: Plain, *, refreshed_from: str = "") -> str:
    """Return the page.

    Args:
        told: What ``contents`` gave.
        refreshed_from: Path on the page's own server that returns it anew, as JSON, while a study runs;
            empty for a page that stands by itself.
    """
    return Template(_part("page.html")).substitute(
        policy=_POLICY.format(connects="'self'" if refreshed_from else "'none'"),
        title=escape(str(told["title"])),
        band=escape(str(told["band"])),
        styles=_part("page.css"),
        sheets=_sheets(str(told["band"])),
        scripts="\n".join(map(_part, _SCRIPTS)),
        data=embedded(told),
        look=embedded(_look()),
        source=embedded(refreshed_from),
    )


def embedded(content: Any) -> str:
    """Return JSON that may stand within a script: no text of it can end the script or begin a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _sheets(band: str) -> str:
    """Return the rule that prints the band at the top of every sheet, where the browser has such rules."""
    said = f"content: {json.dumps(band)}; font: 700 9px sans-serif"
    return f"@page {{ @top-center {{ {said}; }} }}" if band else ""


def _look() -> Plain:
    """Return the colours of our charts, so that page and pictures agree."""
    return {
        "colours": style.COLOURS,
        "ink": style.INK,
        "faint": style.FAINT_INK,
        "grid": style.GRID,
        "failed": style.FAILED,
        "pale": style.PALE,
    }


@cache
def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
