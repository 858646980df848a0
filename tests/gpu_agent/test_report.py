"""Facts on the wire."""

from __future__ import annotations

from forebay import subjects
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay_gpu_agent.facts import Gpu, GpuProcess, Gpus, GpuState, Host, Sample
from forebay_gpu_agent.report import to_wire

HOST = Host("box", 8, 12.5, 0.75, 64, 32, 1000, 400, 7, 9)
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
    fan_percent=30,
    sm_clock_mhz=1410,
    memory_clock_mhz=1593,
    processes=(GpuProcess(41, 1000), GpuProcess(7, None)),
)


def sample(gpus: Gpus, host: Host | None = HOST) -> Sample:
    return Sample("gpu-1", 42, 1_800_000_000.0, 1_800_000_002.5, host, gpus)


def test_everything_that_is_known_arrives() -> None:
    sent = to_wire(sample(Gpus(GpuState.OK, gpus=(GPU,))), "0.1.0")
    told = wire.TelemetrySample.FromString(sent.SerializeToString())
    assert (told.node, told.sequence, told.agent_version) == ("gpu-1", 42, "0.1.0")
    assert (told.agent_started_us, told.sampled_at_us) == (1_800_000_000_000_000, 1_800_000_002_500_000)
    assert told.host == wire.HostSample(
        hostname="box",
        cpu_count=8,
        cpu_percent=12.5,
        load_1m=0.75,
        memory_total_bytes=64,
        memory_available_bytes=32,
        disk_total_bytes=1000,
        disk_free_bytes=400,
        network_received_bytes=7,
        network_sent_bytes=9,
    )
    assert (told.gpu_state, told.gpu_message) == (wire.GPU_STATE_OK, "")
    gpu = told.gpus[0]
    assert [field.name for field in wire.GpuSample.DESCRIPTOR.fields if field.name != "error"] == [
        field.name for field, _ in gpu.ListFields()
    ]  # a field that is added to the message and forgotten here is noticed
    assert (gpu.index, gpu.uuid, gpu.name, gpu.driver_version) == (1, "GPU-1", "A100", "580.1")
    assert (gpu.memory_total_bytes, gpu.power_mw, gpu.memory_clock_mhz) == (80 << 30, 250_125, 1593)
    assert [(p.pid, p.HasField("memory_bytes")) for p in gpu.processes] == [(41, True), (7, False)]


def test_zero_is_sent_and_absent_is_not() -> None:
    gpu = to_wire(sample(Gpus(GpuState.OK, gpus=(GPU, Gpu(2)))), "0").gpus
    assert gpu[0].HasField("utilization_percent")
    assert gpu[0].utilization_percent == 0
    optional = [field.name for field in wire.GpuSample.DESCRIPTOR.fields if field.has_presence]
    assert len(optional) == 11
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
    processes = tuple(GpuProcess(4_000_000_000 - n, 1 << 40) for n in range(256))
    gpus = tuple(
        Gpu(**{**{f: getattr(GPU, f) for f in GPU.__slots__}, "index": n, "processes": processes}) for n in range(16)
    )
    assert to_wire(sample(Gpus(GpuState.OK, gpus=gpus)), "0").ByteSize() < subjects.MAX_PAYLOAD_BYTES / 4
