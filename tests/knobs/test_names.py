"""What the name of a knob says by itself."""

from __future__ import annotations

from sweeper import knobs


def test_kinds_of_names_are_told_apart() -> None:
    assert knobs.is_variable("NCCL_MIN_NCHANNELS")
    assert not knobs.is_variable("max_num_seqs")
    assert knobs.is_host_setting("host_numa_balancing")
    assert not knobs.is_host_setting("max_num_seqs")
