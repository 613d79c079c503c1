"""What the name of a knob says by itself."""

from __future__ import annotations

from sweeper import knobs


def test_kinds_of_names_are_told_apart() -> None:
    assert knobs.is_variable("NCCL_MIN_NCHANNELS")
    assert not knobs.is_variable("max_num_seqs")
    assert knobs.is_host_setting("host_numa_balancing")
    assert not knobs.is_host_setting("max_num_seqs")


def test_number_of_instances_is_sweepers_own_and_no_server_is_told_it() -> None:
    assert knobs.is_of_sweeper("instances")
    assert not knobs.is_of_sweeper("max_num_seqs")
    two = {"instances": 2, "max_num_seqs": 8}
    assert knobs.command_line(two, release="0.32.0") == ("--max-num-seqs", "8")
    assert knobs.check(two, release="0.32.0") == ()
    assert knobs.serve_line(two, release="0.32.0", model="m").splitlines() == [
        "# 2 instances behind one load, each on its own part of the devices; one of them:",
        "vllm serve m --port 8000 --max-num-seqs 8",
    ]
