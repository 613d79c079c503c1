"""A Ctrl-C that arrives where Python drops exceptions is given again, and nothing is printed of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

IN_A_CALLBACK = """
import signal, sys, time, weakref
{handle}
class Thing:
    pass
thing = Thing()
hint = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
try:
    {around}
        del thing
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""
FIRST = "from sweeper import __main__ as program\nprogram.give_again_what_is_dropped()\n"


@pytest.mark.parametrize(
    ("handle", "around"),
    [
        (f"{FIRST}signal.signal(signal.SIGINT, program._Once())", "if True:"),
        (
            f"{FIRST}from sweeper.cli.signals import StopSignals\nstop = StopSignals()\n"
            "stop.signalled, stop._count = 2, 2",
            "with stop:",
        ),
    ],
    ids=["before a sweep", "the third in a sweep"],
)
def test_interrupt_in_callback_of_weak_reference_arrives(handle: str, around: str) -> None:
    script = IN_A_CALLBACK.format(handle=handle, around=around)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_other_exceptions_of_callbacks_are_printed_as_before() -> None:
    script = IN_A_CALLBACK.format(handle=FIRST, around="if True:")
    script = script.replace("lambda _: signal.raise_signal(signal.SIGINT)", "lambda _: 1 / 0").replace(
        "60", "0"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0
    assert "ZeroDivisionError" in ended.stderr
