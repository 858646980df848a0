"""What changes from one moment to the next: load, memory, heat, power, clocks."""

from __future__ import annotations

from typing import Any, TypedDict

import pynvml

from forebay_gpu_agent.gpus.asking import ask, ask_fields
from forebay_gpu_agent.gpus.clocks import read_clock_reasons

_MOST_STATES = 16


class Live(TypedDict):
    """Of `facts.Gpu`, by the same names."""

    utilization_percent: int | None
    memory_utilization_percent: int | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    memory_free_bytes: int | None
    temperature_c: int | None
    memory_temperature_c: int | None
    power_mw: int | None
    power_limit_mw: int | None
    energy_mj: int | None
    fan_percent: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    performance_state: int | None
    clock_reasons: tuple[str, ...]


def read_live(handle: Any) -> Live:
    utilization = ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    state = ask(pynvml.nvmlDeviceGetPerformanceState, handle)
    (memory_temperature,) = ask_fields(handle, (pynvml.NVML_FI_DEV_MEMORY_TEMP,))
    return Live(
        utilization_percent=utilization.gpu if utilization else None,
        memory_utilization_percent=utilization.memory if utilization else None,
        memory_total_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        memory_free_bytes=memory.free if memory else None,
        temperature_c=_temperature(handle),
        memory_temperature_c=None if memory_temperature is None else max(0, memory_temperature),
        power_mw=ask(pynvml.nvmlDeviceGetPowerUsage, handle),
        power_limit_mw=ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        energy_mj=ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        fan_percent=ask(pynvml.nvmlDeviceGetFanSpeed, handle),
        sm_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        # 32 is NVML's word for "not known".
        performance_state=state if state is not None and 0 <= state < _MOST_STATES else None,
        clock_reasons=read_clock_reasons(handle),
    )


def _temperature(handle: Any) -> int | None:
    # The first is new in driver 575 and replaces the second, which CUDA 14 is to drop.
    told = ask(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    told = ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU) if told is None else told
    return None if told is None else max(0, told)
