"""The fault matrix: every fault, where it strikes, and what has to become of its trial.

The tests in this package show each row on real processes; docs/faults.md is written by them.
"""

from __future__ import annotations

from dataclasses import dataclass

SIGNALS = {"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2}
VICTIMS = ("API server", "engine core", "supervisor", "doorkeeper", "client")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        fault: What goes wrong.
        where: Executor of the study.
        failure: Class in the trial's row; None where a study is cut off, which is no finding on a trial.
        line: Part of the message in that row.
        exits: Exit codes of the commands of the study, in order.
        is_repeated: Whether the same run repeats the trial by itself.
    """

    fault: str
    where: str = "inline"
    failure: str | None = None
    line: str = ""
    exits: tuple[int, ...] = (1, 0)
    is_repeated: bool = False


def _killed(victim: str) -> list[Row]:
    failure = "client" if victim == "client" else "crash"
    lines = {"engine core": "EngineDeadError", "client": "client: its process"}
    return [
        Row(
            fault=f"{name} of the {victim}, in the load", failure=failure, line=lines.get(victim, "last line")
        )
        for name in SIGNALS
    ]


ENGINE_ROWS = (
    Row(fault="hang at start", failure="start_timeout", line="does not listen after 40 s"),
    Row(fault="hang in the load", failure="hang", line="last line: serving with max_num_seqs=2"),
    Row(fault="out of memory at start", failure="out_of_memory", line="HIP out of memory. Tried to allocate"),
    Row(fault="death in mid-load", failure="out_of_memory", line="HIP out of memory. Tried to allocate"),
    Row(fault="other settings than asked", failure="wrong_engine", line="max_num_seqs: asked 5, runs 999"),
    Row(fault="empty answers", failure="wrong_answer", line="text ''"),
    Row(fault="another answer after the load", failure="wrong_answer", line="and with ' Rome' after it"),
    Row(fault="port taken", failure="port", line="Address already in use", is_repeated=True),
    Row(fault="foreign server on the port", failure="port", line="is held by processes", is_repeated=True),
    Row(fault="listens, and is never healthy", failure="start_timeout", line="is not healthy after 40 s"),
    *(row for victim in VICTIMS for row in _killed(victim)),
)

DRIVER_ROWS = (
    Row(fault="SIGKILL of the driver", exits=(137, 0)),
    Row(fault="a stale server of a killed run on its port", exits=(137, 0)),
    Row(fault="SIGTERM of the driver", exits=(143, 0)),
    Row(fault="SIGINT of the driver", exits=(130, 0)),
    Row(fault="SIGTERM of the driver, while an engine starts", exits=(143, 0)),
)

_RAY = {"where": "ray", "failure": "infrastructure", "is_repeated": True, "exits": (0,)}
RAY_ROWS = (
    Row(fault="SIGKILL of the driver", where="ray", exits=(137, 0)),
    Row(fault="SIGTERM of the driver", where="ray", exits=(143, 0)),
    Row(fault="SIGKILL of the Ray worker", line="worker of this trial was lost", **_RAY),  # type: ignore[arg-type]
    Row(fault="SIGTERM of the Ray worker", line="worker of this trial was lost", **_RAY),  # type: ignore[arg-type]
    # Ray blocks SIGINT in its workers and its raylet: nothing happens.
    Row(fault="SIGINT of the Ray worker", where="ray", exits=(0,)),
    Row(fault="SIGKILL of the raylet", line="worker of this trial was lost", **_RAY),  # type: ignore[arg-type]
    Row(fault="SIGTERM of the raylet", line="worker of this trial was lost", **_RAY),  # type: ignore[arg-type]
    Row(fault="SIGINT of the raylet", where="ray", exits=(0,)),
)

DISK_ROWS = (Row(fault="disk full when a trial is stored", exits=(4, 0)),)

ROWS = (*ENGINE_ROWS, *DRIVER_ROWS, *RAY_ROWS, *DISK_ROWS)
