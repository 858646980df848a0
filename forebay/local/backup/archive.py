"""The file that a backup is: a compressed tar, sealed under a passphrase if one is given, whose last member tells the digest
of each other. What is in it is `backup`'s part."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from forebay.errors import BadInput, ForebayError, NotFound
from forebay.local.backup.aside import Aside
from forebay.local.backup.seal import MAGIC, OpeningReader, SealingWriter

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 20
_LONGEST_MANIFEST = 256 << 20
"""Bytes: a million files are told in fewer. It is read before anything is known of who wrote it."""
_GZIP = b"\x1f\x8b"


class BackupDamaged(ForebayError):
    """The backup is not what was written."""


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    facts: Mapping[str, Any]
    """When and of what the backup was made: `made_at`, `forebay`, `postgres`, `streams`, `warnings` …"""
    members: tuple[Member, ...]

    def as_json(self) -> dict[str, Any]:
        members = [{"name": m.name, "size": m.size, "sha256": m.sha256} for m in self.members]
        return {"format": FORMAT, **self.facts, "members": members}


class ArchiveWriter:
    """Made by `write_archive`."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members: dict[str, Member] = {}

    @property
    def members(self) -> Mapping[str, Member]:
        return self._members

    def add_file(self, name: str, path: Path) -> None:
        """As long as it is when it is opened: what is appended meanwhile is left out. Raises FileNotFoundError."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            self._add(name, _Exactly(file, status.st_size), status.st_size, status.st_mode & 0o777)

    def add_aside(self, name: str, aside: Aside) -> None:
        self._add(name, _Exactly(aside.read_back(), aside.size), aside.size, 0o600)

    def add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, _Exactly(io.BytesIO(content), len(content)), len(content), 0o600)

    def finish(self, facts: Mapping[str, Any]) -> Manifest:
        manifest = Manifest(facts, tuple(self._members.values()))
        content = json.dumps(manifest.as_json(), indent=1).encode()
        self._tar.addfile(_header(MANIFEST, len(content), 0o600), io.BytesIO(content))
        return manifest

    def _add(self, name: str, content: _Exactly, size: int, mode: int) -> None:
        self._tar.addfile(_header(name, size, mode), content)
        self._members[name] = Member(name, size, content.digest.hexdigest())


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class _Exactly:
    """So many bytes of a file and no more; zeros for those that it lost meanwhile."""

    source: _Reads
    left: int
    digest: Any = field(default_factory=hashlib.sha256)

    def read(self, size: int = -1) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        content = self.source.read(size)
        content += bytes(size - len(content))
        self.left -= size
        self.digest.update(content)
        return content


@contextmanager
def write_archive(file: Path, passphrase: bytes | None) -> Iterator[ArchiveWriter]:
    """Writes beside `file` and moves it there when left in good order: half a backup has never its name. Only its owner may
    read it. Call `finish` last."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw:
            target: Any = raw if passphrase is None else SealingWriter(raw, passphrase)
            with (
                gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=1) as packed,
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                yield ArchiveWriter(tar)
            if passphrase is not None:
                target.close()
            raw.flush()
            os.fsync(raw.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def is_sealed(file: Path) -> bool:
    """Raises NotFound, BackupDamaged."""
    try:
        with file.open("rb") as raw:
            start = raw.read(len(MAGIC))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"There is no backup {file}: give the file that `forebay backup` wrote.") from error
    if start != MAGIC and not start.startswith(_GZIP):
        raise BackupDamaged(f"{file} is no backup of Forebay's: it begins neither like one nor like a sealed one.")
    return start == MAGIC


def verify_archive(file: Path, passphrase: bytes | None) -> Manifest:
    """Reads all of it. Raises BackupDamaged, NotOpened, NotFound, BadInput (a passphrase is missing)."""
    found: dict[str, Member] = {}
    told: dict[str, Any] | None = None
    with _damage_told(file):
        for name, _, content in _members(file, passphrase):
            if told is not None:
                raise BackupDamaged(f"{file}: there is something behind its manifest.")
            if name == MANIFEST:
                told = _parse(file, content.read(_LONGEST_MANIFEST + 1))
            else:
                found[name] = _measured(name, content)
    if told is None:
        raise BackupDamaged(f"{file} has no manifest: it was not written to its end.")
    members = tuple(Member(m["name"], m["size"], m["sha256"]) for m in told.pop("members"))
    if wrong := [m.name for m in members if found.get(m.name) != m] or sorted(found.keys() - {m.name for m in members}):
        raise BackupDamaged(f"{file}: these are not what was written: {', '.join(wrong[:10])}. Use another backup.")
    del told["format"]
    return Manifest(told, members)


def extract_archive(file: Path, passphrase: bytes | None, to: Path, manifest: Manifest) -> None:
    """Into an empty folder, once it is verified: what is not as `manifest` says is not believed now either."""
    wanted = {member.name: member for member in manifest.members}
    with _damage_told(file):
        for name, mode, content in _members(file, passphrase):
            if name == MANIFEST:
                continue
            path = to / name
            _make_private(path.parent, to)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode & 0o700 | mode & 0o044)
            with os.fdopen(descriptor, "wb") as target:
                if _measured(name, content, target) != wanted.get(name):
                    raise BackupDamaged(f"{file} changed while it was read, at {name}.")


def _members(file: Path, passphrase: bytes | None) -> Iterator[tuple[str, int, Any]]:
    """(name, mode, content) of each, in their order."""
    sealed = is_sealed(file)
    if sealed and passphrase is None:
        raise BadInput(f"{file} is sealed: give the file with its passphrase, --passphrase-file FILE.")
    with file.open("rb") as raw:
        source: Any = raw
        if sealed and passphrase is not None:
            raw.read(len(MAGIC))
            source = OpeningReader(raw, passphrase)
        with gzip.GzipFile(fileobj=source, mode="rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or not _is_inside(entry.name):
                    raise BackupDamaged(f"{file} holds {entry.name!r}, which no backup of Forebay's does.")
                yield entry.name, entry.mode, content
            while unpacked.read(_CHUNK):  # to its last byte
                pass


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BackupDamaged(f"{file} cannot be read to its end ({error}): use another backup.") from error


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def _make_private(folder: Path, root: Path) -> None:
    """All that is missing between the two as well, which `mkdir` would leave open."""
    if folder != root:
        _make_private(folder.parent, root)
    folder.mkdir(mode=0o700, exist_ok=True)


def _parse(file: Path, content: bytes) -> dict[str, Any]:
    if len(content) > _LONGEST_MANIFEST:
        raise BackupDamaged(f"{file}: its manifest is longer than any that Forebay writes.")
    try:
        told = json.loads(content)
        known = told["format"] == FORMAT and isinstance(told["members"], list)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupDamaged(f"{file}: its manifest cannot be read.") from error
    if not known:
        raise BackupDamaged(
            f"{file} was made by a newer Forebay (format {told['format']}, known here is {FORMAT}): restore it with that."
        )
    parsed: dict[str, Any] = told
    return parsed


def _measured(name: str, content: BinaryIO, target: BinaryIO | None = None) -> Member:
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return Member(name, size, digest.hexdigest())


def _header(name: str, size: int, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, mode
    return header
