"""The kernels of a trial's engine, out of its log once it has ended: only then is every line of it there.

An engine warns of shapes without tuned kernels while it is loaded, so its start tells too little. They are
also listed in a file next to the log, as whoever tunes them needs them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sweeper import knobs
from sweeper.engines import Server
from sweeper.engines.kernels import NEEDLES, UntunedShape, read_kernels
from sweeper.engines.shared import LogParts, SharedServer
from sweeper.kinds import ENGINES
from sweeper.records import Scalar, TrialSpec

SHAPES_SUFFIX = ".untuned.csv"
"""Of the file with the untuned shapes, in place of the log's ``.log``."""

# A log that is longer says nothing new of kernels behind this; lines are cut, as a configuration has less.
_MOST_BYTES = 256 * 2**20
_LONGEST_LINE = 100_000


def kernels_of(server: Server, spec: TrialSpec) -> dict[str, Scalar]:
    """Return the columns ``kernel_*`` of one start of vLLM that has ended; empty for any other engine.

    Writes the untuned shapes, where there are any, next to the log. What cannot be read or written is left
    out: a trial's numbers do not depend on it.
    """
    if server.log_path is None or not ENGINES[spec.engine.kind].takes_vllm_flags:
        return {}
    log = Path(server.log_path)
    try:
        kernels = read_kernels(_telling_lines(log, _parts_of(server)))
    except OSError:
        return {}
    if kernels.untuned:
        with suppress(OSError):
            _shapes_path(server, log, spec).write_text(shapes_csv(kernels.untuned), encoding="utf-8")
    return {**kernels.columns, **_aiter(log, spec)}


def together(starts: Sequence[Mapping[str, Scalar]]) -> dict[str, Scalar]:
    """Return what several starts of one trial told: what they share, or each of it where they differ.

    Counts are the highest; a warning counts where any start had it.
    """
    names = dict.fromkeys(name for start in starts for name in start)
    return {name: _shared([start[name] for start in starts if name in start]) for name in names}


def shapes_csv(shapes: Iterable[UntunedShape]) -> str:
    """Write untuned shapes as CSV: ``kind,table,shape,times``."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("kind", "table", "shape", "times"))
    rows.writerows((shape.kind, shape.table, shape.shape, shape.times) for shape in shapes)
    return text.getvalue()


def _shared(values: list[Scalar]) -> Scalar:
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different[0]
    if all(isinstance(value, bool | int) for value in different):
        return max(different, key=lambda value: int(value))
    return " | ".join(map(str, different))


def _shapes_path(server: Server, log: Path, spec: TrialSpec) -> Path:
    """Return where the shapes go: next to the log, or with a trial that has no log of its own."""
    path = log.with_suffix(SHAPES_SUFFIX)
    return Path(spec.folder) / path.name if isinstance(server, SharedServer) else path


def _parts_of(server: Server) -> LogParts:
    """Return where a log tells of the trial: everywhere, or at the shared start and since the trial began."""
    return server.log_parts if isinstance(server, SharedServer) else ((0, None),)


def _telling_lines(log: Path, parts: LogParts) -> str:
    """Return the lines of a log that may name a kernel; those of requests, by far the most, do not."""
    kept, seen = [], 0
    with log.open("rb") as lines:
        for first, end in parts:
            lines.seek(first)
            for line in lines:
                seen += len(line)
                text = line.decode(errors="replace")
                if any(needle in text for needle in NEEDLES):
                    kept.append(text[:_LONGEST_LINE])
                if seen > _MOST_BYTES or (end is not None and first + seen >= end):
                    break
    return "".join(kept)


def _aiter(log: Path, spec: TrialSpec) -> dict[str, Scalar]:
    """Return AITER's switches as the engine's own environment set them; empty on any other GPU."""
    if knobs.accelerator_of(str(spec.platform)) != "rocm":
        return {}
    try:
        environment = json.loads(log.with_suffix(".command.json").read_text(encoding="utf-8"))["environment"]
    except (OSError, ValueError, KeyError):
        return {}
    switches = knobs.aiter_switches(spec.engine.release, environment)
    if switches is None:
        return {}
    return {"kernel_aiter": switches.is_on, "kernel_aiter_switches": ", ".join(switches.on)}
