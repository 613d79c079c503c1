"""An article from studies, ready for a site generator: relative links, figures, claims, commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import blog, cli
from analysis.study import Study
from sweeper.records import TrialResult

MakeTrial = Callable[..., TrialResult]
MakeFolder = Callable[..., Path]


@pytest.fixture
def study(trial: MakeTrial, study_folder: MakeFolder) -> Study:
    return Study.load(
        study_folder(
            trial(
                series=("default",),
                knobs={"enable_chunked_prefill": True},
                runs=[[{"request_throughput_per_s": 7.0}]],
            ),
            trial(
                series=("no_chunk",),
                knobs={"enable_chunked_prefill": False},
                runs=[[{"request_throughput_per_s": 8.0}]],
            ),
            about={
                "experiment": "case1_chunked_prefill",
                "question": 'Does a "chunk" pay?',
                "source": "Case 1",
                "series": {
                    "default": {"label": "Default [512]", "published": "default"},
                    "no_chunk": {"label": "No chunks", "published": "no_cp"},
                },
            },
        )
    )


def test_article_stands_alone_in_its_folder(study: Study, tmp_path: Path) -> None:
    written = blog.write([study], out=tmp_path / "post")

    index = written[-1]
    assert index == tmp_path / "post" / "index.md"
    text = index.read_text(encoding="utf-8")
    links = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", text)
    assert [link for _, link in links] == ["figures/steps/request_throughput_per_s.png"]
    assert all((index.parent / link).is_file() for _, link in links)
    # Brackets would end the alternative text early.
    assert links[0][0] == "Requests per second, simulated, for Default (512), No chunks"


def test_article_has_all_that_reader_needs(study: Study) -> None:
    text = blog.text([study], pictures=[])

    assert text.startswith(
        '---\ntitle: "Does a \\"chunk\\" pay?"\ndate: 2023-11-14\nprovenance: ["simulated"]\n'
        'studies: ["steps"]\n---\n\n## Does a "chunk" pay?\n\n**Simulated: no GPU was measured.**'
    )
    assert "The question is from: Case 1." in text
    assert "### Environment\n\n| what | value |" in text
    assert "### Claims of the source\n\n| claim |" in text
    assert "python -m sweeper +experiment=case1_chunked_prefill platform=simulated" in text
    assert "vllm serve meta-llama/Llama-3.1-70B-Instruct --port 8000 --enable-chunked-prefill=False" in text


def test_command_repeats_latest_invocation_without_private_paths(study: Study) -> None:
    for time, overrides in (
        ("2026-01-01", ["+experiment=old"]),
        (
            "2026-01-02",
            [
                "+experiment=case1_chunked_prefill",
                "engine.python=/home/me/venv/bin/python",
                "study.outputs=/home/me/out",
                "repeats=3",
            ],
        ),
    ):
        folder = study.folder / "runs" / time / ".hydra"
        folder.mkdir(parents=True)
        (folder / "overrides.json").write_text(json.dumps(overrides), encoding="utf-8")

    assert blog.repeat_command(study) == (
        "python -m sweeper +experiment=case1_chunked_prefill engine.python=/path/to/vllm/bin/python repeats=3"
    )


def test_study_without_experiment_has_no_command(trial: MakeTrial, study_folder: MakeFolder) -> None:
    study = Study.load(study_folder(trial()))

    assert blog.repeat_command(study) == ""
    assert "No command was recorded." in blog.text([study], pictures=[])


def test_several_studies_are_sections_of_one_article(study: Study) -> None:
    text = blog.text([study, study], pictures=[])

    assert 'title: "Does a \\"chunk\\" pay? And 1 more question"' in text
    assert text.count('## Does a "chunk" pay?') == 2


def test_blog_command_prints_what_it_wrote(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["blog", str(tmp_path / "post"), str(study.folder)]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "post" / "index.md")


def test_studies_of_one_name_show_each_their_own_charts(
    trial: MakeTrial, study_folder: MakeFolder, tmp_path: Path
) -> None:
    one, other = (
        Study.load(study_folder(trial(runs=[[{"request_throughput_per_s": value}]]), name=f"{folder}/steps"))
        for folder, value in (("monday", 7.0), ("tuesday", 8.0))
    )
    assert one.name == other.name
    index = blog.write([one, other], out=tmp_path / "post")[-1]
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", index.read_text(encoding="utf-8"))
    first, second = ((index.parent / link).read_bytes() for link in links)
    assert first == (one.folder / "figures" / "request_throughput_per_s.png").read_bytes()
    assert second == (other.folder / "figures" / "request_throughput_per_s.png").read_bytes()
    assert first != second
