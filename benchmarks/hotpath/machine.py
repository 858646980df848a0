"""The machine: which core does what, what processes belong together, and how busy it was by itself."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    system: int
    """Where the measured system is, alone."""
    load: int
    """Of the engine and of the generator."""
    behind: tuple[int, ...]
    """Of what a gateway leans on (scheduler, NATS, database): the load's own where there are only two."""

    @classmethod
    def of(cls, allowed: Iterable[int]) -> Cores:
        """Raises SystemExit where there is only one."""
        first, *others = sorted(allowed)
        if not others:
            raise SystemExit("Two cores are needed: one for the system that is measured and one for its load.")
        return cls(first, others[0], tuple(others[1:]) or (others[0],))

    def pinned(self, core: int) -> tuple[str, ...]:
        """Words to put before a command."""
        return ("taskset", "-c", str(core))


def family(*roots: int) -> list[int]:
    """The processes and all below them."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        children[parent].append(int(stat.parent.name))
    found = list(roots)
    for pid in found:
        found += children[pid]
    return found


def busy_share(core: int, during_s: float = 0.25) -> float:
    """How much of a core is in use, seen before something is measured there."""

    def read() -> tuple[int, int]:
        lines = Path("/proc/stat").read_text().splitlines()
        ticks = [int(word) for word in next(line for line in lines if line.startswith(f"cpu{core} ")).split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    total, idle = read()
    time.sleep(during_s)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def description(python: str = sys.executable) -> str:
    """One line for the page: processor, cores, kernel, and the Python that gateways are run by."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    processor = names[0] if names else platform.machine()
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{processor}, {os.cpu_count()} cores, Linux {platform.release()}, {version}"


def prefer(niceness: int, *pids: int) -> None:
    """Gives processes more of a machine on which others work too (negative, as root). The kernel weighs sessions before
    processes where it groups them, so both are told."""
    for pid in pids:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, niceness)
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
