"""Claims of the article, judged on its own figures and on studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis import claims_report, cli, report
from analysis.article_claims import CLAIMS, answers
from analysis.claims import Answer, Claim, ClaimKind, check, check_published, check_study
from analysis.ratios import Basis, Factor, Verdict
from analysis.study import Study
from sweeper import published
from sweeper.intervals import Estimate
from sweeper.records import LoadPoint, Model, Provenance, TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]

BY_ID = {claim.id: claim for claim in CLAIMS}
ABOUT = {
    "experiment": "case1_chunked_prefill",
    "series": {
        "default": {"label": "Default", "published": "default"},
        "no_chunk": {"label": "No chunked prefill", "published": "no_cp"},
    },
}


def known(mean: float) -> Factor:
    return Factor(estimate=Estimate(mean=mean, low=None, high=None, n=1), power=1)


def starts(*values: float) -> list[list[dict[str, float]]]:
    return [[{"request_throughput_per_s": value}] for value in values]


@pytest.fixture
def make_study(trial: MakeTrial, study_folder: MakeFolder) -> Callable[..., Study]:
    """A study of Case 1 with these requests per second for the default and without chunked prefill."""

    def make(
        default: list[float], no_chunk: list[float], provenance: Provenance = Provenance.SIMULATED
    ) -> Study:
        trials = [
            trial(series=(name,), knobs={"k": name}, runs=starts(*values), provenance=provenance)
            for name, values in (("default", default), ("no_chunk", no_chunk))
        ]
        return Study.load(study_folder(*trials, about=ABOUT))

    return make


def test_claim_is_judged_at_every_load_point() -> None:
    claim = Claim(id="x", experiment="e", statement="a > b", where="", powers={"a": 1, "b": -1}, low=1.0)
    numbers = {("a", "16"): known(11.0), ("b", "16"): known(10.0), ("a", "32"): known(9.0)}

    answer = check(claim, {**numbers, ("b", "32"): known(10.0)}, source="simulated", of="")
    half = check(claim, numbers, source="simulated", of="")

    assert [(f.load_point, f.verdict) for f in answer.findings] == [
        ("16", Verdict.HOLDS),
        ("32", Verdict.FAILS),
    ]
    assert answer.verdict is Verdict.FAILS
    # Where one of its series has no number, a load point says nothing.
    assert [f.load_point for f in half.findings] == ["16"]


def test_claim_about_one_rate_is_judged_there_alone() -> None:
    claim = BY_ID["C01"]
    numbers = {
        (series, rate): known(value)
        for rate in ("16", "32")
        for series, value in (("vllm_this_guide", 3.0 if rate == "32" else 9.0), ("tgi_this_guide", 2.0))
    }

    answer = check(claim, numbers, source="measured", of="")

    # 3 / 2 is 1.5, exactly what is stated: 1.0 times it.
    assert [(f.load_point, f.ratio.value) for f in answer.findings] == [("32", pytest.approx(1.0))]
    assert answer.verdict is Verdict.HOLDS


def test_claim_that_no_measurement_can_decide_says_why() -> None:
    answer = check(BY_ID["case3-b"], {}, source="simulated", of="")

    assert answer.verdict is Verdict.NO_DATA
    assert "only a second one could tell" in answer.note


def test_article_and_its_figures_disagree_on_tuned_chunks() -> None:
    # Printed: 8.35 with chunks of 2048 against 8.65 without chunks at 32 QPS, 0.965.
    answer = check_published(BY_ID["case1-b"])

    at_32 = next(finding for finding in answer.findings if finding.load_point == "32")
    assert at_32.ratio.value == pytest.approx(8.35 / 8.65)
    assert at_32.verdict is Verdict.FAILS
    assert answer.note == "the text and its own figures disagree"
    # 8.42 with chunks of 4096 against 8.75 without at 1000 QPS.
    assert check_published(BY_ID["case1-c"]).verdict is Verdict.FAILS


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("C01", Verdict.HOLDS),  # 5.51 / 3.56 = 1.548, within 10 % of 1.5
        ("C02", Verdict.HOLDS),  # 31067.85 / 18694.37 = 1.66
        ("C03", Verdict.HOLDS),  # 13.3 / 7.43 = 1.79
        ("C04", Verdict.HOLDS),  # 4422.66 / 862.13 = 5.13
        ("C06", Verdict.HOLDS),  # 13395.69 / 3495.92 = 3.83
        ("case1-a", Verdict.HOLDS),
        ("case2-c", Verdict.INCONCLUSIVE),  # 11.37 / 11.20 = 1.015 at 32 QPS: less than the margin
        ("case3-f", Verdict.HOLDS),
        ("case4-a", Verdict.HOLDS),  # 7.7 / 10.4 = 0.74
        ("case4-c", Verdict.INCONCLUSIVE),  # 10.40 / 10.37 = 1.003
        ("case5-a", Verdict.INCONCLUSIVE),  # 10.48 / 10.40 = 1.008
        ("case6-a", Verdict.HOLDS),  # 10.48 / 9.97 = 1.051
        ("case7-b", Verdict.HOLDS),  # 16.87 / 11.53 = 1.46
        ("case7-e", Verdict.NO_DATA),  # advised, not measured
        ("case8-a", Verdict.FAILS),  # 9.76 / 10.48 = 0.93 at 16 QPS
        ("case8-c", Verdict.HOLDS),
    ],
)
def test_articles_own_figures_support_what_they_support(name: str, verdict: Verdict) -> None:
    assert check_published(BY_ID[name]).verdict is verdict


def test_every_claim_names_series_that_its_experiment_has() -> None:
    for claim in CLAIMS:
        if claim.open_reason is not None or claim.metric == "prefix_cache_hit_rate":
            continue
        figures = set(published.load(claim.experiment)["series"])
        strangers = set(claim.powers) - figures
        # Never measured by the article: its figures cannot have them.
        assert not strangers or claim.id in ("case7-e", "quick-a"), f"{claim.id}: {strangers}"


def test_claims_have_unique_names_and_bounds() -> None:
    assert len(BY_ID) == len(CLAIMS)
    for claim in CLAIMS:
        has_bounds = claim.low is not None or claim.high is not None
        assert has_bounds == (claim.open_reason is None), claim.id
    assert {claim.experiment for claim in CLAIMS} >= {"intro_405b", "intro_70b", "quick_start"}
    assert sum(claim.kind is ClaimKind.CONDITION for claim in CLAIMS) == 1


def test_single_start_is_judged_against_margin(make_study: Callable[..., Study]) -> None:
    answer = check_study(BY_ID["case1-a"], make_study([10.0], [10.1]))

    # 1 % more is less than the margin of 2 %.
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.findings[0].ratio.basis is Basis.SINGLE_START
    assert answer.source == "simulated"
    assert answer.of == "meta-llama/Llama-3.1-70B-Instruct on simulated, study steps"


def test_single_measured_start_settles_nothing(make_study: Callable[..., Study]) -> None:
    study = make_study([7.0], [8.0], Provenance.MEASURED)

    answer = check_study(BY_ID["case1-a"], study)

    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.findings[0].ratio.value == pytest.approx(8 / 7)
    written = claims_report.markdown([answer])
    assert "| measured, single start at 16 |" in written
    assert "| **inconclusive** 1.143 |" in written


def test_restarts_can_prove_smaller_difference(make_study: Callable[..., Study]) -> None:
    study = make_study([10.0, 10.001, 9.999], [10.1, 10.101, 10.099], Provenance.MEASURED)

    answer = check_study(BY_ID["case1-a"], study)

    assert answer.verdict is Verdict.HOLDS
    assert answer.findings[0].ratio.basis is Basis.RESTARTS
    assert answer.source == "measured"


def test_study_of_another_model_says_that_it_is_not_what_source_measured(
    trial: MakeTrial, study_folder: MakeFolder, llama_70b: Model, make_study: Callable[..., Study]
) -> None:
    tiny = replace(llama_70b, name="tiny-llama")
    trials = [
        trial(series=(name,), knobs={"k": name}, runs=starts(10.0), model=tiny)
        for name in ("default", "no_chunk")
    ]

    answer = check_study(BY_ID["case1-a"], Study.load(study_folder(*trials, about=ABOUT)))

    assert answer.note == "of tiny-llama on simulated, not what the source measured"
    assert check_study(BY_ID["case1-a"], make_study([10.0], [10.0])).note == ""


def test_hit_rates_of_two_runs_are_judged_apart(trial: MakeTrial, study_folder: MakeFolder) -> None:
    points = tuple(
        LoadPoint(dataset="sharegpt", num_prompts=9, request_rate_per_s=16.0, keeps_prefix_cache=keeps)
        for keeps in (False, True)
    )
    folder = study_folder(
        trial(
            series=("fresh", "again"),
            points=points,
            runs=starts(1.0),
            telemetry_at=lambda point: {"prefix_cache_hit_rate": 0.5 if point.keeps_prefix_cache else 0.009},
        ),
        about={
            "experiment": "case3_prefix_caching",
            "series": {
                "fresh": {"published": "no_cp_pc_fresh", "run": "fresh"},
                "again": {"published": "no_cp_pc_2nd", "run": "second"},
            },
        },
    )
    study = Study.load(folder)

    found = {answer.claim.id: answer for answer in answers([study]) if answer.source == "simulated"}

    assert found["case3-d"].findings[0].ratio.value == pytest.approx(0.009)
    assert found["case3-d"].verdict is found["case3-e"].verdict is Verdict.HOLDS


def test_answers_put_figures_and_studies_side_by_side(make_study: Callable[..., Study]) -> None:
    study = make_study([7.0], [8.0])

    found = answers([study])

    assert {answer.claim.experiment for answer in found} == {"case1_chunked_prefill"}
    assert [(answer.claim.id, answer.source) for answer in found[:2]] == [
        ("case1-a", "published"),
        ("case1-a", "simulated"),
    ]
    assert len(answers([])) == len(CLAIMS)


def test_table_has_row_per_load_point_and_one_without_data(make_study: Callable[..., Study]) -> None:
    table = claims_report.table(answers([make_study([7.0], [8.0])]))

    ours = table[table["source"] == "simulated"]
    first = ours[ours["claim"] == "case1-a"].iloc[0]
    assert (first["load_point"], first["verdict"], first["basis"]) == ("16", "holds", "single start")
    assert first["ratio"] == pytest.approx(8 / 7)
    # Nobody ran chunks of 2048 here.
    missing = ours[ours["claim"] == "case1-b"].iloc[0]
    assert missing["note"] == "no numbers of cp2048"
    assert pd.isna(missing["ratio"])
    assert missing["verdict_overall"] == "no data"


def test_markdown_has_row_per_claim_and_column_per_source(make_study: Callable[..., Study]) -> None:
    written = claims_report.markdown(answers([make_study([7.0], [8.0])]))

    assert written.startswith("| claim | published at 16, 32, 1000 | simulated, single start at 16 |\n")
    # The article's figures, 8.14 / 6.5 and so on, and 8 / 7.
    assert (
        "| case1-a: Disabling chunked prefill beats the default at every QPS "
        "| **holds** 1.252, 1.160, 1.168 | **holds** 1.143 |" in written
    )
    assert "| **no data**: no numbers of cp2048 |" in written


def test_markdown_shows_interval_that_restarts_gave(make_study: Callable[..., Study]) -> None:
    (answer,) = (
        answer
        for answer in answers([make_study([7.0, 7.1, 7.2], [8.0, 8.1, 8.2])])
        if (answer.claim.id, answer.source) == ("case1-a", "simulated")
    )
    (finding,) = answer.findings

    written = claims_report.markdown([answer])

    assert (
        f"**holds** {finding.ratio.value:.3f} ({finding.ratio.low:.3f} to {finding.ratio.high:.3f}) |"
        in written
    )
    assert "single start" not in written


def test_two_studies_of_one_claim_stand_in_one_cell_by_name(make_study: Callable[..., Study]) -> None:
    study = make_study([7.0], [8.0])

    written = claims_report.markdown(answers([study, study]))

    assert f"| {study.name}: **holds** 1.143<br>{study.name}: **holds** 1.143 |" in written


def test_page_counts_claims_that_hold(make_study: Callable[..., Study]) -> None:
    page = claims_report.text([make_study([7.0], [8.0])])

    # Of Case 1's three claims the figures bear one out; this study has the series of one.
    assert "| published | vLLM 0.6.2 on 4 MI300X | 1 | 2 | 0 | 0 |" in page
    (ours,) = (line for line in page.splitlines() if line.startswith("| simulated |"))
    assert ours.endswith("| 1 | 0 | 0 | 2 |")


def test_where_claim_stands_is_said_once(make_study: Callable[..., Study]) -> None:
    found: tuple[Answer, ...] = answers([make_study([7.0], [8.0])])

    assert claims_report.wheres(found).count("- case1-a: Case 1:") == 1


def test_claims_are_written_for_readers_and_machines(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    reading, data = claims_report.write([make_study([7.0], [8.0])], out=tmp_path / "out")

    assert reading.read_text(encoding="utf-8").startswith("# Claims\n\nWhat the source says")
    assert set(pd.read_csv(data)["source"]) == {"published", "simulated"}


def test_answers_of_studies_that_are_gone_are_taken_over(
    make_study: Callable[..., Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study([7.0, 7.1, 7.2], [8.0, 8.1, 8.2])
    before, data = claims_report.write([study], out=tmp_path / "before")

    # Of the published figures there are fresh answers; of simulated ones there is no study now.
    merged = claims_report.with_earlier(answers([]), claims_report.kept(data))
    assert [answer.source for answer in merged if answer.claim.id == "case1-a"] == ["published", "simulated"]

    words = ["claims", str(study.folder), "--out", str(tmp_path / "after"), "--with", str(data)]
    assert cli.main(words) == 0
    assert (tmp_path / "after" / "claims.md").read_text() == before.read_text()
    assert (tmp_path / "after" / "claims.csv").read_text() == data.read_text()

    capsys.readouterr()
    assert cli.main(["claims", "--with", str(before)]) == 2
    assert "claims.md cannot be read as answers" in capsys.readouterr().err


def test_study_without_claims_says_so(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial(runs=starts(1.0))))

    assert "Nobody's claims about steps are on record." in claims_report.text([study])
    assert report.claims_section(study) == ""


def test_report_of_study_includes_its_claims(make_study: Callable[..., Study]) -> None:
    section = report.claims_section(make_study([7.0], [8.0]))

    assert section.startswith("## Claims of the source\n\n| claim |")
    assert "| **holds** 1.143 |" in section


def test_claims_command_prints_and_writes(
    make_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study([7.0], [8.0]).folder

    assert cli.main(["claims", str(folder)]) == 0

    printed = capsys.readouterr().out
    assert "case1-a" in printed
    assert printed.endswith(f"{folder / 'claims.md'}\n{folder / 'claims.csv'}\n")


def test_claims_command_alone_judges_published_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["claims"]) == 0

    printed = capsys.readouterr().out
    assert "case8-c" in printed
    assert "simulated" not in printed
