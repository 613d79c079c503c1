"""The table of faults, as the documentation holds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.rows import ROWS, Row
from tests.faults.studies import Seen

TABLE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"

_HEAD = """\
# What becomes of a study under a fault

Written by `make faults`, which strikes each fault on real processes: the program as its user runs it, real
supervisors and sockets, a small server in vLLM's place (`tests/faults/faulty_vllm.py`), and Ray where the
executor says so. Every row is a test. Beside what the columns tell, each one shows that what is stored of
finished trials stays as it was, and that every number in the store belongs to the engine that its knobs name:
the stand-in reports its own setting as its throughput. Devices of a failed trial serve others afterwards.

* **class, line**: what the trial's row says; a cut-off study leaves no row, for that is no finding.
* **gone after**: seconds until no process of the trial lived, from the blow; for engines that fail by
  themselves from the end of the run; where the driver ended, of the study, but for
  the driver itself, which on SIGTERM and SIGINT still draws its report. Seen once, beside other work;
  expected within 10 s, and the test allows 30 s for machines that are busy, 90 s on Ray: beside two other
  busy programs something of a study whose driver was killed was there for 62 s once; it is not known what.
* **repeated**: by the same run (transient failures), by the same command (cut-off studies), or by the same
  command with `retry_failed=true` (all others, which come out the same until something is changed).

What bounds the waiting, each by its key and in seconds:

| stage | key | default | past it |
|---|---|---|---|
| nobody on the devices, under 2 GiB used of a whole GPU | `engine.free_timeout_s` | 120 | infrastructure |
| the process that watches over a program is up | `engine.launch_timeout_s` | 60 | infrastructure |
| the server listens | `engine.start_timeout_s` | 3600 | start_timeout |
| it says that it is healthy | `engine.ready_timeout_s` | 600 | start_timeout |
| it answers one greedy question | `engine.sanity_timeout_s` | 120 | wrong_answer |
| the client has imported what it needs | `client.start_timeout_s` | 600 | client |
| warm-up | `engine.warmup_timeout_s` | 1800 | hang |
| one load | `engine.load_timeout_s` | 7200 | hang |
| from SIGTERM to SIGKILL (never ready: 5 s at most) | `engine.stop_timeout_s` | 60 | killed |

Failures of class port and infrastructure are repeated by the same run, up to `max_attempts` (2) in all, after
`retry_pause_s` (10), which doubles each time. For as long, devices on which a trial met trouble (class
infrastructure) are given to nobody; others serve meanwhile. The next run of the same command tries those that
are left once more, of a grid and of a search alike; a search spends nothing of its budget on that.

What is not there:

* Rows that say "not run" have not been seen to pass as they stand.
* The stand-in for nvidia-smi tells no processes and no memory, so that the wait for free devices is over at
  once here; it has tests of its own (`tests/topology/test_free_devices.py`, `tests/trial/test_proof.py`).
* vLLM itself is struck in `tests/test_end_to_end.py` (SIGKILL of the driver), not here.

| fault | executor | class | line | gone after | repeated | exit codes |
|---|---|---|---|---|---|---|
"""


def as_markdown(told: Mapping[int, Seen]) -> str:
    """Write the table of what was seen, in the order of the rows."""
    return _HEAD + "".join(_line(row, told.get(id(row))) for row in ROWS)


def rows_in(text: str) -> list[tuple[str, str]]:
    """Read fault and executor of each row of the table."""
    lines = text[text.index("| fault |") :].splitlines()[2:]
    return [(cells[1].strip(), cells[2].strip()) for line in lines if (cells := line.split("|"))[1:]]


def _line(row: Row, seen: Seen | None) -> str:
    if seen is None:
        return f"| {row.fault} | {row.where} | not run when this was written | | | | |\n"
    by = "the same run" if row.is_repeated else "the same command"
    if row.failure is not None and not row.is_repeated:
        by = "`retry_failed=true`"
    if row.failure is None and seen.exits == (0,):
        by = "not needed"
    line = " ".join(seen.line.split()).replace("|", "\\|")
    short = line if len(line) <= 110 else f"{line[:107]}..."
    gone = "" if seen.gone_s is None else f"{seen.gone_s:.1f} s"
    exits = ", then ".join(map(str, seen.exits))
    return f"| {row.fault} | {row.where} | {seen.failure or ''} | {short} | {gone} | {by} | {exits} |\n"
