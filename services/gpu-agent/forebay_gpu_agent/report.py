"""Facts as they travel: a TelemetrySample. Pure. What is None stays absent."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.clock import micros
from forebay.subjects import MAX_PAYLOAD_BYTES
from forebay.wire.v1 import telemetry_pb2 as wire
from forebay_gpu_agent.facts import Gpu, GpuProcess, GpuState, Host, MigInstance, Sample

_STATES: Mapping[GpuState, wire.GpuState.ValueType] = {
    GpuState.OK: wire.GPU_STATE_OK,
    GpuState.NO_DRIVER: wire.GPU_STATE_NO_DRIVER,
    GpuState.NO_GPU: wire.GPU_STATE_NO_GPU,
    GpuState.FAILED: wire.GPU_STATE_FAILED,
}
_ROOM_FOR_OTHERS = 128 * 1024
"""For what is added to a sample besides host and GPUs."""


def to_wire(sample: Sample, agent_version: str) -> wire.TelemetrySample:
    told = wire.TelemetrySample(
        node=sample.node,
        sequence=sample.sequence,
        agent_started_us=micros(sample.agent_started_at),
        sampled_at_us=micros(sample.sampled_at),
        host=_host(sample.host) if sample.host is not None else None,
        gpu_state=_STATES[sample.gpus.state],
        gpu_message=sample.gpus.message,
        gpus=[_gpu(gpu) for gpu in sample.gpus.gpus],
        agent_version=agent_version,
        interval_ms=round(sample.interval_s * 1000),
        busy=sample.busy,
    )
    if told.ByteSize() > MAX_PAYLOAD_BYTES - _ROOM_FOR_OTHERS:
        _leave_processes_out(told)
    return told


def _leave_processes_out(told: wire.TelemetrySample) -> None:
    """A machine of more GPUs than any that is known, or of very long names: the rest matters more."""
    for gpu in told.gpus:
        gpu.processes_left_out += len(gpu.processes)
        del gpu.processes[:]


def _host(host: Host) -> wire.HostSample:
    """For a field without presence, 0 is how the wire writes absent."""
    return wire.HostSample(
        hostname=host.hostname,
        cpu_count=host.cpu_count or 0,
        cpu_percent=host.cpu_percent,
        load_1m=host.load_1m or 0.0,
        load_5m=host.load_5m,
        load_15m=host.load_15m,
        memory_total_bytes=host.memory_total_bytes or 0,
        memory_available_bytes=host.memory_available_bytes or 0,
        swap_total_bytes=host.swap_total_bytes,
        swap_used_bytes=host.swap_used_bytes,
        disk_total_bytes=host.disk_total_bytes or 0,
        disk_free_bytes=host.disk_free_bytes or 0,
        disks=[wire.DiskSample(path=d.path, total_bytes=d.total_bytes, free_bytes=d.free_bytes) for d in host.disks],
        network_received_bytes=host.network_received_bytes or 0,
        network_sent_bytes=host.network_sent_bytes or 0,
        network_received_bytes_per_s=host.network_received_bytes_per_s,
        network_sent_bytes_per_s=host.network_sent_bytes_per_s,
        booted_at_us=None if host.booted_at is None else micros(host.booted_at),
        boot_id=host.boot_id,
        machine_id=host.machine_id,
        system=host.system,
        power_mw=host.power.server_mw,
        power_source=host.power.source,
        cpu_power_mw=host.power.cpu_mw,
        temperatures=[wire.TemperatureSample(name=t.name, celsius=t.celsius) for t in host.temperatures],
    )


def _gpu(gpu: Gpu) -> wire.GpuSample:
    traits, wear, links, xids = gpu.traits, gpu.wear, gpu.links, gpu.xids
    return wire.GpuSample(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        driver_version=gpu.driver_version,
        cuda_version=traits.cuda_version,
        pci_bus_id=traits.pci_bus_id,
        serial=traits.serial,
        compute_capability=traits.compute_capability,
        max_sm_clock_mhz=traits.max_sm_clock_mhz,
        max_memory_clock_mhz=traits.max_memory_clock_mhz,
        max_pcie_generation=traits.max_pcie_generation,
        max_pcie_width=traits.max_pcie_width,
        utilization_percent=gpu.utilization_percent,
        memory_utilization_percent=gpu.memory_utilization_percent,
        memory_total_bytes=gpu.memory_total_bytes,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_free_bytes=gpu.memory_free_bytes,
        temperature_c=gpu.temperature_c,
        memory_temperature_c=gpu.memory_temperature_c,
        power_mw=gpu.power_mw,
        power_limit_mw=gpu.power_limit_mw,
        energy_mj=gpu.energy_mj,
        fan_percent=gpu.fan_percent,
        sm_clock_mhz=gpu.sm_clock_mhz,
        memory_clock_mhz=gpu.memory_clock_mhz,
        performance_state=gpu.performance_state,
        clock_reasons=gpu.clock_reasons,
        ecc_enabled=wear.ecc_enabled,
        ecc_corrected_volatile=wear.ecc_corrected_volatile,
        ecc_uncorrected_volatile=wear.ecc_uncorrected_volatile,
        ecc_corrected_aggregate=wear.ecc_corrected_aggregate,
        ecc_uncorrected_aggregate=wear.ecc_uncorrected_aggregate,
        retired_pages_corrected=wear.retired_pages_corrected,
        retired_pages_uncorrected=wear.retired_pages_uncorrected,
        remapped_rows_corrected=wear.remapped_rows_corrected,
        remapped_rows_uncorrected=wear.remapped_rows_uncorrected,
        repair_pending=wear.repair_pending,
        repair_failed=wear.repair_failed,
        pcie_tx_bytes_per_s=links.pcie_tx_bytes_per_s,
        pcie_rx_bytes_per_s=links.pcie_rx_bytes_per_s,
        pcie_generation=links.pcie_generation,
        pcie_width=links.pcie_width,
        nvlink_tx_bytes_per_s=links.nvlink_tx_bytes_per_s,
        nvlink_rx_bytes_per_s=links.nvlink_rx_bytes_per_s,
        nvlinks=links.nvlinks,
        nvlinks_active=links.nvlinks_active,
        mig_enabled=gpu.mig_enabled,
        mig_instances=[_instance(instance) for instance in gpu.mig_instances],
        processes=[_process(process) for process in gpu.processes],
        processes_left_out=gpu.processes_left_out,
        xids=xids.count if xids else None,
        last_xid=xids.last if xids else None,
        last_xid_at_us=micros(xids.last_at) if xids and xids.last_at is not None else None,
        error=gpu.error,
    )


def _process(process: GpuProcess) -> wire.GpuProcess:
    return wire.GpuProcess(
        pid=process.pid, memory_bytes=process.memory_bytes, name=process.name, mig_index=process.mig_index
    )


def _instance(instance: MigInstance) -> wire.MigInstance:
    return wire.MigInstance(
        index=instance.index,
        uuid=instance.uuid,
        name=instance.name,
        gpu_instance=instance.gpu_instance,
        compute_instance=instance.compute_instance,
        memory_total_bytes=instance.memory_total_bytes,
        memory_used_bytes=instance.memory_used_bytes,
        memory_free_bytes=instance.memory_free_bytes,
    )
