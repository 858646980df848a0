"""The words of `forebay backup`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.errors import BadInput, NotFound
from forebay.local.backup.cli import backup


def run(*words: str | Path) -> BaseException | None:
    """What it raises, where there is no Forebay to back up."""
    return CliRunner().invoke(backup, [str(word) for word in words]).exception


def test_a_slash_at_the_end_makes_the_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    nothing = ("--data-dir", tmp_path / "none")
    assert isinstance(run(f"{tmp_path}/kept/here/", *nothing), NotFound)
    assert (tmp_path / "kept" / "here").stat().st_mode & 0o777 == 0o700
    assert isinstance(run(tmp_path / "file", *nothing), NotFound)
    assert not (tmp_path / "file").exists()


def test_a_file_in_the_place_of_that_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed = run(f"{tmp_path}/file/", "--data-dir", tmp_path / "none")
    assert isinstance(failed, BadInput)
    assert "cannot be made a folder" in str(failed)


@pytest.mark.parametrize("words", [("--json",), ("to", "--json")])
def test_the_word_for_making_one_may_be_left_out(words: tuple[str, ...], tmp_path: Path) -> None:
    assert isinstance(run(*words, tmp_path, "--data-dir", tmp_path / "none"), NotFound)
