"""What a running `forebay up` is, written down for commands that look after it from outside: which version, with which
settings file, and where its servers are."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from forebay.errors import Unavailable
from forebay.local.data_directory import DataDirectory
from forebay.local.secret_files import write_private


@dataclass(frozen=True, slots=True)
class Started:
    """Each has a default: it may be read by another version than the one that wrote it."""

    pid: int = 0
    version: str = "0"
    python: str = ""
    config: str | None = None
    """The settings file; None: there is none."""
    nats_url: str | None = None
    """Of our own NATS; None: NATS_URL names another."""
    nats_ca_file: str | None = None
    nats_cert_file: str | None = None
    """What is to be shown to it; None: nothing is."""
    nats_key_file: str | None = None
    has_own_database: bool = True
    services_python: str = ""
    """Which runs the services, when another than `python`: after an upgrade, until the next start."""
    services_version: str = ""


def started_file(data: DataDirectory) -> Path:
    return data.root / "run" / "started.json"


def write_started(data: DataDirectory, started: Started) -> None:
    write_private(started_file(data), json.dumps(asdict(started), indent=1).encode() + b"\n")


def read_started(data: DataDirectory) -> Started | None:
    """None when no `forebay up` runs on this directory. Raises Unavailable while one starts or ends."""
    if not is_held(data):
        return None
    try:
        told = json.loads(started_file(data).read_text())
        return Started(**{field.name: told[field.name] for field in fields(Started) if field.name in told})
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise Unavailable(
            f"The Forebay on {data.root} is starting or stopping just now: wait until it is ready, then try again."
        ) from error


def is_held(data: DataDirectory) -> bool:
    """Whether a `forebay up`, or another command that needs it for itself, has this directory."""
    try:
        lock = os.open(data.root / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
