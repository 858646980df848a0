"""A node as the command line shows it."""

from __future__ import annotations

import pytest

from forebay.wire.v1 import registry_pb2, telemetry_pb2
from forebay_admin.cli.nodes.picture import (
    GPU_COLUMNS,
    gpu_row,
    heard,
    list_row,
    mig_rows,
    node_rows,
    process_rows,
)

NOW = 1_800_000_000.0
GPU = telemetry_pb2.GpuSample(
    index=1,
    uuid="GPU-1",
    name="A100 [bold]",
    driver_version="580.1",
    cuda_version="12.8",
    utilization_percent=0,
    memory_utilization_percent=21,
    memory_total_bytes=80 * 10**9,
    memory_used_bytes=30 * 10**9,
    temperature_c=61,
    memory_temperature_c=70,
    power_mw=250_125,
    power_limit_mw=400_000,
    clock_reasons=["gpu_idle", "hw_thermal_slowdown"],
    ecc_corrected_volatile=3,
    ecc_uncorrected_volatile=1,
    last_xid=79,
    last_xid_at_us=1_799_999_000_000_000,
    pcie_generation=4,
    pcie_width=8,
    pcie_tx_bytes_per_s=1_500_000,
    pcie_rx_bytes_per_s=2_500_000,
    nvlinks=12,
    nvlinks_active=11,
    mig_instances=[telemetry_pb2.MigInstance(index=2, uuid="MIG-2", name="1g.10gb", memory_total_bytes=10**10)],
    processes=[telemetry_pb2.GpuProcess(pid=n, memory_bytes=n * 10**9, name="ollama", mig_index=2) for n in range(30)],
    processes_left_out=5,
)
LOST = telemetry_pb2.GpuSample(index=2, uuid="GPU-2", error="GPU_IS_LOST")


def node(*gpus: telemetry_pb2.GpuSample, ago_s: float = 3.0, interval_ms: int = 2000) -> registry_pb2.Node:
    sample = telemetry_pb2.TelemetrySample(interval_ms=interval_ms, gpus=gpus)
    return registry_pb2.Node(name="gpu-1", heard_at_us=round((NOW - ago_s) * 1_000_000), last_sample=sample)


def test_a_gpu_is_shown_with_what_it_tells_and_without_what_it_does_not() -> None:
    told = dict(zip(GPU_COLUMNS, gpu_row(GPU), strict=True))
    assert told == {
        "GPU": "1",
        "Name": "A100 \\[bold]",
        "Load": "0 %\nbandwidth 21 %",
        "Memory": "30.0 GB of 80.0 GB",
        "Heat": "61 °C\nmemory 70 °C",
        "Power": "250 W of 400 W",
        "Clock": "",
        "Links": "PCIe 4 ×8\n2.5 MB/s in, 1.5 MB/s out\n[yellow]NVLink 11 of 12[/yellow]",
        "Errors": "[red]1 not corrected[/red]\n3 corrected\n[yellow]Xid 79, 2027-01-15T07:43:20.000Z[/yellow]",
        "Clocks held by": "gpu_idle\n[yellow]hw_thermal_slowdown[/yellow]",
    }
    assert gpu_row(LOST)[:3] == ("2", "GPU-2", "[red]GPU_IS_LOST[/red]")
    assert set(gpu_row(telemetry_pb2.GpuSample(name="few words"))[2:]) == {""}


def test_instances_and_the_largest_processes_are_listed_and_the_rest_is_counted() -> None:
    assert list(mig_rows([GPU])) == [("1", "2", "1g.10gb", "", "MIG-2")]
    rows = list(process_rows([GPU, LOST]))
    assert rows[0] == ("1", "29", "ollama on MIG 2", "29.0 GB")
    assert (len(rows), rows[-1]) == (21, ("1", "", "and 15 more", ""))


@pytest.mark.parametrize(
    ("ago_s", "interval_ms", "late"),
    [(14, 2000, False), (16, 2000, True), (24, 10_000, False), (26, 10_000, True), (16, 0, True)],
)
def test_a_node_is_late_by_its_own_measure(ago_s: float, interval_ms: int, late: bool) -> None:
    assert heard(node(ago_s=ago_s, interval_ms=interval_ms), NOW).startswith("[yellow]") is late


def test_the_list_has_a_line_for_each_gpu_and_what_they_draw_together() -> None:
    row = list_row(node(GPU, GPU, LOST), NOW)
    assert row[5] == "GPUs 500 W"
    assert row[6].splitlines() == [
        "A100 \\[bold], MIG 1×, 0 %, 30.0 GB of 80.0 GB, 61 °C, [yellow]hw_thermal_slowdown[/yellow]"
    ] * 2 + ["GPU-2 [red]GPU_IS_LOST[/red]"]
    assert list_row(registry_pb2.Node(name="new"), NOW)[2:] == ("",) * 5


def test_what_a_node_tells_of_its_host_is_a_line_each() -> None:
    told = node(GPU)
    told.problems.append("Its clock is 2 h ahead.")
    told.last_sample.host.CopyFrom(
        telemetry_pb2.HostSample(
            hostname="box",
            cpu_count=8,
            power_mw=820_000,
            power_source="ipmi",
            disks=[telemetry_pb2.DiskSample(path="/", total_bytes=10**12, free_bytes=10**11)],
        )
    )
    rows = dict(node_rows(told, NOW))
    assert rows["Heard"] == "3 s ago, every 2 s"
    assert rows["Problems"] == "[yellow]Its clock is 2 h ahead.[/yellow]"
    assert (rows["Power"], rows["Disks"]) == ("820 W (ipmi)", "100.0 GB free of 1000.0 GB at /")
    assert rows["GPUs"] == "1 (driver 580.1, CUDA 12.8)"
    assert not {"Network", "Heat", "Agent"} & rows.keys()


def test_samples_that_were_not_taken_are_counted_in_the_list_and_told_by_reason() -> None:
    told = node()
    told.samples_dropped.add(reason="malformed", samples=1200, last_at_us=round((NOW - 5) * 1_000_000))
    told.samples_dropped.add(reason="out_of_order", samples=2, last_at_us=round((NOW - 7200) * 1_000_000))
    assert list_row(told, NOW)[1] == "3 s ago\n[yellow]1,202 dropped[/yellow]"
    assert (
        dict(node_rows(told, NOW))["Dropped"] == "1,200 malformed, the last 5 s ago\n2 out_of_order, the last 2 h ago"
    )
