"""The audit on nodes whose files and amd-smi are written: a good one, a bad one, some that do not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sweeper import cli
from sweeper.audit import Audit, Verdict, audit_node, digest_for
from sweeper.audit.catalogue import CATALOGUE
from sweeper.audit.drivers import driver_reading
from sweeper.audit.reading import UnreadableError
from sweeper.records import Platform
from sweeper.topology import Answer
from tests.audit import nodes
from tests.topology import amd_smi_outputs
from tests.topology.replaying import replay


def audited(root: Path, files: Mapping[str, str], outputs: Mapping[str, str | Answer]) -> Audit:
    told = {f"amd-smi {word}": answer for word, answer in outputs.items()}
    return audit_node(replay(told), root=nodes.write(root, files))


def found(audit: Audit) -> dict[str, str]:
    return {finding.check.name: finding.reading.found for finding in audit.findings}


def test_node_set_up_as_the_guides_ask_has_nothing_to_change(tmp_path: Path) -> None:
    audit = audited(tmp_path, nodes.GOOD_FILES, nodes.good_amd_smi())
    assert [f"{f.check.name}: {f.reading}" for f in audit.findings if f.verdict is not Verdict.GOOD] == []
    assert len(audit.findings) == len(CATALOGUE)
    assert all(finding.to_do is None for finding in audit.findings)
    told = found(audit)
    assert told["pcie_link"] == "32.0 GT/s x16 on all 8"
    assert told["power_cap"] == "750 W on all 8"
    assert told["shared_memory"] == "1007.7 GiB"  # half of the memory, as tmpfs(5) has it
    assert told["driver_and_rocm"] == "driver 6.14.14, release 30.10, with ROCm 7.0.2"
    assert audit.digest.endswith(" good")


def test_partitions_that_tell_nothing_leave_it_to_the_first_of_their_gpu(tmp_path: Path) -> None:
    audit = audited(tmp_path, nodes.GOOD_FILES, nodes.good_amd_smi("CPX", "NPS4"))
    assert audit.names(Verdict.GOOD) == tuple(check.name for check in CATALOGUE)
    assert found(audit)["clocks"] == "auto, 2100 MHz at most on all 8"


def test_every_fault_of_a_bad_node_is_found_with_who_has_it_and_what_changes_it(tmp_path: Path) -> None:
    audit = audited(tmp_path, nodes.BAD_FILES, nodes.bad_amd_smi())
    assert audit.names(Verdict.DIFFERS) == tuple(check.name for check in CATALOGUE)
    assert found(audit) == {
        "numa_balancing": "1",
        "cpu_governor": "performance on 1, powersave on cpu1",
        "cpu_boost": "boost is 0",
        "cpu_idle_c2": "switched off on 1, used on cpu1",
        "transparent_hugepages": "never",
        "iommu": "iommu=soft",
        "pci_realloc": "no pci=",
        "numa_nodes": "NUMA nodes: 3, sockets: 2",
        "open_files": "1024, hard limit 4096",
        "locked_memory": "8192 KiB",
        "shared_memory": "0.1 GiB",
        "gpu_count": "7",
        "pcie_link": "32.0 GT/s x16 on 6, 16.0 GT/s x16 on 0000:65:00.0",
        "xgmi_links": "XGMI, 1 hop on 223, PCIE, 2 hops on 0-4",
        "power_cap": "750 W on 7, 600 W on GPU 2",
        "clocks": "auto, 2100 MHz at most on 7, manual, 1400 MHz at most on GPU 2",
        "partition_mode": "DPX with NPS2",
        "driver_and_rocm": "driver 6.3.6, release 6.0, with ROCm 7.0.2",
        "ecc_errors": "0 uncorrectable, 0 deferred, 0 corrected on 7, "
        "2 uncorrectable, 0 deferred, 0 corrected on GPU 2",
        "throttling": "none on 7, hbm_thermal 31 times; ppt now on GPU 2",
        "other_processes": "4194303 (unknown)",
    }
    assert all(finding.to_do == finding.check.command for finding in audit.findings)


def test_node_that_tells_nothing_is_unreadable_and_never_good(tmp_path: Path) -> None:
    audit = audit_node(replay({}), root=tmp_path)
    assert audit.names(Verdict.UNREADABLE) == tuple(check.name for check in CATALOGUE)
    assert all(finding.to_do and finding.reading.found for finding in audit.findings)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (amd_smi_outputs.NO_PERMISSION, "Permission Denied"),
        (amd_smi_outputs.NO_DRIVER, "sudo modprobe amdgpu"),
        ('[{"gpu": 0, "bdf": ["x"]}]', "not told"),
    ],
)
def test_what_amd_smi_answers_instead_is_the_reason(tmp_path: Path, answer: str | Answer, told: str) -> None:
    outputs = dict.fromkeys(nodes.good_amd_smi(), answer)
    audit = audited(tmp_path, nodes.GOOD_FILES, outputs)
    reasons = found(audit)
    unreadable = audit.names(Verdict.UNREADABLE)
    assert {"power_cap", "clocks", "ecc_errors", "throttling"} <= set(unreadable)
    assert told in reasons["power_cap"]
    assert not {"numa_balancing", "pcie_link"} & set(unreadable)


def test_form_that_is_not_known_costs_its_check_and_no_other(tmp_path: Path) -> None:
    outputs = {**nodes.good_amd_smi(), "topology": '[{"gpu": 0, "links": ["of another release"]}]'}
    audit = audited(tmp_path, nodes.GOOD_FILES, outputs)
    assert audit.names(Verdict.UNREADABLE) == ("xgmi_links",)
    assert "form that is not known" in found(audit)["xgmi_links"]


def test_gpu_that_does_not_tell_is_not_taken_for_good(tmp_path: Path) -> None:
    outputs = nodes.good_amd_smi()
    metric = json.loads(str(outputs["metric"]))
    metric["gpu_data"][5]["ecc"] = "N/A"
    audit = audited(tmp_path, nodes.GOOD_FILES, {**outputs, "metric": json.dumps(metric)})
    assert audit.names(Verdict.UNREADABLE) == ("ecc_errors",)
    assert found(audit)["ecc_errors"].endswith("on all 7; not told for GPU 5")


def test_topology_of_releases_before_6_3_is_read_too(tmp_path: Path) -> None:
    names = [f"gpu_{gpu}" for gpu in range(8)]
    rows = [
        {
            "gpu": gpu,
            "bdf": f"0000:{amd_smi_outputs.BUSES[gpu]}:00.0",
            "link_type": {name: "SELF" if name == f"gpu_{gpu}" else "XGMI" for name in names},
            "num_hops": {name: 0 if name == f"gpu_{gpu}" else 1 for name in names},
        }
        for gpu in range(8)
    ]
    audit = audited(tmp_path, nodes.GOOD_FILES, {**nodes.good_amd_smi(), "topology": json.dumps(rows)})
    assert found(audit)["xgmi_links"] == "XGMI, 1 hop on all 56"


@pytest.mark.parametrize(
    ("driver", "rocm", "verdict"),
    [
        ("6.12.12", "7.0.2", Verdict.GOOD),
        ("6.16.13", "7.2.1", Verdict.GOOD),
        ("6.7.0", "7.0.0", Verdict.DIFFERS),
        ("6.12.12", "7.1.0", None),  # after the end of the table
        ("6.16.6", "7.1.1", None),  # a release that the table does not have
        ("6.12.43-amd64", "7.0.2", None),  # the kernel's own
        (None, "7.0.2", None),
        ("6.12.12", None, None),
    ],
)
def test_driver_and_rocm_against_each_other(
    driver: str | None, rocm: str | None, verdict: Verdict | None
) -> None:
    if verdict is None:
        with pytest.raises(UnreadableError) as refused:
            driver_reading(driver=driver, rocm=rocm)
        assert "support matrix" in refused.value.remedy
    else:
        assert driver_reading(driver=driver, rocm=rocm).verdict is verdict


def test_digest_is_of_settings_alone(tmp_path: Path) -> None:
    outputs = nodes.good_amd_smi()
    before = audited(tmp_path, nodes.GOOD_FILES, outputs).digest
    metric = json.loads(str(outputs["metric"]))
    metric["gpu_data"][0]["ecc"]["total_uncorrectable_count"] = 1
    worn = audited(tmp_path, nodes.GOOD_FILES, {**outputs, "metric": json.dumps(metric)})
    assert worn.names(Verdict.DIFFERS) == ("ecc_errors",)
    assert worn.digest == before
    changed = audited(tmp_path, {"proc/sys/kernel/numa_balancing": "1\n"}, outputs).digest
    assert changed != before
    assert changed.endswith(" differs: numa_balancing")


def test_node_without_mi300x_is_compared_with_what_holds_for_any_host(tmp_path: Path) -> None:
    root = nodes.write(tmp_path, {**nodes.GOOD_FILES, "proc/cmdline": "quiet\n"})
    assert digest_for(Platform.CPU, replay({}), root=root).endswith(" good")
    of_mi300x = digest_for(Platform.MI300X, replay({}), root=root)
    assert "differs: iommu, pci_realloc; unreadable: clocks, " in of_mi300x
    assert "ecc_errors" not in of_mi300x


def test_command_shows_findings_what_changes_them_and_all_of_it_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = nodes.write(tmp_path / "bad", nodes.BAD_FILES)
    monkeypatch.setenv(
        "PATH", f"{amd_smi_outputs.install(tmp_path / 'tools', nodes.bad_amd_smi())}:/usr/bin:/bin"
    )
    assert cli.main(["audit", "--root", str(root)]) == cli.OK
    told = capsys.readouterr().out
    assert "to change it: sudo sysctl kernel.numa_balancing=0" in told
    assert "source: AMD Instinct MI300X system optimization" in told
    assert "0 good, 21 different, 0 unreadable; nothing was changed" in told
    assert cli.main(["audit", "--root", str(root), "--json", "--strict"]) == cli.SOME_FAILED
    written = json.loads(capsys.readouterr().out)
    assert [finding["name"] for finding in written["findings"]] == [check.name for check in CATALOGUE]
    assert written["findings"][0] == {
        **{"name": "numa_balancing", "verdict": "differs", "found": "1", "expected": "0 (off)"},
        "why": CATALOGUE[0].why,
        "command": "sudo sysctl kernel.numa_balancing=0",
        **{"remedy": None, "source": CATALOGUE[0].source, "is_setting": True},
    }
    assert written["digest"] in told


def test_command_without_amd_smi_says_what_to_do_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["audit", "--root", str(nodes.write(tmp_path, nodes.GOOD_FILES))]) == cli.OK
    told = capsys.readouterr().out
    assert told.count("Install ROCm's amd-smi") == 1
    assert "unreadable: xgmi_links, power_cap, clocks, " in told
    assert cli.main(["audit", "--root", str(tmp_path), "--strict"]) == cli.SOME_FAILED


def test_root_that_is_no_folder_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "--root", str(tmp_path / "none")]) == cli.MISTAKE
    assert "none is no folder; expected where proc and sys lie" in capsys.readouterr().err
