"""The room on the file systems that matter: those that were named, and every local one. Each once, a bounded number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from forebay_gpu_agent.facts import Disk, as_utf8

MOST_DISKS = 16
_READ_ONLY_IMAGES = frozenset({"squashfs", "iso9660", "erofs", "cramfs"})
"""Always full: no place for a model."""


def mounted() -> list[Path]:
    """Where local file systems are mounted. Those of a network are left out, since one that is gone holds whoever looks at
    it; who keeps models there names the folder. Raises OSError."""
    return sorted(
        Path(partition.mountpoint)
        for partition in psutil.disk_partitions(all=False)
        if partition.fstype not in _READ_ONLY_IMAGES
    )


def read_disks(named: Sequence[Path], others: Iterable[Path]) -> tuple[Disk, ...]:
    """The named ones under their own path, whatever they share."""
    readable = [(path, disk) for path in dict.fromkeys(named) if (disk := _disk(path))]
    disks = [disk for _, disk in readable]
    seen = {_device(path) for path, _ in readable}
    for path in others:
        device = _device(path)
        # A container has single files mounted. Not Path.is_dir: it raises where we may not look, or where the disk died.
        if device in seen or not os.path.isdir(path):
            continue
        seen.add(device)
        if disk := _disk(path):
            disks.append(disk)
    return tuple(disks[:MOST_DISKS])


def _disk(path: Path) -> Disk | None:
    try:
        room = psutil.disk_usage(str(path))
    except OSError:
        return None
    return Disk(as_utf8(str(path)), room.total, room.free)


def _device(path: Path) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
