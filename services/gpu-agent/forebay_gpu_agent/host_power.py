"""What the server draws, where it can be known without asking more of the host than a file or ipmitool: the power meter that
ACPI tells of, the board's controller (IPMI, DCMI), and the processors' own counters (RAPL), which say nothing of the rest.

Blocking, a file or two. The board's controller takes seconds, so it is asked on a thread of its own, and what it said last
is told for a while."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from forebay_gpu_agent.facts import HostPower
from forebay_gpu_agent.rates import Rates

log = logging.getLogger(__name__)

ASK_EVERY_S = 10.0
ASK_AGAIN_AFTER_S = 300.0
"""When ipmitool failed: the next answer is most likely the same."""
ANSWERS_FOR_S = 60.0
_TIMEOUT_S = 10.0
_READING = re.compile(r"Instantaneous power reading:\s*(\d+)\s*Watts", re.IGNORECASE)
_DEVICES = ("dev/ipmi0", "dev/ipmi/0", "dev/ipmidev/0")


class PowerReader:
    """One thread at a time."""

    def __init__(self, root: Path = Path("/"), monotonic: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._monotonic = monotonic
        self._rates = Rates()
        self._controller = Controller(root, monotonic)

    def read(self) -> HostPower:
        server_mw, source = _acpi_mw(self._root), "acpi"
        if server_mw is None:
            server_mw, source = self._controller.power_mw(), "ipmi"
        return HostPower(server_mw, source if server_mw is not None else "", self._cpu_mw())

    def _cpu_mw(self) -> int | None:
        told: list[int | None] = []
        for package in sorted(self._root.glob("sys/class/powercap/intel-rapl:[0-9]*")):
            if package.name.count(":") == 1:  # the others are parts of one
                told.append(self._rates.per_s(package.name, _number(package / "energy_uj"), self._monotonic()))
        known = [microwatts for microwatts in told if microwatts is not None]
        return sum(known) // 1000 if known and len(known) == len(told) else None


class Controller:
    """The board's, through ipmitool: only where its device is there and may be opened."""

    def __init__(self, root: Path, monotonic: Callable[[], float]) -> None:
        self._root = root
        self._monotonic = monotonic
        self._answer: tuple[float, int] | None = None
        self._ask_at = 0.0
        self._asking: threading.Thread | None = None

    def power_mw(self) -> int | None:
        """What it said last, if that is not long ago. Never waits."""
        now = self._monotonic()
        is_asking = self._asking is not None and self._asking.is_alive()
        if not is_asking and now >= self._ask_at:
            self._ask_at = now + ASK_EVERY_S
            self._begin_to_ask()
        if self._answer is None or now - self._answer[0] > ANSWERS_FOR_S:
            return None
        return self._answer[1]

    def _begin_to_ask(self) -> None:
        program = shutil.which("ipmitool")
        if program is None or not any(_may_open(self._root / device) for device in _DEVICES):
            self._ask_at = self._monotonic() + ASK_AGAIN_AFTER_S
            return
        self._asking = threading.Thread(target=self._ask, args=(program,), name="ipmi", daemon=True)
        self._asking.start()

    def _ask(self, program: str) -> None:
        command = [program, "dcmi", "power", "reading"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
            found = _READING.search(ran.stdout)
            why = "" if found else "it tells no power"
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            found, why = None, str(error)
        if found is None:
            self._ask_at = self._monotonic() + ASK_AGAIN_AFTER_S
            log.info("the board's controller tells no power", extra={"action": "ipmi_unreadable", "why": why})
            return
        self._answer = self._monotonic(), int(found[1]) * 1000


def _acpi_mw(root: Path) -> int | None:
    for sensor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _line(sensor / "name") == "power_meter":
            microwatts = _number(sensor / "power1_average")
            return None if microwatts is None else microwatts // 1000
    return None


def _number(file: Path) -> int | None:
    line = _line(file)
    return int(line) if line.isdecimal() else None


def _line(file: Path) -> str:
    """Empty where it cannot be read: RAPL is for root only since it was found to leak secrets."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _may_open(device: Path) -> bool:
    try:
        with device.open("rb"):
            return True
    except OSError:
        return False
