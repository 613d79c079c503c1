"""The audit of the nodes in reports and comparisons: which differ, in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from analysis import audits, compare, report
from analysis.study import Study
from sweeper.records import Provenance, TrialResult
from tests.analysis.conftest import MakeTrial

MakeFolder = Callable[..., Path]

GOOD = "0123456789ab good"
BAD = "aaaaaaaaaaaa differs: cpu_governor, numa_balancing; unreadable: power_cap"
UNREAD = "bbbbbbbbbbbb unreadable: power_cap"


def on(node: str, audit: str | None, result: TrialResult) -> TrialResult:
    """Put a result on a node whose settings were read."""
    assert result.placement is not None
    told = {} if audit is None else {"audit": audit}
    placement = replace(result.placement, node=node)
    return replace(result, placement=placement, surroundings={**result.surroundings, **told})


def study_of(
    folder: MakeFolder, trial: MakeTrial, *nodes: tuple[str, str | None], name: str = "steps"
) -> Study:
    results = [
        on(
            node,
            audit,
            trial(
                runs=[[{"request_throughput_per_s": 9.0}]],
                ended_at=1_700_000_000.0 + place,
                knobs={"max_num_seqs": 8 + place},
                provenance=Provenance.MEASURED,
                name=name,
            ),
        )
        for place, (node, audit) in enumerate(nodes)
    ]
    return Study.load(folder(*results, name=name))


def test_nodes_that_are_alike_are_one_line(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = study_of(study_folder, trial, ("a", GOOD), ("b", GOOD))
    assert audits.told(study) == "All alike: a, b is set up as AMD's guides ask, in all that was read."
    written = report.text(study, drawn=[])
    assert "## Settings of the nodes\n\nAll alike: a, b" in written


def test_node_that_differs_is_named_with_checks(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = study_of(study_folder, trial, ("a", GOOD), ("b", BAD))
    assert audits.told(study) == (
        "**Not alike**: a is set up as AMD's guides ask, in all that was read (0123456789ab); b differs from "
        "AMD's guides in cpu_governor, numa_balancing and could not be read in power_cap (aaaaaaaaaaaa). "
        "Their numbers differ by that, too."
    )


def test_node_that_changed_meanwhile_is_said(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = study_of(study_folder, trial, ("a", UNREAD), ("a", BAD))
    assert audits.told(study).startswith(
        "**Changed during the study**: a could not be read in power_cap (bbbbbbbbbbbb) and then differs from"
    )


def test_rows_that_tell_none_have_no_section(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = study_of(study_folder, trial, ("a", None))
    assert audits.told(study) == ""
    assert "Settings of the nodes" not in report.text(study, drawn=[])


def test_comparison_says_whether_both_sides_were_set_up_alike(
    trial: MakeTrial, study_folder: MakeFolder
) -> None:
    first = study_of(study_folder, trial, ("a", GOOD), name="first")
    second = study_of(study_folder, trial, ("b", BAD), name="second")
    line = (
        "**Not alike**: first (a) is set up as AMD's guides ask, in all that was read (0123456789ab); second "
        "(b) differs from AMD's guides in cpu_governor, numa_balancing and could not be read in power_cap "
        "(aaaaaaaaaaaa). What differs below differs by that, too."
    )
    assert f"## Settings of the nodes\n\n{line}" in compare.text(first, second)
    assert "Alike on both sides: is set up as AMD's guides ask" in compare.text(first, first)
    untold = study_of(study_folder, trial, ("a", None), name="untold")
    assert "Settings of the nodes" not in compare.text(first, untold)
