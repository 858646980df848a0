"""The file that a backup is: whole, closed to others, and honest about damage."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from pathlib import Path

import pytest

from forebay.errors import BadInput, NotFound
from forebay.local.backup.archive import (
    BackupDamaged,
    Manifest,
    extract_archive,
    is_sealed,
    verify_archive,
    write_archive,
)
from forebay.local.backup.seal import NotOpened

PASSPHRASE = b"correct horse battery staple"
BIG = bytes(range(256)) * 12_000  # several sealed pieces
SEALED = pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "sealed"])


def _write(place: Path, passphrase: bytes | None) -> tuple[Path, Manifest]:
    source = place / "source"
    source.write_bytes(BIG)
    source.chmod(0o640)
    file = place / "a.backup"
    with write_archive(file, passphrase) as archive:
        archive.add_bytes("secrets/pepper", b"a secret")
        archive.add_file("content/big", source)
        manifest = archive.finish({"made_at": "now"})
    return file, manifest


@SEALED
def test_what_goes_in_comes_out_and_only_the_owner_may_read_the_file(tmp_path: Path, passphrase: bytes | None) -> None:
    file, manifest = _write(tmp_path, passphrase)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert is_sealed(file) == (passphrase is not None)
    assert verify_archive(file, passphrase) == manifest
    extract_archive(file, passphrase, tmp_path / "out", manifest)
    assert (tmp_path / "out" / "content" / "big").read_bytes() == BIG
    assert (tmp_path / "out" / "secrets" / "pepper").read_bytes() == b"a secret"
    assert stat.S_IMODE((tmp_path / "out" / "secrets" / "pepper").stat().st_mode) == 0o600
    if passphrase:
        assert b"secrets/pepper" not in file.read_bytes()


@SEALED
def test_a_changed_byte_or_a_missing_end_is_noticed_wherever_it_is(tmp_path: Path, passphrase: bytes | None) -> None:
    file, _ = _write(tmp_path, passphrase)
    whole = file.read_bytes()
    for place in range(30, len(whole), len(whole) // 12):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises((BackupDamaged, NotOpened)):
            verify_archive(file, passphrase)
        file.write_bytes(whole[:place])
        with pytest.raises((BackupDamaged, NotOpened)):
            verify_archive(file, passphrase)
    file.write_bytes(whole)
    verify_archive(file, passphrase)


def test_another_passphrase_opens_nothing_and_none_is_asked_for(tmp_path: Path) -> None:
    file, _ = _write(tmp_path, PASSPHRASE)
    with pytest.raises(NotOpened):
        verify_archive(file, b"another passphrase")
    with pytest.raises(BadInput, match="--passphrase-file"):
        verify_archive(file, None)


def test_a_backup_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with write_archive(tmp_path / "a.backup", None) as archive:
            archive.add_bytes("a", b"b")
            archive.add_file("b", tmp_path / "none")

    with pytest.raises(FileNotFoundError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_backup_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify_archive(tmp_path / "none", None)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BackupDamaged, match="no backup"):
        verify_archive(tmp_path / "text", None)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str) -> None:
    file = tmp_path / "evil.backup"
    with tarfile.open(file, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(BackupDamaged, match="which no backup"):
        verify_archive(file, None)
    with pytest.raises(BackupDamaged, match="which no backup"):
        extract_archive(file, None, tmp_path / "out", Manifest({}, ()))


def test_a_member_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    file, manifest = _write(tmp_path, None)
    with pytest.raises(BackupDamaged, match="changed while it was read"):
        extract_archive(file, None, tmp_path / "out", Manifest({}, manifest.members[:1]))


def test_folders_between_are_as_closed_as_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "a.backup"
    with write_archive(file, None) as archive:
        archive.add_bytes("content/ab/cd/one", b"x")
        manifest = archive.finish({})
    extract_archive(file, None, tmp_path / "out", manifest)
    for folder in ("content", "content/ab", "content/ab/cd"):
        assert stat.S_IMODE((tmp_path / "out" / folder).stat().st_mode) == 0o700


def test_what_unpacks_to_far_more_than_it_is_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    read = gzip.GzipFile.read

    def measured(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        given = read(self, size)
        most.append(len(given))
        return given

    monkeypatch.setattr(gzip.GzipFile, "read", measured)
    file, manifest = _write(tmp_path, None)
    with file.open("ab") as behind, gzip.GzipFile(fileobj=behind, mode="wb") as packed:
        for _ in range(32):
            packed.write(bytes(1 << 20))
    assert verify_archive(file, None) == manifest
    assert max(most) <= 1 << 20


def test_a_manifest_without_an_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.local.backup.archive._LONGEST_MANIFEST", 1000)
    file = tmp_path / "a.backup"
    with write_archive(file, None) as archive:
        archive.finish({"made_at": "now" * 1000})
    with pytest.raises(BackupDamaged, match="longer than any"):
        verify_archive(file, None)
