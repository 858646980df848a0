"""Facts as they travel: a TelemetrySample. Pure. What is None stays absent."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.clock import micros
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay_gpu_agent.facts import Gpu, GpuState, Host, Sample

_STATES: Mapping[GpuState, wire.GpuState.ValueType] = {
    GpuState.OK: wire.GPU_STATE_OK,
    GpuState.NO_DRIVER: wire.GPU_STATE_NO_DRIVER,
    GpuState.NO_GPU: wire.GPU_STATE_NO_GPU,
    GpuState.FAILED: wire.GPU_STATE_FAILED,
}


def to_wire(sample: Sample, agent_version: str) -> wire.TelemetrySample:
    return wire.TelemetrySample(
        node=sample.node,
        sequence=sample.sequence,
        agent_started_us=micros(sample.agent_started_at),
        sampled_at_us=micros(sample.sampled_at),
        host=_host(sample.host) if sample.host is not None else None,
        gpu_state=_STATES[sample.gpus.state],
        gpu_message=sample.gpus.message,
        gpus=[_gpu(gpu) for gpu in sample.gpus.gpus],
        agent_version=agent_version,
    )


def _host(host: Host) -> wire.HostSample:
    """For a field without presence, 0 is how the wire writes absent."""
    return wire.HostSample(
        hostname=host.hostname,
        cpu_count=host.cpu_count or 0,
        cpu_percent=host.cpu_percent,
        load_1m=host.load_1m or 0.0,
        memory_total_bytes=host.memory_total_bytes or 0,
        memory_available_bytes=host.memory_available_bytes or 0,
        disk_total_bytes=host.disk_total_bytes or 0,
        disk_free_bytes=host.disk_free_bytes or 0,
        network_received_bytes=host.network_received_bytes or 0,
        network_sent_bytes=host.network_sent_bytes or 0,
    )


def _gpu(gpu: Gpu) -> wire.GpuSample:
    return wire.GpuSample(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        driver_version=gpu.driver_version,
        utilization_percent=gpu.utilization_percent,
        memory_utilization_percent=gpu.memory_utilization_percent,
        memory_total_bytes=gpu.memory_total_bytes,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_free_bytes=gpu.memory_free_bytes,
        temperature_c=gpu.temperature_c,
        power_mw=gpu.power_mw,
        power_limit_mw=gpu.power_limit_mw,
        fan_percent=gpu.fan_percent,
        sm_clock_mhz=gpu.sm_clock_mhz,
        memory_clock_mhz=gpu.memory_clock_mhz,
        processes=[wire.GpuProcess(pid=p.pid, memory_bytes=p.memory_bytes) for p in gpu.processes],
        error=gpu.error,
    )
