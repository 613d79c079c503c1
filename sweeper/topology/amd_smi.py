"""What amd-smi reports about each device, whichever release of it answers.

Its output is brought to one form here, device by device; what one device leaves unsaid is completed from
its siblings in ``amd``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import PlacementError
from sweeper.records.plurals import amount
from sweeper.topology.probes import Absent, Runner, ask, contents
from sweeper.topology.values import first, gib, integer, node_number, word

AMD_ADVICE = (
    "Run `amd-smi list` as this user: if it speaks of groups, `sudo usermod -aG render,video $USER` and log "
    "in again; in a container, start it with --device /dev/kfd --device /dev/dri --group-add video."
)

_LIST = (("amd-smi", "list", "-e", "--json"), ("amd-smi", "list", "--json"))
_STATIC = (
    ("amd-smi", "static", "--asic", "--vram", "--driver", "--numa", "--partition", "--json"),
    # Inside a virtual machine amd-smi does not know --numa.
    ("amd-smi", "static", "--asic", "--vram", "--driver", "--partition", "--json"),
    ("amd-smi", "static", "--json"),
)
_PARTITION = (
    ("amd-smi", "partition", "--current", "--json"),
    ("amd-smi", "partition", "--json"),
)
_VERSION = ("amd-smi", "version", "--json")
_JSON_START = re.compile(r"^[ \t]*(?=\{|\[\s*[\[{\]])", flags=re.MULTILINE)  # not the [ of "[WARNING]"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What amd-smi reported about one device, N/A as None, before its siblings complete it.

    Attributes:
        gpu: amd-smi's own number of the device, which may be a partition.
        hip_id: HIP's number of it; releases before ROCm 6.4 do not report it.
        partition_id: Position within its physical GPU.
        memory_gib: Its own share or the whole GPU's, as it comes.
        compute_units: Likewise.
    """

    gpu: int
    hip_id: int | None
    bdf: str
    uuid: str | None
    partition_id: int | None
    mode: str | None
    memory_mode: str | None
    name: str | None
    memory_gib: float | None
    compute_units: int | None
    numa_node: int | None
    gfx_target: str | None
    driver: str | None


def devices_seen(run: Runner, *, root: Path = Path("/")) -> list[Seen] | Absent:
    """Ask amd-smi for its devices, one Seen for each, in its own order.

    Args:
        run: Runs amd-smi.
        root: Where /sys lies; it shows whether the driver is there at all.

    Returns:
        The devices, or Absent when amd-smi is not installed.

    Raises:
        PlacementError: No JSON, no devices, no addresses, or two answers that contradict each other.
    """
    listed = _first_rows(run, _LIST, root)
    if isinstance(listed, Absent):
        return listed
    static = _first_rows(run, _STATIC, root)
    if isinstance(static, Absent):
        return static
    return _join(listed, _with_modes(run, static), root)


def device_numbers(run: Runner, *, root: Path = Path("/")) -> dict[int, int] | Absent:
    """Map amd-smi's number of each device to HIP's, which a placement speaks.

    Raises:
        PlacementError: amd-smi is there and lists no devices.
    """
    rows = _first_rows(run, _LIST, root)
    if isinstance(rows, Absent):
        return rows
    gpus = sorted(number for row in rows if (number := integer(row["gpu"])) is not None)
    told = {row["gpu"]: number for row in rows if (number := integer(row.get("hip_id"))) is not None}
    # Releases before ROCm 6.4 do not tell HIP's; then both count alike.
    return {gpu: told.get(gpu, place) for place, gpu in enumerate(gpus)}


def render_files(run: Runner, *, root: Path = Path("/")) -> dict[int, str]:
    """Map HIP's number of each device to its device file, such as ``/dev/dri/renderD128``.

    amd-smi tells both from ROCm 6.4 on. Before, the kernel's list of compute nodes is taken, in its order,
    which is the order in which HIP counts; it has a minor number for each partition, too.

    Returns:
        The files; empty where neither tells any.

    Source:
        ``render`` and ``hip_id`` of ``amd-smi list -e`` (amdsmi_cli/amdsmi_commands.py of ROCm/amdsmi);
        ``drm_render_minor`` of /sys/class/kfd/kfd/topology, which a processor has as 0 (drivers/gpu/drm/amd/
        amdkfd/kfd_topology.c of Linux).
    """
    rows = _first_rows(run, _LIST, root)
    told = {
        number: f"/dev/dri/{row['render']}"
        for row in ([] if isinstance(rows, Absent) else rows)
        if (number := integer(row.get("hip_id"))) is not None and str(row.get("render")).startswith("renderD")
    }
    return told or dict(enumerate(_kernel_files(root)))


def _kernel_files(root: Path) -> list[str]:
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    minors = []
    for path in sorted(nodes, key=lambda path: int(path.parent.name)):
        # Of a device that a container or a job is not given, the kernel shows the node and refuses its file
        # (kfd_devcgroup_check_permission in drivers/gpu/drm/amd/amdkfd of Linux); HIP does not count it.
        text = contents(path) or ""
        fields = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
        minors.append(int(fields.get("drm_render_minor", "0")))
    return [f"/dev/dri/renderD{minor}" for minor in minors if minor]


def driver_advice(root: Path) -> str:
    """Describe in words what the kernel knows of the driver; empty while it is loaded and live.

    Source:
        Linux, /sys/module/<name>/initstate: live, coming or going; a driver built into the kernel has none.
        A change of memory mode reloads amdgpu, up to 140 s (AMD's partitioning guide).
    """
    module = root / "sys/module/amdgpu"
    if not module.is_dir():
        return (
            "The amdgpu driver is not loaded; while somebody changes the memory mode, that lasts some "
            "minutes, else `sudo modprobe amdgpu`. "
        )
    state = contents(module / "initstate")
    if state in (None, "live"):
        return ""
    return f"The amdgpu driver is being loaded or unloaded ({state}): try again in some minutes. "


def rocm_release(run: Runner) -> str | None:
    """Ask for the release of ROCm; a node is complete without it."""
    answer = ask(run, _VERSION)
    values = [] if isinstance(answer, Absent) else list(_json_values(answer.stdout))
    for value in values:
        row = value[0] if isinstance(value, list) and value else value
        if isinstance(row, dict):
            return _release(row.get("rocm_version"))
    return None


def _with_modes(run: Runner, static: list[dict[str, object]]) -> list[dict[str, object]]:
    """Add each device's modes where ``static`` no longer reports them, and ``partition`` does.

    Source:
        ``static --partition`` is gone from amd-smi 26.0.0 on (AMD's node scraper, amdsmidata.py,
        AmdSmiStatic); ``partition --current`` gives a list under ``current_partition`` with ``gpu_id``,
        ``memory``, ``accelerator_type`` and ``partition_id`` (ROCm/amdsmi, amdsmi_cli/amdsmi_commands.py).
    """
    if any(_section(row, "partition") for row in static):
        return static
    current = _current_partitions(run)
    return [{**row, "partition": current.get(integer(row["gpu"]), row.get("partition"))} for row in static]


def _current_partitions(run: Runner) -> dict[int | None, dict[str, object]]:
    for command in _PARTITION:
        answer = ask(run, command)
        values = [] if isinstance(answer, Absent) else list(_json_values(answer.stdout))
        for value in values:
            rows = value.get("current_partition") if isinstance(value, dict) else value
            if isinstance(rows, list) and any(isinstance(row, dict) and "gpu_id" in row for row in rows):
                return {
                    integer(row["gpu_id"]): {
                        "accelerator_partition": row.get("accelerator_type"),
                        "memory_partition": row.get("memory"),
                        "partition_id": row.get("partition_id"),
                    }
                    for row in rows
                }
    return {}


def _first_rows(
    run: Runner, commands: Sequence[Sequence[str]], root: Path
) -> list[dict[str, object]] | Absent:
    """Return the rows of the first command that answers with some; later ones are for other releases."""
    answers = []
    for command in commands:
        answer = ask(run, command)
        if isinstance(answer, Absent):
            return answer
        rows = json_rows(answer.stdout)
        if rows is not None:
            return rows
        answers.append(f"`{' '.join(command)}` ended with status {answer.exit_status}: {answer.last_line}")
    raise PlacementError(
        f"amd-smi: got no JSON list of devices ({'; '.join(answers)}); expected one row per device. "
        f"{driver_advice(root)}{AMD_ADVICE}"
    )


def json_rows(text: str) -> list[dict[str, object]] | None:
    """Find the list of devices in what amd-smi printed, which may begin with warnings; None where none is."""
    for value in _json_values(text):
        listed = value.get("gpu_data", [value]) if isinstance(value, dict) else value
        if isinstance(listed, list) and all(
            isinstance(row, dict) and isinstance(row.get("gpu"), int) for row in listed
        ):
            return listed
    return None


def _json_values(text: str) -> Iterator[object]:
    """Decode the JSON values that begin at the start of a line; broken JSON ends them."""
    position = 0
    while (start := _JSON_START.search(text, position)) is not None:
        try:
            value, position = json.JSONDecoder().raw_decode(text, start.end())
        except json.JSONDecodeError:
            return  # looking further would take the inside of a list cut short for a list of one device
        yield value


def _join(listed: list[dict[str, object]], static: list[dict[str, object]], root: Path) -> list[Seen]:
    """Bring together what ``list`` and ``static`` report about each device."""
    if not listed:
        raise PlacementError(
            "amd-smi list: got no devices; expected at least one AMD GPU. Check that the amdgpu driver is "
            f"loaded (ls /dev/kfd). {driver_advice(root)}{AMD_ADVICE}"
        )
    by_gpu = {row["gpu"]: row for row in static}
    missing = [row["gpu"] for row in listed if row["gpu"] not in by_gpu]
    if missing or len(by_gpu) != len(listed):
        raise PlacementError(
            f"amd-smi: got {amount(len(listed), 'device')} from `amd-smi list` but {len(by_gpu)} from "
            "`amd-smi static` "
            f"(missing: {missing}); expected the same. {driver_advice(root)}Run both by hand; a reset or a "
            "change of mode may be under way."
        )
    return [_seen(row, by_gpu[row["gpu"]]) for row in listed]


def _seen(row: Mapping[str, object], static: Mapping[str, object]) -> Seen:
    gpu = integer(row["gpu"])
    bdf = word(row.get("bdf"))
    if gpu is None or bdf is None:
        raise PlacementError(
            f"amd-smi list: got bdf {row.get('bdf')!r} for device {row['gpu']!r}; expected a PCI address. "
            f"{AMD_ADVICE}"
        )
    asic, vram, numa = (_section(static, name) for name in ("asic", "vram", "numa"))
    partition, driver = _section(static, "partition"), _section(static, "driver")
    told_id = integer(row.get("partition_id"))
    return Seen(
        gpu=gpu,
        hip_id=integer(row.get("hip_id")),
        bdf=bdf.lower(),
        uuid=word(row.get("hip_uuid")) or word(row.get("uuid")),
        partition_id=integer(partition.get("partition_id")) if told_id is None else told_id,
        mode=_upper(partition, "accelerator_partition", "compute_partition"),
        memory_mode=_upper(partition, "memory_partition"),
        name=word(asic.get("market_name")),
        memory_gib=gib(vram.get("size", vram.get("vram_size"))) or None,  # 0: not told
        compute_units=integer(asic.get("num_compute_units")) or None,
        numa_node=first(node_number(numa.get("affinity")), node_number(numa.get("node"))),
        gfx_target=_gfx(asic.get("target_graphics_version")),
        driver=_release(driver.get("version", driver.get("driver_version"))),
    )


def _section(static: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = static.get(name)
    return value if isinstance(value, dict) else {}


def _upper(section: Mapping[str, object], *names: str) -> str | None:
    told = first(*(word(section.get(name)) for name in names))
    return None if told is None else told.upper()


def _gfx(value: object) -> str | None:
    told = word(value)
    return None if told is None else told.split(":")[0].lower()


def _release(value: object) -> str | None:
    """Return a version without the kernel's banner, which amd-smi adds where amdgpu comes with the kernel."""
    told = word(value)
    return None if told is None else told.split("(")[0].removeprefix("Linuxversion")
