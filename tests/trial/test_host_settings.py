"""Settings of the host: changed for a trial, and put back, after a crash too. On a folder of files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import ConfigError, EngineError, PlacementError
from sweeper.processes import process
from sweeper.records import FailureClass, Placement, Platform, TrialSpec, TrialState
from sweeper.trial import host_settings, trial
from tests.stand_ins import StandInClient, StandInEngine
from tests.standin_server import make_spec, never

OFF = {"host_numa_balancing": 0, "max_num_seqs": 8}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc whose NUMA balancing is on."""
    folder = tmp_path / "proc"
    setting(folder).parent.mkdir(parents=True)
    setting(folder).write_text("1\n")
    return folder


def setting(proc: Path) -> Path:
    return proc / "sys" / "kernel" / "numa_balancing"


def test_only_known_settings_with_0_or_1_are_taken() -> None:
    assert host_settings.wanted({**OFF, "NCCL_MIN_NCHANNELS": 112}) == {"host_numa_balancing": "0"}
    assert host_settings.wanted({"host_numa_balancing": True}) == {"host_numa_balancing": "1"}
    with pytest.raises(ConfigError, match="Did you mean 'host_numa_balancing'"):
        host_settings.wanted({"host_numa_balance": 0})
    with pytest.raises(ConfigError, match="expected 0 or 1"):
        host_settings.wanted({"host_numa_balancing": "off"})


def test_setting_holds_for_trial_and_is_put_back(tmp_path: Path, proc: Path) -> None:
    with host_settings.changed(OFF, outputs=tmp_path, proc=proc) as now:
        assert now == {"host_numa_balancing": 0}
        assert setting(proc).read_text() == "0\n"
        record = json.loads(host_settings.record_in(tmp_path).read_text())
        assert record["before"] == {"host_numa_balancing": "1"}
        assert record["owner"] == str(process.current())
    assert setting(proc).read_text() == "1\n"
    assert not host_settings.record_in(tmp_path).exists()


def test_it_is_put_back_when_trial_fails(tmp_path: Path, proc: Path) -> None:
    with pytest.raises(KeyboardInterrupt), host_settings.changed(OFF, outputs=tmp_path, proc=proc):
        raise KeyboardInterrupt
    assert setting(proc).read_text() == "1\n"


def test_nothing_is_touched_for_trial_without_settings(tmp_path: Path) -> None:
    with host_settings.changed({"max_num_seqs": 8}, outputs=tmp_path, proc=tmp_path / "none") as now:
        assert now == {}
    assert list(tmp_path.iterdir()) == []


def test_kernel_without_setting_is_failure_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match="cannot be read") as caught,
        host_settings.changed(OFF, outputs=tmp_path, proc=tmp_path),
    ):
        pytest.fail("an engine would have been started")
    assert caught.value.failure is FailureClass.UNSUPPORTED


def test_setting_that_may_not_be_written_is_refused(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everything, so the kernel's answer is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(EngineError, match="may not be written; expected the right to change the host"),
        host_settings.changed(OFF, outputs=tmp_path, proc=proc),
    ):
        pytest.fail("an engine would have been started")
    assert setting(proc).read_text() == "1\n"
    assert not host_settings.record_in(tmp_path).exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from sweeper.trial import host_settings as host
with host.changed({"host_numa_balancing": 0}, outputs=Path(sys.argv[1]), proc=Path(sys.argv[2])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_the_middle(outputs: Path, proc: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(outputs), str(proc)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert setting(proc).read_text() == "0\n"


def test_what_killed_trial_left_changed_is_put_back_by_whoever_finds_its_record(
    tmp_path: Path, proc: Path
) -> None:
    kill_in_the_middle(tmp_path, proc)
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {"host_numa_balancing": "1"}
    assert setting(proc).read_text() == "1\n"
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {}


def test_next_trial_remembers_what_held_before_killed_one(tmp_path: Path, proc: Path) -> None:
    kill_in_the_middle(tmp_path, proc)
    with host_settings.changed(OFF, outputs=tmp_path, proc=proc):
        assert setting(proc).read_text() == "0\n"
    assert setting(proc).read_text() == "1\n"


def test_record_of_living_trial_is_left_alone_and_keeps_second_one_out(tmp_path: Path, proc: Path) -> None:
    with host_settings.changed(OFF, outputs=tmp_path, proc=proc):
        assert host_settings.restore_abandoned(tmp_path, proc=proc) == {}
        with (
            pytest.raises(EngineError, match="another trial has changed the host") as caught,
            host_settings.changed(OFF, outputs=tmp_path, proc=proc),
        ):
            pytest.fail("two trials would share the host")
        assert caught.value.failure.is_transient
        assert setting(proc).read_text() == "0\n"


def test_after_reboot_nothing_is_put_back(tmp_path: Path, proc: Path) -> None:
    kill_in_the_middle(tmp_path, proc)
    record = host_settings.record_in(tmp_path)
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "an earlier boot"}))
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {}
    assert setting(proc).read_text() == "0\n"
    assert not record.exists()


def another_nodes_record(outputs: Path, **changes: str) -> Path:
    """Write what a living trial of another node of the cluster has left in the folder that both share."""
    record = outputs / "host-restore-0a1b2c3d.json"
    told = {"owner": "1:1", "boot_id": "0a1b2c3d-1", "host": "node-b", "before": {"host_numa_balancing": "1"}}
    record.write_text(json.dumps({**told, **changes}))
    return record


def test_nodes_that_share_outputs_leave_each_others_records_alone(tmp_path: Path, proc: Path) -> None:
    theirs = another_nodes_record(tmp_path)
    with host_settings.changed(OFF, outputs=tmp_path, proc=proc):
        assert setting(proc).read_text() == "0\n"
        assert theirs.exists()
    assert setting(proc).read_text() == "1\n"
    assert list(tmp_path.glob("host-restore*")) == [theirs]
    # What a trial that was killed here has left is put back all the same, and only that.
    kill_in_the_middle(tmp_path, proc)
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {"host_numa_balancing": "1"}
    assert list(tmp_path.glob("host-restore*")) == [theirs]


def test_record_of_this_machines_earlier_boot_is_dropped(tmp_path: Path, proc: Path) -> None:
    another_nodes_record(tmp_path, host=socket.gethostname())
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {}
    assert list(tmp_path.glob("host-restore*")) == []


def test_record_as_earlier_versions_named_it_is_put_back(tmp_path: Path, proc: Path) -> None:
    kill_in_the_middle(tmp_path, proc)
    host_settings.record_in(tmp_path).rename(tmp_path / "host-restore.json")
    assert host_settings.restore_abandoned(tmp_path, proc=proc) == {"host_numa_balancing": "1"}
    assert list(tmp_path.glob("host-restore*")) == []


def test_damaged_record_is_not_guessed_at(tmp_path: Path, proc: Path) -> None:
    host_settings.record_in(tmp_path).write_text("{")
    with pytest.raises(PlacementError, match="is no record of ours"):
        host_settings.restore_abandoned(tmp_path, proc=proc)
    assert setting(proc).read_text() == "1\n"


def host_spec(tmp_path: Path) -> TrialSpec:
    return make_spec(tmp_path, "python", assignment=OFF)


def test_trial_runs_under_its_setting_and_its_row_says_so(tmp_path: Path, proc: Path) -> None:
    diary: list[str] = []
    result = trial.run(
        host_spec(tmp_path),
        Placement(node="here", devices=(0,), parents=(0,)),
        cancelled=never,
        engine=StandInEngine(diary=diary),
        open_client=lambda spec, placement: StandInClient(diary=diary),
        proc=proc,
    )
    assert result.state is TrialState.COMPLETE
    assert result.effective["host_numa_balancing"] == 0
    assert setting(proc).read_text() == "1\n"


def test_trial_whose_host_may_not_be_changed_fails_before_any_engine_starts(tmp_path: Path) -> None:
    diary: list[str] = []
    result = trial.run(
        host_spec(tmp_path),
        Placement(node="here", devices=(0,), parents=(0,)),
        cancelled=never,
        engine=StandInEngine(diary=diary),
        open_client=lambda spec, placement: StandInClient(diary=diary),
        proc=tmp_path / "none",
    )
    assert result.state is TrialState.FAILED
    assert result.failure_class is FailureClass.UNSUPPORTED
    assert diary == []


def test_trial_that_changes_real_host_is_exclusive_and_modelled_one_is_not(tmp_path: Path) -> None:
    spec = host_spec(tmp_path)
    assert spec.is_exclusive
    assert not replace(spec, platform=Platform.SIMULATED).is_exclusive
    assert not make_spec(tmp_path, "python").is_exclusive
