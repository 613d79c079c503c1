"""Files in which a line is a row: JSON lines and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from sweeper.errors import ConfigError

# Of the whole process: Python's own limit of 131,072 letters is less than a long prompt has.
csv.field_size_limit(2**31 - 1)


def numbered(text: str) -> list[tuple[int, str]]:
    """Return the lines in which something stands, each with its number, from 1.

    Line feeds alone end a line: what ``str.splitlines`` takes for an end beside them (U+2028, U+0085 and
    others) stands as it is in texts of JSON.
    """
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def csv_rows(
    lines: Iterable[tuple[int, str]], *, where: str, separator: str = ","
) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row of a CSV with the number of the line that it begins in.

    Args:
        lines: Each with its number. A cell in double quotes may go over several.
        where: Names the file in a message.
        separator: Between cells.

    Raises:
        ConfigError: A quote is not closed, which would swallow all rows below in silence, or ends early.
    """
    begun: list[int] = []

    def read() -> Iterator[str]:
        for number, line in lines:
            begun.append(number)
            yield f"{line}\n"

    reader = csv.reader(read(), delimiter=separator, strict=True)
    while True:
        begun.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise ConfigError(
                f"{where}, line {begun[0]}: cannot be split into cells ({exc}); expected each double quote "
                'closed, and doubled ("") inside a cell. Mend the line.'
            ) from exc
        yield begun[0], cells
