"""Every release of amd-smi is understood, or refused with a message that says what to run."""

from __future__ import annotations

import pytest

from sweeper.errors import PlacementError
from sweeper.topology import Absent, Answer, read_amd
from tests.topology.replaying import Rows, changed, node_of, recorded, replay


def test_release_that_does_not_know_option_is_asked_again_without_it() -> None:
    outputs = recorded("rocm_6.2_spx")
    static = outputs.pop("amd-smi static")
    node = node_of(read_amd(replay(outputs | {"amd-smi static --json": static})))
    assert len(node.devices) == 8


def test_node_is_complete_without_release_of_rocm() -> None:
    outputs = recorded("rocm_6.2_spx")
    del outputs["amd-smi version"]
    node = node_of(read_amd(replay(outputs)))
    assert node.rocm is None
    assert len(node.devices) == 8


def test_missing_amd_smi_is_absence_not_error() -> None:
    assert read_amd(replay({})) == Absent(reason="amd-smi: not found")


def test_no_devices_are_refused() -> None:
    with pytest.raises(PlacementError, match=r"got no devices; expected at least one AMD GPU.*ls /dev/kfd"):
        read_amd(replay({"amd-smi list": "[]", "amd-smi static": "[]"}))


def test_output_that_is_no_json_is_refused_with_tools_own_words() -> None:
    denied = Answer(exit_status=1, stdout="", stderr="ERROR: Unable to open /dev/kfd: Permission denied")
    with pytest.raises(
        PlacementError, match=r"status 1: ERROR: Unable to open /dev/kfd: Permission denied.*render,video"
    ):
        read_amd(replay({"amd-smi": denied}))


def test_output_cut_short_is_refused_rather_than_read_in_part() -> None:
    outputs = recorded("rocm_6.2_spx")
    for command in ("amd-smi list", "amd-smi static"):
        outputs[command] = outputs[command].replace("\n]\n", "")
    with pytest.raises(PlacementError, match="got no JSON list of devices"):
        read_amd(replay(outputs))


def test_error_object_is_not_taken_for_device() -> None:
    with pytest.raises(PlacementError, match="got no JSON list of devices"):
        read_amd(replay({"amd-smi": '{"error": "AMDSMI_STATUS_NO_PERM", "code": -10}'}))


def test_hidden_addresses_are_refused_with_advice_on_groups() -> None:
    def hide(rows: Rows) -> None:
        for row in rows:
            row["bdf"] = row["uuid"] = "N/A"

    with pytest.raises(PlacementError, match=r"got bdf 'N/A' for device 0; expected a PCI address.*usermod"):
        read_amd(changed("rocm_6.2_spx", listed=hide))


def test_device_that_only_one_command_knows_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"8 devices from `amd-smi list` but 7 from `amd-smi static`"):
        read_amd(changed("rocm_6.2_spx", static=lambda rows: rows.pop()))
