"""What a worker is told at its start, and what of its gateway's settings is its own. For parent and worker alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from forebay_gateway.config import GatewaySettings


@dataclass(frozen=True, slots=True)
class Orders:
    settings: GatewaySettings
    """The whole gateway's, as its parent has read them: one that is started later is like the others, whatever has become
    of the file."""
    number: int
    """From 1."""
    listener: int
    """The descriptor of the socket at which clients arrive."""
    crowd: int
    """That of the memory with everybody's counts."""
    patience_s: float
    log_level: int


def own_name(gateway: str, number: int) -> str:
    """To the scheduler, in the ledger and in logs. The gateway's, and no NATS name: on the bus all are the gateway."""
    return f"{gateway}.{number}"


def own_settings(settings: GatewaySettings, number: int) -> GatewaySettings:
    """A worker is a gateway of its own, with its own journal and a part of the memory and the disk that all may take."""
    workers = settings.workers
    return replace(
        settings,
        name=own_name(settings.name, number),
        workers=1,
        nats_user=settings.nats_user or settings.name,
        journal_dir=journal_of(settings.journal_dir, number, workers),
        held_bodies_bytes=settings.held_bodies_bytes // workers,
        spooled_bodies_bytes=settings.spooled_bodies_bytes // workers,
        recordings_held_bytes=settings.recordings_held_bytes // workers,
    )


def journal_of(directory: Path, number: int, workers: int) -> Path:
    """Where that one of so many workers has its journal."""
    return directory if workers == 1 else directory / f"worker-{number}"


def left_journals(directory: Path, workers: int) -> list[Path]:
    """Journals of earlier starts with other numbers of workers, which none of these takes up, and those of a gateway that
    ran beside this one and had workers of its own. Blocking."""
    taken = {journal_of(directory, number, workers) for number in range(1, workers + 1)}
    found = [directory, *sorted(directory.glob("worker-*")), *sorted(directory.glob("worker-*/worker-*"))]
    return [one for one in found if one not in taken and any(one.glob("*.segment"))]
