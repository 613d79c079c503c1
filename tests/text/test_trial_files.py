"""A file of a trial that cannot be written fails that trial, with the path and the system's reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import EngineError
from sweeper.records import FailureClass
from sweeper.text import trial_files
from tests.surroundings import full_disk


def test_file_is_written_with_folders_above_it(tmp_path: Path) -> None:
    path = trial_files.write(tmp_path / "trial" / "raw" / "load.json", "{}")
    assert path.read_text() == "{}"
    assert not trial_files.clear(path).exists()
    assert trial_files.clear(tmp_path / "other" / "load.json").parent.is_dir()


def test_no_room_is_surroundings_fault_and_names_file(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(EngineError) as caught:
        trial_files.write(tmp_path / "load.json", "x" * 100)
    assert caught.value.failure is FailureClass.INFRASTRUCTURE
    assert str(caught.value) == (
        f"{tmp_path}/load.json: cannot be written (File too large); expected a writable folder with free "
        "space for the files of a trial. Make room, or allow writing there, and repeat."
    )


def test_folder_that_cannot_be_made_says_what_is_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("a file")
    with pytest.raises(EngineError, match=r"/trials/one: cannot be written \(.*/trials is no folder\)"):
        trial_files.clear(tmp_path / "trials" / "one" / "load.json")
