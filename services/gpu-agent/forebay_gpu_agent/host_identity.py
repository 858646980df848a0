"""Which machine this is, and which of its lives: so that a node that became another machine is noticed."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

_MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")


@dataclass(frozen=True, slots=True)
class Identity:
    boot_id: str = ""
    machine_id: str = ""
    system: str = ""
    """Kernel and its version."""


def read_identity(root: Path = Path("/")) -> Identity:
    """Empty is what is not told."""
    machine_id = next(filter(None, (_line(root / file) for file in _MACHINE_IDS)), "")
    return Identity(
        boot_id=_line(root / "proc/sys/kernel/random/boot_id"),
        machine_id=_hashed(machine_id) if machine_id else "",
        system=f"{platform.system()} {platform.release()}".strip(),
    )


def _hashed(machine_id: str) -> str:
    # machine-id(5): it is confidential, and to be told to others only as a keyed hash.
    return hashlib.blake2b(machine_id.encode(), key=b"forebay-node", digest_size=16).hexdigest()


def _line(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()[:64]
    except OSError:
        return ""
