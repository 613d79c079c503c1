"""Reads a page of Prometheus metrics, as far as an engine's own is concerned. Pure reading, no I/O.

Tests compare it with ``prometheus_client.parser``, which is not used here. Telemetry reads a page every
second in parallel with the load, where that parser takes five times the processor time; and one malformed
line, which the error page of a proxy has, costs it the whole page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

Samples = list[tuple[str, dict[str, str], float]]
"""Name, labels and value of each sample, in the order of the page."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r'\\([\\n"])')


def samples(text: str) -> Samples:
    """Read the samples of a page; other lines are passed over."""
    return list(_parse(text))


def values(found: Samples, names: Iterable[str]) -> list[float]:
    """Return the values of the samples with these names, whatever their labels."""
    known = set(names)
    return [value for name, _, value in found if name in known]


def _parse(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        yield match[1], {name: _plain(label) for name, label in _LABEL.findall(match[2] or "")}, value


def _plain(label: str) -> str:
    return _ESCAPED.sub(lambda match: match[1].replace("n", "\n"), label)
