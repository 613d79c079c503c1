"""What amd-smi prints on a node of eight MI300X in any mode, and an amd-smi on PATH that prints it.

No output here was captured. Each is written to what is said of its release:

- ``static`` and ``list``: fields and nesting as in tests/recorded (see its README), which agree with the
  models of AMD's own reader, amd-node-scraper 1.2.0 (AmdSmiListItem, StaticNuma, StaticPartition).
- The pairs of modes: DPX/NPS2 with N/A on the second partition as in AMD SMI's conceptual guide "GPU
  partitioning" (docs-10.2.0), CPX/NPS4 as in AMD's "Quick Start Guide to Partitioning MI300X GPUs".
- ``partition --current``: ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py; ``static`` without its partition
  section, as from amd-smi 26.0.0 on.
- Errors: AMD's "Troubleshooting" for partitions (NO_PERM), and amd-smi's line without a driver.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.topology import Answer

SPLIT = {"SPX": 1, "DPX": 2, "QPX": 4, "CPX": 8}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A whole GPU as amd-smi tells of it; partitions by mode."""

    name: str
    units: int
    memory_mib: int
    split: Mapping[str, int]


MI300X = Gpu(name="AMD Instinct MI300X", units=304, memory_mib=196592, split=SPLIT)
MI325X = Gpu(name="AMD Instinct MI325X", units=304, memory_mib=262128, split=SPLIT)
# Six XCDs, and four of 20 units: modes as in Linux, aqua_vanjaram.c.
MI300A = Gpu(name="AMD Instinct MI300A", units=228, memory_mib=131072, split={"SPX": 1, "TPX": 3, "CPX": 6})
MI308X = Gpu(name="AMD Instinct MI308X", units=80, memory_mib=196592, split={"SPX": 1, "DPX": 2, "CPX": 4})
BUSES = ("05", "26", "46", "65", "85", "a6", "c6", "e5")

NO_PERMISSION = Answer(
    exit_status=1,
    stdout="",
    stderr="amdsmi.amdsmi_exception.AmdSmiLibraryException: Error code:\n"
    "10 | AMDSMI_STATUS_NO_PERM - Permission Denied\n",
)
NO_DRIVER = Answer(
    exit_status=255,
    stdout="",
    stderr="ERROR:root:Unable to detect any GPU devices, check amdgpu version and module status "
    "(sudo modprobe amdgpu)\n",
)

Rows = list[dict[str, Any]]


def listed(mode: str, *, of: Gpu = MI300X) -> Rows:
    """Rows of ``amd-smi list -e --json``."""
    split = of.split[mode]
    return [
        {
            "gpu": gpu * split + part,
            "bdf": f"0000:{bus}:00.{part}",
            "uuid": f"74a1{part:02x}ff-0000-1000-80{gpu:02x}-a0b1c2d3e400",
            "kfd_id": 10000 + gpu * split + part,
            "node_id": 2 + gpu * split + part,
            "partition_id": part,
            "hip_id": gpu * split + part,
            "hip_uuid": f"GPU-a0b1c2d3e4f5{gpu:02x}{part:02x}",
        }
        for gpu, bus in enumerate(BUSES)
        for part in range(split)
    ]


def static(
    mode: str, memory_mode: str, *, siblings_tell: bool = True, has_modes: bool = True, of: Gpu = MI300X
) -> Rows:
    """Rows of ``amd-smi static --json``; siblings of the first partition may answer N/A."""
    split = of.split[mode]
    rows: Rows = []
    for gpu in range(8):
        for part in range(split):
            tells = siblings_tell or part == 0
            row = {
                "gpu": gpu * split + part,
                "asic": {
                    "market_name": of.name if tells else "N/A",
                    "num_compute_units": of.units // split if tells else "N/A",
                    "target_graphics_version": "gfx942",
                },
                "driver": {"name": "amdgpu", "version": "6.12.12"},
                "numa": {"node": gpu // 4, "affinity": gpu // 4},
                "vram": {"type": "HBM3", "size": {"value": of.memory_mib // split, "unit": "MB"}},
            }
            if has_modes:
                row["partition"] = {
                    "accelerator_partition": mode if tells else "N/A",
                    "memory_partition": memory_mode if tells else "N/A",
                    "partition_id": part,
                }
            rows.append(row)
    return rows


def current(mode: str, memory_mode: str) -> str:
    """What ``amd-smi partition --current --json`` prints: only first partitions tell the mode."""
    rows = [
        {
            "gpu_id": row["gpu"],
            "memory": memory_mode if row["partition_id"] == 0 else "N/A",
            "accelerator_type": mode if row["partition_id"] == 0 else "N/A",
            "accelerator_profile_index": 3 if row["partition_id"] == 0 else "N/A",
            "partition_id": row["partition_id"],
        }
        for row in listed(mode)
    ]
    return json.dumps({"current_partition": rows})


def outputs(mode: str, memory_mode: str, *, of: Gpu = MI300X) -> dict[str, str | Answer]:
    """Everything that is asked of amd-smi, by the beginning of the arguments."""
    return {
        "list": json.dumps(listed(mode, of=of)),
        "static": json.dumps({"gpu_data": static(mode, memory_mode, of=of)}),
        "version": json.dumps([{"tool": "AMDSMI Tool", "rocm_version": "7.0.2"}]),
    }


def install(folder: Path, answers: Mapping[str, str | Answer], *, hangs: str | None = None) -> Path:
    """Write an executable amd-smi that gives these answers, and return the folder to put on PATH.

    Args:
        folder: Where it is written.
        answers: What it prints, by the first of its arguments; ``""`` answers everything else.
        hangs: First argument on which it never ends, with a child that holds its output open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = [f"{hangs}) sleep 600 & wait;;"] if hangs else []
    for word, given in answers.items():
        answer = given if isinstance(given, Answer) else Answer(exit_status=0, stdout=given)
        for stream, text in (("out", answer.stdout), ("err", answer.stderr)):
            (folder / f"{word}.{stream}").write_text(text, encoding="utf-8")
        out, err = (shlex.quote(str(folder / f"{word}.{stream}")) for stream in ("out", "err"))
        cases.append(f"{word or '*'}) cat {out}; cat {err} >&2; exit {answer.exit_status};;")
    cases.append("*) echo unknown command >&2; exit 2;;")
    tool = folder / "amd-smi"
    tool.write_text("#!/bin/sh\ncase $1 in\n" + "\n".join(cases) + "\nesac\n", encoding="utf-8")
    tool.chmod(0o755)
    return folder
