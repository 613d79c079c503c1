"""What the name of a knob says by itself: a flag, an environment variable, or a setting of the host."""

from __future__ import annotations

from collections.abc import Mapping

from sweeper.records import HOST_PREFIX, IMAGE, INSTANCES

# Knob to the name that sysctl has for it.
HOST_SETTINGS: Mapping[str, str] = {"host_numa_balancing": "kernel.numa_balancing"}


def is_variable(knob: str) -> bool:
    """Return whether a knob is an environment variable: its name has no lower-case letter."""
    return knob == knob.upper()


def is_of_sweeper(knob: str) -> bool:
    """Return whether a knob is the sweeper's own, which no server and no host is given."""
    return knob in (INSTANCES, IMAGE)


def is_host_setting(knob: str) -> bool:
    """Return whether a knob is a setting of the host, which no server is given."""
    return knob.startswith(HOST_PREFIX)
