"""Tables in Markdown, as reports, pages of the documentation and notes of the dashboard have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, rule: Sequence[str] | None = None
) -> str:
    """Write a table in Markdown, without a line feed at its end.

    Args:
        heads: Names of the columns.
        rows: Their cells, which are Markdown already.
        rule: Signs of alignment, one for each column (``---:`` stands right); None leaves all to the left.
    """
    line = f"|{'---|' * len(heads)}" if rule is None else _line(rule)
    return "\n".join([_line(heads), line, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
