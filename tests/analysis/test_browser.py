"""The page of a study in a browser: it needs nothing but itself, and shows texts as texts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import report
from analysis.browser import document
from analysis.browser.contents import contents
from analysis.study import Study
from sweeper.records import LoadPoint, Provenance, TrialResult
from tests.analysis.conftest import MARKUP

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def told_by(page: str) -> dict[str, Any]:
    """Read the data that a page carries."""
    found = re.search(r"^let DATA = (.*);$", page, re.MULTILINE)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def test_report_writes_its_page_beside_it(searched: Path) -> None:
    files = report.write(searched)

    assert files.page == searched / "report.html"
    page = files.page.read_text(encoding="utf-8")
    assert told_by(page) == json.loads(json.dumps(contents(Study.load(searched))))
    assert "SIMULATED - no GPU was measured" in page


def test_page_loads_nothing(searched: Path) -> None:
    page = document.page(contents(Study.load(searched)))

    assert "default-src 'none'" in page
    assert "connect-src 'none'" in page
    assert not re.search(r"<link|<iframe|@import|\bsrc=[\"']?http|url\(", page.replace(MARKUP, ""))


def test_markup_in_texts_cannot_leave_the_data(searched: Path) -> None:
    page = document.page(contents(Study.load(searched)))

    assert "<img" not in page
    assert page.count("</script>") == 1
    assert told_by(page)["title"].endswith(MARKUP)


def test_best_keeps_the_bound_and_changes_have_a_base(searched: Path) -> None:
    told = contents(Study.load(searched))

    best = told["settings"][0]
    # 8 steps break the bound: 50 x 8 = 400 ms. Of the others 64 / 10 + 4 = 10.4 is the most.
    assert (best["standing"], best["breaks"], best["knobs"]) == ("best", "", [64, 4])
    assert best["values"][0][0] == pytest.approx(10.4)
    fastest = max(told["settings"], key=lambda one: one["values"][0][0] if one["values"][0] else 0)
    assert fastest["knobs"] == [64, 8]
    assert fastest["breaks"] == "p99_ttft_ms <= 200 (is 400, 100 % over)"
    titles = [column["title"] for column in told["columns"]]
    assert titles == ["change", "p99 TTFT (ms) ≤ 200"]
    assert fastest["further"][1] == [400.0, "× 400, 100 % over"]
    base = int(re.search(r"#(\d+)", told["against"])[1])  # type: ignore[index]
    assert told["settings"][base - 1]["further"][0] == [0.0, "0 %"]


def test_search_has_its_order_and_the_importance_of_knobs(searched: Path) -> None:
    told = contents(Study.load(searched))

    assert sorted(told["search"]["order"]) == list(range(14))
    shares = dict(told["search"]["importance"])
    assert set(shares) == {"max_num_seqs", "num_scheduler_steps"}
    assert sum(shares.values()) == pytest.approx(1)
    (pair,) = told["tradeoffs"]
    assert (pair["bound"], pair["xHigher"], len(pair["points"])) == (200.0, False, 12)


def test_failures_of_one_reason_are_one_with_their_log(searched: Path) -> None:
    (failure,) = contents(Study.load(searched))["failures"]

    assert (failure["class"], failure["message"]) == ("out_of_memory", "HIP out of memory")
    assert len(failure["settings"]) == 2
    assert failure["remedy"].startswith("lower max_num_batched_tokens, ")
    assert failure["lines"].splitlines()[-1] == "HIP out of memory"
    assert "hunter22secret" not in failure["lines"]


def test_grid_of_series_is_no_search(trial: MakeTrial, study_folder: MakeFolder) -> None:
    points = [LoadPoint(dataset="sharegpt", num_prompts=1000, request_rate_per_s=r) for r in (1.0, 2.0)]
    one = trial(
        series=("ten",),
        points=tuple(points),
        runs_at=lambda point: [[{"request_throughput_per_s": point.request_rate_per_s}]],
        provenance=Provenance.MEASURED,
    )
    about = {"series": {"ten": {"label": "10 <b>steps</b>"}}, "config": {"search": {"method": "grid"}}}
    told = contents(Study.load(study_folder(one, about=about)))

    assert told["search"] is None
    assert told["band"] == ""
    assert told["settings"][0]["series"] == "10 <b>steps</b>"
    (metric,) = [one for one in told["metrics"] if one["title"] == "Requests per second"]
    assert metric["loads"] == ["1 QPS", "2 QPS"]
    assert [point["v"][0] for point in metric["points"]] == [1.0, 2.0]


def dom_of(page: Path, profile: Path) -> tuple[str, str]:
    """Return a page's tree after its scripts have run, and what the browser complained of."""
    assert CHROMIUM is not None
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}")
    told = ("--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1400,1000")
    done = subprocess.run(
        [CHROMIUM, *options, *told, "--dump-dom", page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_browser_draws_the_page_from_a_file_and_runs_no_label(searched: Path, tmp_path: Path) -> None:
    drawn, complaints = dom_of(document.write(Study.load(searched)), tmp_path / "profile")

    assert not complaints
    body = drawn[drawn.index("<body>") : drawn.index("<noscript>")]
    assert "<title>acted" not in drawn
    assert "<img" not in body
    assert "&lt;img src=x onerror=" in body
    # The first ten of fourteen settings, and a heading.
    assert body[body.index('id="table"') : body.index('id="all"')].count("<tr") == 11
    assert "Show all 14" in body
    titles = re.findall(r"<h3>(.*?)</h3>", body)
    for title in ("History of the search", "Importance of knobs", "Requests per second"):
        assert title in titles
    assert "Requests per second: max_num_seqs and num_scheduler_steps" in titles
    charts = re.findall(r"<svg.*?</svg>", body, re.DOTALL)
    assert len(charts) >= 6
    assert all("SIMULATED - no GPU was measured" in chart for chart in charts)
    assert all(chart.count("<rect") <= 16 for chart in charts)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_bars_of_answers_won_begin_at_zero(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    """Of 100 answers the second has three more right than the default, the third six: the longest bar."""

    def answering(n: int) -> TrialResult:
        told = "1" * (50 + 3 * n) + "0" * (50 - 3 * n)
        made = trial(
            knobs={"max_num_seqs": n} if n else {}, runs=[[{"request_throughput_per_s": 3.0 - n / 2}]]
        )
        return replace(made, accuracy={"accuracy_of": "q", "accuracy_questions": 100, "accuracy_right": told})

    about = {"constraints": [{"metric": "accuracy_loss", "limit": 0.05, "is_upper": True}]}
    folder = study_folder(*map(answering, range(3)), about=about)
    drawn, complaints = dom_of(document.write(Study.load(folder)), tmp_path / "profile")

    assert not complaints
    chart = drawn[drawn.index("<h3>Right answers lost against the default (share)</h3>") :]
    bars = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="14"', chart.split("</svg>")[0])
    (default, none), (second, three), (third, six) = ((float(x), float(width)) for x, width in bars)
    assert none == 1
    assert six == pytest.approx(2 * three)
    # All end at zero, where the default's begins.
    assert second + three == pytest.approx(default)
    assert third + six == pytest.approx(default)
