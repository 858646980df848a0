"""Disks, heat, power, and which machine this is: read from folders that stand for /sys, /proc and /dev."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay_gpu_agent.facts import Gpus, GpuState, HostPower, Sample, Temperature
from forebay_gpu_agent.host import HostReader, hottest
from forebay_gpu_agent.host_disks import mounted, read_disks
from forebay_gpu_agent.host_identity import Identity, read_identity
from forebay_gpu_agent.host_power import ANSWERS_FOR_S, ASK_AGAIN_AFTER_S, ASK_EVERY_S, PowerReader
from forebay_gpu_agent.rates import Rates
from forebay_gpu_agent.report import to_wire

READING = "Instantaneous power reading:                   820 Watts"


def write(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


def has_controller(root: Path, monkeypatch: pytest.MonkeyPatch, *, says: str, status: int = 0) -> Path:
    """A board's controller, and an ipmitool that answers so. The file says how often it was asked."""
    write(root, "dev/ipmi0", "")
    asked = root / "asked"
    write(root, "bin/ipmitool", f"#!/bin/sh\necho \"$@\" >> {asked}\necho '{says}'\nexit {status}\n")
    (root / "bin/ipmitool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
    return asked


def until(there: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not there():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("readings", "told"),
    [
        ([(0.0, 100), (2.0, 300)], 100),
        ([(0.0, 100)], None),
        ([(0.0, 100), (2.0, 50)], None),  # it began anew
        ([(0.0, 100), (0.0, 300)], None),
        ([(0.0, 100), (2.0, None), (4.0, 300)], None),
        ([(0.0, 100), (2.0, 50), (3.0, 60)], 10),
    ],
)
def test_a_rate_lies_between_two_readings_of_a_counter(
    readings: list[tuple[float, int | None]], told: int | None
) -> None:
    rates = Rates()
    assert [rates.per_s("bytes", count, at) for at, count in readings][-1] == told


def test_each_file_system_is_told_once_and_a_named_folder_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    disks = read_disks((tmp_path / "models", tmp_path / "missing"), (tmp_path, Path("/proc"), Path("/etc/hostname")))
    assert [disk.path for disk in disks] == [str(tmp_path / "models"), "/proc"]
    assert disks[0].total_bytes > disks[0].free_bytes > 0
    assert len(read_disks([tmp_path / str(n) for n in range(40)] + [tmp_path], mounted())) <= 16


def test_a_mount_that_may_not_be_looked_at_or_whose_disk_died_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.stat

    def stat(path: Any, **more: Any) -> os.stat_result:
        if "broken" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        if "private" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(Path, "stat", stat)
    disks = read_disks((), (tmp_path / "broken", tmp_path / "private", tmp_path))
    assert [disk.path for disk in disks] == [str(tmp_path)]


def test_a_name_that_is_no_utf8_is_told_as_far_as_it_is(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"B\xfccher")
    odd.mkdir()
    chip = {os.fsdecode(b"chip\xff"): [SimpleNamespace(label="", current=40.0)]}
    host = replace(HostReader(tmp_path).read(), disks=read_disks((odd,), ()), temperatures=hottest(chip))
    told = to_wire(Sample("n", 1, 0.0, 0.0, host, Gpus(GpuState.NO_GPU, "")), "1").host
    assert [disk.path for disk in told.disks] == [f"{tmp_path}/B?cher"]
    assert [one.name for one in told.temperatures] == ["chip?"]


def test_of_each_chip_its_hottest_sensor_is_told() -> None:
    def sensor(label: str, current: float) -> SimpleNamespace:
        return SimpleNamespace(label=label, current=current)

    cores = [sensor(f"Core {n}", 40.0 + n) for n in range(100)]
    assert hottest({"coretemp": cores, "acpitz": [sensor("", 27.84)], "dead": [sensor("", 0.0)], "none": []}) == (
        Temperature("acpitz", 27.8),
        Temperature("coretemp Core 99", 139.0),
    )
    assert len(hottest({f"chip{n}": cores for n in range(100)})) == 32


def test_a_machine_is_known_by_a_hash_and_its_boot_by_its_id(tmp_path: Path) -> None:
    assert (read_identity(tmp_path).boot_id, read_identity(tmp_path).machine_id) == ("", "")
    write(tmp_path, "proc/sys/kernel/random/boot_id", "b1\n")
    write(tmp_path, "etc/machine-id", "\n")  # an image that was not started yet
    write(tmp_path, "var/lib/dbus/machine-id", "secret\n")
    first = read_identity(tmp_path)
    assert (first.boot_id, len(first.machine_id), "secret" in first.machine_id) == ("b1", 32, False)
    write(tmp_path, "etc/machine-id", "other\n")
    second: Identity = read_identity(tmp_path)
    assert second.machine_id not in ("", first.machine_id)


def test_a_power_meter_of_the_board_is_read_from_its_file(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/hwmon/hwmon0/name", "coretemp\n")
    write(tmp_path, "sys/class/hwmon/hwmon1/name", "power_meter\n")
    write(tmp_path, "sys/class/hwmon/hwmon1/power1_average", "345000000\n")
    assert PowerReader(tmp_path).read() == HostPower(345_000, "acpi", None)


def test_the_processors_counters_give_their_power_without_the_servers(tmp_path: Path) -> None:
    clock = ManualClock()
    reader = PowerReader(tmp_path, clock.monotonic)
    for package, microjoules in ((0, 1_000_000), (1, 5_000_000)):
        write(tmp_path, f"sys/class/powercap/intel-rapl:{package}/energy_uj", f"{microjoules}\n")
    write(tmp_path, "sys/class/powercap/intel-rapl:0:0/energy_uj", "77\n")
    assert reader.read() == HostPower()
    clock.advance(2)
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "101000000\n")
    write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", "25000000\n")
    assert reader.read() == HostPower(None, "", 60_000)
    clock.advance(2)
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "5\n")  # it wrapped: half a sum would be wrong
    write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", "25000000\n")
    assert reader.read().cpu_mw is None


def test_the_boards_controller_is_asked_aside_and_its_answer_ages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = has_controller(tmp_path, monkeypatch, says=READING)
    clock = ManualClock()
    reader = PowerReader(tmp_path, clock.monotonic)
    reader.read()  # begins to ask, and does not wait
    until(lambda: reader.read().server_mw is not None)
    assert reader.read() == HostPower(820_000, "ipmi", None)
    assert asked.read_text().splitlines() == ["dcmi power reading"]
    clock.advance(ASK_EVERY_S)
    reader.read()
    until(lambda: len(asked.read_text().splitlines()) == 2)
    (tmp_path / "bin/ipmitool").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    clock.advance(ANSWERS_FOR_S + 1)
    assert reader.read() == HostPower()


@pytest.mark.parametrize(("says", "status"), [("Error: Unable to establish", 1), ("DCMI request failed", 0)])
def test_a_controller_that_tells_no_power_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, says: str, status: int
) -> None:
    asked = has_controller(tmp_path, monkeypatch, says=says, status=status)
    caplog.set_level("INFO")
    clock = ManualClock()
    reader = PowerReader(tmp_path, clock.monotonic)
    reader.read()
    until(lambda: "the board's controller tells no power" in caplog.messages)
    clock.advance(ASK_AGAIN_AFTER_S - 1)
    assert reader.read() == HostPower()
    assert len(asked.read_text().splitlines()) == 1


def test_without_a_controllers_device_no_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = has_controller(tmp_path, monkeypatch, says=READING)
    (tmp_path / "dev/ipmi0").unlink()
    reader = PowerReader(tmp_path, ManualClock().monotonic)
    assert reader.read() == HostPower()
    assert not asked.exists()


def test_this_very_host_tells_its_rates_and_its_room(tmp_path: Path) -> None:
    reader = HostReader(tmp_path, power=PowerReader(tmp_path))
    assert reader.read().network_received_bytes_per_s is None
    host = reader.read()
    assert host.network_received_bytes_per_s is not None
    assert host.swap_total_bytes is not None
    assert host.booted_at is not None
    assert host.booted_at < time.time()
    assert host.disks[0].path == str(tmp_path)
    assert host.power == HostPower()
