"""Secrets at rest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from forebay.errors import CannotStart
from forebay.sealed import NotSealed, Seal, SnapshotFile

SECRET = b"s" * 32
NOW = 1_800_000_000.0
WEEK_S = 7 * 86_400.0


def seal(purpose: str = "tests") -> Seal:
    return Seal(SECRET, purpose)


def test_what_is_sealed_is_opened_by_the_same_key_for_the_same_purpose() -> None:
    assert seal().open(seal().close(b"payload")) == b"payload"
    assert seal().open(seal().close(b"")) == b""


def test_nothing_of_it_can_be_read_and_no_two_sealings_are_alike() -> None:
    first, second = seal().close(b"payload"), seal().close(b"payload")
    assert first != second
    assert b"payload" not in first


@pytest.mark.parametrize("other", [Seal(SECRET, "another purpose"), Seal(b"t" * 32, "tests")])
def test_another_purpose_or_another_key_opens_nothing(other: Seal) -> None:
    with pytest.raises(NotSealed):
        other.open(seal().close(b"payload"))


def test_a_sealed_value_cannot_change_its_row() -> None:
    sealed = seal().close(b"payload", b"backend 1")
    assert seal().open(sealed, b"backend 1") == b"payload"
    for bound_to in (b"backend 2", b""):
        with pytest.raises(NotSealed):
            seal().open(sealed, bound_to)


def test_every_change_is_noticed() -> None:
    sealed = seal().close(b"payload")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(NotSealed):
            seal().open(bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(NotSealed):
            seal().open(sealed[:length])


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(SECRET + b"\n")
    assert Seal.from_file(file, "tests").open(seal().close(b"x")) == b"x"
    with pytest.raises(CannotStart):
        Seal.from_file(tmp_path / "absent", "tests")


# --- snapshots --------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> SnapshotFile:
    return SnapshotFile(tmp_path / "snapshots" / "principals", seal(), WEEK_S)


def test_a_snapshot_is_read_back_until_it_is_too_old(file: SnapshotFile) -> None:
    assert file.read(NOW) is None
    file.write(b"keys", NOW)
    assert file.read(NOW) == b"keys"
    assert file.read(NOW + WEEK_S) == b"keys"
    assert file.read(NOW + WEEK_S + 1) is None


def test_the_last_snapshot_replaces_the_one_before(file: SnapshotFile) -> None:
    file.write(b"old", NOW)
    file.write(b"new", NOW + 1)
    assert file.read(NOW + 1) == b"new"


def test_a_snapshot_is_for_its_owner_alone_and_leaves_nothing_beside_it(file: SnapshotFile, tmp_path: Path) -> None:
    file.write(b"keys", NOW)
    (only,) = (tmp_path / "snapshots").iterdir()
    assert stat.S_IMODE(only.stat().st_mode) == 0o600
    assert b"keys" not in only.read_bytes()


def test_a_snapshot_that_cannot_be_used_is_none_and_said(
    file: SnapshotFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(b"keys", NOW)
    path = tmp_path / "snapshots" / "principals"
    for content in (b"", b"rubbish", path.read_bytes()[:-1], Seal(b"t" * 32, "tests").close(bytes(20))):
        path.write_bytes(content)
        assert file.read(NOW) is None
    path.unlink()
    path.mkdir()
    assert file.read(NOW) is None
    assert [vars(record)["action"] for record in caplog.records] == ["snapshot_unreadable"] * 5


def test_snapshots_with_similar_names_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    really_open = os.open

    def note(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(str(path))
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", note)
    for name in ("fleet.gateway-1", "fleet.gateway-2"):
        SnapshotFile(tmp_path / name, seal(), WEEK_S).write(b"x", NOW)
    assert len(set(opened)) == 2


def test_a_write_that_fails_half_way_leaves_the_snapshot_before_it(
    file: SnapshotFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(b"old", NOW)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        file.write(b"new", NOW + 1)
    assert file.read(NOW + 1) == b"old"
