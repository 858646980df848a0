"""What is read of the host."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from forebay_gpu_agent.host import CpuTimes, HostReader, busy_percent, cpu_times


def test_this_very_host_tells_everything(tmp_path: Path) -> None:
    host = HostReader(tmp_path).read()
    assert host.cpu_count == os.cpu_count()
    assert host.load_1m is not None
    assert host.load_1m >= 0
    assert host.memory_total_bytes == psutil.virtual_memory().total
    assert host.memory_available_bytes is not None
    assert 0 < host.memory_available_bytes <= host.memory_total_bytes
    room = os.statvfs(tmp_path)
    assert host.disk_total_bytes == room.f_frsize * room.f_blocks
    assert host.disk_free_bytes is not None
    assert host.network_received_bytes is not None


def test_the_first_reading_knows_no_share_of_the_cpu_and_the_next_does() -> None:
    reader = HostReader(Path("/"))
    assert reader.read().cpu_percent is None
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    busy = reader.read().cpu_percent
    assert busy is not None
    assert 0 < busy <= 100


def test_the_share_of_the_cpu_is_right_from_whatever_thread_it_is_read() -> None:
    reader = HostReader(Path("/"))
    shares: list[float | None] = []

    def read() -> None:
        shares.append(reader.read().cpu_percent)

    for _ in range(2):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        time.sleep(0.2)
    assert shares[0] is None
    assert shares[1] is not None


class LinuxTimes(NamedTuple):
    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    irq: float
    softirq: float
    steal: float
    guest: float
    guest_nice: float


def test_waiting_for_a_disk_is_idle_time_and_a_guest_is_counted_once() -> None:
    times = LinuxTimes(
        user=30, nice=0, system=10, idle=50, iowait=10, irq=0, softirq=0, steal=0, guest=20, guest_nice=0
    )
    assert cpu_times(times) == CpuTimes(busy=40, total=100)


@pytest.mark.parametrize(
    ("before", "now", "percent"),
    [
        (CpuTimes(10, 100), CpuTimes(35, 200), 25.0),
        (CpuTimes(10, 100), CpuTimes(110, 200), 100.0),
        (CpuTimes(10, 100), CpuTimes(9, 200), 0.0),  # a counter that stepped back
        (CpuTimes(10, 100), CpuTimes(10, 100), None),  # no time passed
        (CpuTimes(10, 100), CpuTimes(0, 1), None),  # the counters began anew
    ],
)
def test_the_share_of_the_cpu_lies_between_two_readings(before: CpuTimes, now: CpuTimes, percent: float | None) -> None:
    assert busy_percent(before, now) == percent


def test_what_the_host_does_not_tell_is_absent_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(psutil, "net_io_counters", forbidden)
    monkeypatch.setattr(psutil, "virtual_memory", forbidden)
    reader = HostReader(tmp_path / "there is no such folder")
    for _ in range(3):
        host = reader.read()
    assert (host.network_received_bytes, host.memory_total_bytes, host.disk_total_bytes) == (None, None, None)
    assert host.load_1m is not None
    assert sorted(vars(record)["what"] for record in caplog.records) == ["disk", "memory", "network"]


def test_loopback_is_not_network() -> None:
    counters = psutil.net_io_counters(pernic=True)
    loopbacks = {name for name, stats in psutil.net_if_stats().items() if "loopback" in stats.flags}
    others = sum(c.bytes_recv for name, c in counters.items() if name not in loopbacks)
    host = HostReader(Path("/")).read()
    assert host.network_received_bytes is not None
    assert others <= host.network_received_bytes <= others + (1 << 24)
