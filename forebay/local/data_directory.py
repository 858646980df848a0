"""Where a whole Forebay keeps what it must not lose, held by one `forebay up` at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forebay.errors import CannotStart

_LEAST_FREE = 500 * 1000**2


@dataclass(frozen=True, slots=True)
class DataDirectory:
    root: Path

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def content(self) -> Path:
        """The bytes of the files that clients upload."""
        return self.root / "content"

    @property
    def connection_file(self) -> Path:
        return self.root / "connection.json"

    @property
    def admin_key_file(self) -> Path:
        """The first admin's key."""
        return self.root / "admin.key"

    @property
    def processes_file(self) -> Path:
        """Which process is which part, as JSON: name → process id."""
        return self.root / "run" / "processes.json"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"


def default_root() -> Path:
    """As root /var/lib/forebay, else where the XDG convention puts a user's data."""
    if os.geteuid() == 0:
        return Path("/var/lib/forebay")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "forebay"


@contextmanager
def open_data_directory(root: Path | None = None) -> Iterator[DataDirectory]:
    """The directory, made when it is not there, ours alone until left. Raises CannotStart."""
    directory = DataDirectory((root or default_root()).absolute())
    try:
        directory.root.mkdir(mode=0o711, parents=True, exist_ok=True)  # the database's user passes through
        for private in (directory.nats, directory.secrets, directory.logs, directory.journal, directory.snapshots):
            private.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(
            f"The data directory {directory.root} cannot be written ({error.strerror}: {error.filename}): "
            "run as the user who owns it, or give another with --data-dir."
        ) from error
    try:
        _take(lock, directory.root)
        demand_space(directory.root, _LEAST_FREE, "to start")
        yield directory
    finally:
        os.close(lock)  # and with it the lock, which the kernel also drops when a process dies: none is ever stale


def demand_space(place: Path, least_bytes: int, what_for: str) -> None:
    """Raises CannotStart when less than that is free where `place` lies."""
    free = shutil.disk_usage(place).free
    if free < least_bytes:
        raise CannotStart(
            f"The disk that holds {place} is full: {free // 1000**2} MB are free and {least_bytes // 1000**2} MB are "
            f"needed {what_for}. Free some, or choose a place on another disk with --data-dir."
        )


def _take(lock: int, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise CannotStart(
            f"A Forebay already runs on {root} (process {holder}): stop it with Ctrl-C or kill {holder}, "
            "or start this one elsewhere with --data-dir and --base-port."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
