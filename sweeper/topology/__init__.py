"""The node that is measured: its devices, the GPUs they belong to, and how that was found out.

It answers which logical devices exist, in the order in which the engine counts them, which of them are
partitions of one physical GPU, and what each one has. It leaves out which of them a trial is given
(``schedule``) and never changes anything: partition modes are an administrator's act, so the most that is
given here is the commands to type.

A node is read from the vendor's own tool. Its output is taken at its word or refused: a node that was
read wrongly would give wrong placements, and every number measured on them would carry the wrong label.

The files, each importing only from those before it:

- ``node``: devices, the node they are on, and a table of them. ``probes``: running a vendor's tool, reading
  a file of the kernel. ``values``: single values as tools write them.
- ``granted``: which devices the environment leaves to a study.
- ``modes``: what an MI300X has, its partition modes, and the commands that set them. ``modelled``: the node
  of the simulated platform.
- ``amd_smi``: what amd-smi reports about each device. ``amd``: the node made of it. ``nvidia``, ``cpu``: the
  other nodes. ``device_processes``: which processes use a device. ``gauges``: what it does.
  ``shown_devices``: the files by which a container sees them. ``free_devices``: whether it is free.
- ``detection``: which of them this machine is.
"""

from sweeper.topology.amd import read_amd
from sweeper.topology.cpu import read_cpu
from sweeper.topology.detection import Detection, detect
from sweeper.topology.granted import Grant, chosen, granted, numbers_of
from sweeper.topology.modelled import modelled_as, modelled_mi300x, modelled_node
from sweeper.topology.modes import (
    LEGAL_MEMORY_MODES,
    MI300X_COMPUTE_UNITS,
    MI300X_GPUS,
    MI300X_MEMORY_GIB,
    mode_commands,
)
from sweeper.topology.node import Device, Node, node_table, ranges, restrict
from sweeper.topology.nvidia import read_nvidia
from sweeper.topology.probes import PROBE_TIMEOUT_S, Absent, Answer, Runner, run_command

__all__ = [
    "LEGAL_MEMORY_MODES",
    "MI300X_COMPUTE_UNITS",
    "MI300X_GPUS",
    "MI300X_MEMORY_GIB",
    "PROBE_TIMEOUT_S",
    "Absent",
    "Answer",
    "Detection",
    "Device",
    "Grant",
    "Node",
    "Runner",
    "chosen",
    "detect",
    "granted",
    "mode_commands",
    "modelled_as",
    "modelled_mi300x",
    "modelled_node",
    "node_table",
    "numbers_of",
    "ranges",
    "read_amd",
    "read_cpu",
    "read_nvidia",
    "restrict",
    "run_command",
]
