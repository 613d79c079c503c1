"""A user's own files: what Hydra would misread is named by file and line, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper import cli, config
from sweeper.config import own_files
from sweeper.errors import ConfigError

CONTENT = "study: {experiment: mine, question: 'Which?'}\nspace: {knobs: {max_num_seqs: [1, 2]}}\n"
DIRECTIVE = "# @package _global_\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    return Path("my_conf")


def write(folder: Path, text: str, name: str = "experiment/mine.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


def refusal(folder: Path | None, choice: str = "+experiment=mine") -> str:
    with pytest.raises(ConfigError) as caught:
        config.compose_run([choice, "platform=simulated"], config_dir=folder)
    return str(caught.value)


READ = {
    "as documented": DIRECTIVE + CONTENT,
    "behind empty lines": "\n\n" + DIRECTIVE + CONTENT,
    "with Windows' line ends": (DIRECTIVE + CONTENT).replace("\n", "\r\n"),
    "with a comment below it": DIRECTIVE + "# my question\n" + CONTENT,
    "without blanks": "#@package _global_\n" + CONTENT,
}


@pytest.mark.parametrize("how", READ)
def test_file_is_laid_over_everything(how: str, folder: Path) -> None:
    write(folder, READ[how])
    composed = config.compose_run(["+experiment=mine", "platform=simulated"], config_dir=folder)
    assert composed["space"]["knobs"] == {"max_num_seqs": [1, 2]}


MISREAD = {
    "a comment before the directive": (
        "# my_conf/experiment/mine.yaml\n" + DIRECTIVE + CONTENT,
        "my_conf/experiment/mine.yaml, line 2: '# @package _global_' stands below line 1, where Hydra takes "
        "it for a comment; expected it in the first line. Move it there.",
    ),
    "content before the directive": (
        CONTENT + DIRECTIVE,
        "my_conf/experiment/mine.yaml, line 3: '# @package _global_' stands below line 1,",
    ),
    "no directive": (
        CONTENT,
        "my_conf/experiment/mine.yaml, line 1: has no '# @package _global_'; expected it as the first line "
        "of a file that is laid over the whole configuration. Put it there.",
    ),
    "a byte order mark": (
        "\ufeff" + DIRECTIVE + CONTENT,
        "my_conf/experiment/mine.yaml, line 1: begins with a byte order mark,",
    ),
    "words behind the directive": (
        "# @package _global_ # for all\n" + CONTENT,
        "my_conf/experiment/mine.yaml, line 1: is '# @package _global_ # for all'; expected "
        "'# @package _global_' and no more.",
    ),
    "another package": (
        "# @package _group_\n" + CONTENT,
        "my_conf/experiment/mine.yaml, line 1: is '# @package _group_'; expected '# @package _global_'",
    ),
    "tabs": (
        DIRECTIVE + "study:\n\texperiment: mine\n",
        "mine.yaml, line 3: is not YAML: found character '\\t' that cannot start any token.",
    ),
}


@pytest.mark.parametrize("how", MISREAD)
def test_what_hydra_would_misread_is_named_by_file_and_line(how: str, folder: Path) -> None:
    content, message = MISREAD[how]
    write(folder, content)
    assert message in refusal(folder)


@pytest.mark.parametrize("head", ["# a setting\n" + DIRECTIVE, "# @package _global_ and more\n", ""])
def test_same_of_file_that_another_one_chooses(head: str, folder: Path) -> None:
    write(folder, head + "knobs: {max_model_len: 8}\n", "setting/own.yaml")
    write(folder, DIRECTIVE + "defaults: [/setting: own]\n" + CONTENT)
    assert "my_conf/setting/own.yaml, line" in refusal(folder)


def test_mistake_of_another_file_disturbs_nobody(folder: Path) -> None:
    write(folder, CONTENT, "experiment/other.yaml")
    write(folder, DIRECTIVE + CONTENT)
    config.compose_run(["+experiment=mine", "platform=simulated"], config_dir=folder)


PLACES = {
    "another ending": (
        "experiment/mine.yml",
        "my_conf",
        " my_conf/experiment/mine.yml is there: names of files end in .yaml here; rename it.",
    ),
    "beside its group": (
        "mine.yaml",
        "my_conf",
        " my_conf/mine.yaml is there: move it to my_conf/experiment/mine.yaml.",
    ),
    "the group for the folder": (
        "experiment/mine.yaml",
        "my_conf/experiment",
        " my_conf/experiment/mine.yaml is there: give --config-dir my_conf.",
    ),
    "no folder": (
        "experiment/mine.yaml",
        None,
        " my_conf/experiment/mine.yaml is there: name its folder with --config-dir my_conf.",
    ),
}


@pytest.mark.parametrize("where", PLACES)
def test_file_that_lies_elsewhere_is_found(where: str, folder: Path) -> None:
    name, given, message = PLACES[where]
    write(folder, DIRECTIVE + CONTENT, name)
    told = refusal(None if given is None else Path(given))
    assert told.startswith(f"command line: experiment=mine: there is no such experiment.{message}")


def test_config_dir_is_folder(folder: Path) -> None:
    path = write(folder, DIRECTIVE + CONTENT)
    assert refusal(path).startswith(f"--config-dir: '{path}' is a file; expected a folder.")
    assert refusal(Path("nowhere")).startswith("--config-dir: 'nowhere' is not there; expected a folder.")


def test_help_beside_experiment_is_about_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h"):
        assert cli.main(["+experiment=case2_sched_steps", word]) == cli.OK
        told = capsys.readouterr().out
        assert "Question: how many steps should vLLM plan at once?" in told
        assert "python -m sweeper +experiment=case2_sched_steps plan=true" in told
    write(folder, DIRECTIVE + "# Question: mine?\n" + CONTENT)
    assert cli.main(["--help", "--config-dir", "my_conf", "+experiment=mine"]) == cli.OK
    assert cli.main(["--config-dir", "my_conf", "+experiment=mine", "-h"]) == cli.OK
    assert "Question: mine?" in capsys.readouterr().out
    assert cli.main(["platform=cpu", "--help"]) == cli.OK
    assert "commands\n" in capsys.readouterr().out
    assert cli.main(["+experiment=cas2_sched_steps", "--help"]) == cli.MISTAKE
    assert "Did you mean 'case2_sched_steps'?" in capsys.readouterr().err


def test_head_of_file_is_its_comment(folder: Path) -> None:
    path = write(folder, DIRECTIVE + "# Question: a?\n#   Source: b\n" + CONTENT + "# not this\n")
    assert own_files.head_of(path) == "Question: a?\n  Source: b"
