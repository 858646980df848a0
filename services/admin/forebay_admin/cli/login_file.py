"""Where `forebay login` keeps what lets us in: login.json under the user's configuration, which nobody else may read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from forebay.errors import BadInput


@dataclass(frozen=True, slots=True)
class Login:
    url: str
    """Of admin's HTTP port, where it was signed in."""
    admin: str
    """HOST:PORT of admin's gRPC port."""
    token: str = field(repr=False)
    user: str
    expires_at: str


def login_path(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config")
    return home / "forebay" / "login.json"


def read_login(environ: Mapping[str, str]) -> Login | None:
    """None when nobody has signed in. Raises BadInput for a file that others may read, or that is something else."""
    path = login_path(environ)
    try:
        found = path.stat()
        held = json.loads(path.read_text())
        login = Login(**{name: str(held[name]) for name in ("url", "admin", "token", "user", "expires_at")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} cannot be read, or is not what `forebay login` writes; remove it.") from error
    if found.st_mode & 0o077:
        raise BadInput(f"{path} may be read by others: `chmod 600` it, or remove it and sign in again.")
    return login


def write_login(environ: Mapping[str, str], login: Login) -> Path:
    """Mode 600 from the first byte on, and whole or not there. Raises BadInput."""
    path = login_path(environ)
    fresh = path.with_name(".login.json.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(login), file)
        fresh.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.") from error
    return path


def forget_login(environ: Mapping[str, str]) -> None:
    login_path(environ).unlink(missing_ok=True)
