"""Text inside Markdown: what people and engines wrote stays text, whatever of Markdown or HTML it holds.

Reports and articles are read on pages that render HTML and mathematics; a label must not become either.
Only what would act is escaped, so that the source stays readable: an underscore within a word does nothing.
"""

from __future__ import annotations

import html
import re

from sweeper.text.printable import legible

# A backslash acts before punctuation only, "<" before a tag's name, "&" before a name and ";", an underscore
# at the edge of a word.
_ACTS = re.compile(
    r"\\(?=[!-/:-@\[-`{-~])|[`*\[\]|$]|~~|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])"
)
# At the start of a line: a heading, a quote, a list, a rule, a table's rule.
_BEGINS = re.compile(r"^\s*(?:#{1,6}(?=\s|$)|>|[-+](?=\s|$)|={2,}|-{3,}|\d+(?=[.)]\s))")


def escaped(text: object) -> str:
    """Return a text of one line as Markdown that shows it; unprintable characters appear as codes."""
    shown = _ACTS.sub(lambda match: "".join(map(_safe, match[0])), legible(text).strip())
    begins = _BEGINS.match(shown)
    if begins is None:
        return shown
    place = begins.end() - (0 if begins[0][-1:].isdigit() else len(begins[0].lstrip()))
    return f"{shown[:place]}\\{shown[place:]}"


def code_block(text: str, *, language: str = "bash") -> str:
    """Fence a text; the fence is longer than any in the text."""
    runs = [len(run) for run in re.findall(r"`{3,}", text)]
    fence = "`" * (max(runs, default=2) + 1)
    return f"{fence}{language}\n{legible(text, keep=chr(10) + chr(9))}\n{fence}"


def bare(text: str) -> str:
    """Return a sentence of ours as plain text: without emphasis, and without what ``escaped`` put in."""
    plain = re.sub(r"\*\*|(?<!\\)`", "", text)
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", plain))


def _safe(sign: str) -> str:
    return {"<": "&lt;", "&": "&amp;"}.get(sign, f"\\{sign}")
