"""Facts on the wire."""

from __future__ import annotations

import dataclasses

from forebay import subjects
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay_gpu_agent.facts import (
    Disk,
    Gpu,
    GpuProcess,
    Gpus,
    GpuState,
    Host,
    HostPower,
    Links,
    MigInstance,
    Sample,
    Temperature,
    Traits,
    Wear,
    Xids,
)
from forebay_gpu_agent.gpus.mig import MOST_INSTANCES
from forebay_gpu_agent.gpus.processes import MOST_PROCESSES
from forebay_gpu_agent.report import to_wire

HOST = Host(
    hostname="box",
    cpu_count=8,
    cpu_percent=12.5,
    load_1m=0.75,
    load_5m=0.5,
    load_15m=0.25,
    memory_total_bytes=64,
    memory_available_bytes=32,
    swap_total_bytes=8,
    swap_used_bytes=0,
    disk_total_bytes=1000,
    disk_free_bytes=400,
    disks=(Disk("/", 1000, 400),),
    network_received_bytes=7,
    network_sent_bytes=9,
    network_received_bytes_per_s=3,
    network_sent_bytes_per_s=0,
    booted_at=1_799_999_000.0,
    boot_id="boot",
    machine_id="machine",
    system="Linux 6.8",
    temperatures=(Temperature("coretemp", 61.5),),
    power=HostPower(820_000, "ipmi", 120_000),
)
GPU = Gpu(
    index=1,
    uuid="GPU-1",
    name="A100",
    driver_version="580.1",
    utilization_percent=0,
    memory_utilization_percent=21,
    memory_total_bytes=80 << 30,
    memory_used_bytes=30 << 30,
    memory_free_bytes=50 << 30,
    temperature_c=61,
    power_mw=250_125,
    power_limit_mw=400_000,
    memory_temperature_c=70,
    energy_mj=123,
    fan_percent=30,
    sm_clock_mhz=1410,
    memory_clock_mhz=1593,
    performance_state=0,
    clock_reasons=("sw_power_cap",),
    traits=Traits("00000000:07:00.0", "serial", "8.0", "12.8", 1980, 1593, 4, 16),
    wear=Wear(True, 1, 0, 2, 3, 4, 5, 6, 7, False, True),
    links=Links(1, 2, 4, 8, 3, 0, 12, 11),
    mig_enabled=True,
    mig_instances=(MigInstance(2, "MIG-2", "1g.10gb", 9, 0, 10, 4, 6),),
    processes=(GpuProcess(41, 1000, "ollama", 2), GpuProcess(7, None)),
    processes_left_out=5,
    xids=Xids(2, 79, 1_800_000_001.0),
)


def sample(gpus: Gpus, host: Host | None = HOST) -> Sample:
    return Sample("gpu-1", 42, 1_800_000_000.0, 1_800_000_002.5, host, gpus, busy=True, interval_s=2.0)


def test_everything_that_is_known_arrives() -> None:
    sent = to_wire(sample(Gpus(GpuState.OK, gpus=(GPU,))), "0.1.0")
    told = wire.TelemetrySample.FromString(sent.SerializeToString())
    assert (told.node, told.sequence, told.agent_version) == ("gpu-1", 42, "0.1.0")
    assert (told.agent_started_us, told.sampled_at_us) == (1_800_000_000_000_000, 1_800_000_002_500_000)
    assert (told.interval_ms, told.busy) == (2000, True)
    assert [field.name for field in wire.HostSample.DESCRIPTOR.fields] == [
        field.name for field, _ in told.host.ListFields()
    ]
    assert (told.host.hostname, told.host.cpu_percent, told.host.disks[0].free_bytes) == ("box", 12.5, 400)
    assert (told.host.swap_used_bytes, told.host.booted_at_us) == (0, 1_799_999_000_000_000)
    assert (told.host.power_mw, told.host.power_source, told.host.cpu_power_mw) == (820_000, "ipmi", 120_000)
    assert told.host.temperatures[0].celsius == 61.5
    assert (told.gpu_state, told.gpu_message) == (wire.GPU_STATE_OK, "")
    gpu = told.gpus[0]
    assert [field.name for field in wire.GpuSample.DESCRIPTOR.fields if field.name != "error"] == [
        field.name for field, _ in gpu.ListFields()
    ]  # a field that is added to the message and forgotten here is noticed
    assert (gpu.index, gpu.uuid, gpu.name, gpu.driver_version) == (1, "GPU-1", "A100", "580.1")
    assert (gpu.memory_total_bytes, gpu.power_mw, gpu.memory_clock_mhz) == (80 << 30, 250_125, 1593)
    assert [(p.pid, p.HasField("memory_bytes")) for p in gpu.processes] == [(41, True), (7, False)]
    assert [(p.name, p.HasField("mig_index")) for p in gpu.processes] == [("ollama", True), ("", False)]
    assert gpu.mig_instances[0] == wire.MigInstance(
        index=2,
        uuid="MIG-2",
        name="1g.10gb",
        gpu_instance=9,
        compute_instance=0,
        memory_total_bytes=10,
        memory_used_bytes=4,
        memory_free_bytes=6,
    )
    assert (gpu.ecc_uncorrected_volatile, gpu.repair_pending, gpu.repair_failed) == (0, False, True)
    assert (gpu.nvlink_rx_bytes_per_s, gpu.max_pcie_width, gpu.last_xid_at_us) == (0, 16, 1_800_000_001_000_000)


def test_zero_is_sent_and_absent_is_not() -> None:
    gpu = to_wire(sample(Gpus(GpuState.OK, gpus=(GPU, Gpu(2)))), "0").gpus
    assert gpu[0].HasField("utilization_percent")
    assert gpu[0].utilization_percent == 0
    optional = [field.name for field in wire.GpuSample.DESCRIPTOR.fields if field.has_presence]
    assert len(optional) == 41
    assert not any(gpu[1].HasField(name) for name in optional)  # type: ignore[arg-type]


def test_a_first_sample_knows_no_share_of_the_cpu() -> None:
    first = Host("box", None, None, None, None, None, None, None, None, None)
    told = to_wire(sample(Gpus(GpuState.OK), first), "0").host
    assert not told.HasField("cpu_percent")
    assert (told.cpu_count, told.memory_total_bytes) == (0, 0)


def test_a_host_that_did_not_answer_is_left_out() -> None:
    assert not to_wire(sample(Gpus(GpuState.OK), None), "0").HasField("host")


def test_each_state_has_its_word_and_its_sentence() -> None:
    for state, on_the_wire in (
        (GpuState.NO_DRIVER, wire.GPU_STATE_NO_DRIVER),
        (GpuState.NO_GPU, wire.GPU_STATE_NO_GPU),
        (GpuState.FAILED, wire.GPU_STATE_FAILED),
    ):
        told = to_wire(sample(Gpus(state, "why")), "0")
        assert (told.gpu_state, told.gpu_message) == (on_the_wire, "why")
    assert {s.name.lower() for s in GpuState} == {
        name.removeprefix("GPU_STATE_").lower()
        for name in wire.GpuState.DESCRIPTOR.values_by_name
        if name != "GPU_STATE_UNSPECIFIED"
    }


def test_the_largest_sample_fits_into_a_message() -> None:
    """16 GPUs, each cut in as many parts as can be, as many processes as are named, and names as long as they are read."""
    instance = MigInstance(7, "MIG-" + "f" * 36, "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 14, 7, 1 << 40, 1 << 40, 1 << 40)
    process = GpuProcess(4_000_000_000, 1 << 40, "n" * 48, 7)
    many = dataclasses.replace(
        GPU, mig_instances=(instance,) * MOST_INSTANCES, processes=(process,) * MOST_PROCESSES, name="n" * 96
    )
    told = to_wire(sample(Gpus(GpuState.OK, gpus=(many,) * 16)), "0")
    assert [len(gpu.processes) for gpu in told.gpus] == [MOST_PROCESSES] * 16
    assert told.ByteSize() < subjects.MAX_PAYLOAD_BYTES - 128 * 1024

    too_many = to_wire(sample(Gpus(GpuState.OK, gpus=(many,) * 64)), "0")
    assert too_many.ByteSize() < subjects.MAX_PAYLOAD_BYTES
    assert {(len(gpu.processes), gpu.processes_left_out) for gpu in too_many.gpus} == {(0, MOST_PROCESSES + 5)}
