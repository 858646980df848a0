"""Why a GPU's clocks are below their most, in words. NVIDIA calls the reasons throttle reasons up to driver 535 and clock
event reasons since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pynvml

from forebay_gpu_agent.facts import GPU_IDLE
from forebay_gpu_agent.gpus.asking import ask

_WORDS: Mapping[int, str] = {
    pynvml.nvmlClocksThrottleReasonGpuIdle: GPU_IDLE,
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "applications_clocks_setting",
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: "display_clock_setting",
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board_limit",
    pynvml.nvmlClocksThrottleReasonReliability: "reliability",
}


def read_clock_reasons(handle: Any) -> tuple[str, ...]:
    told = ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if told is None:
        told = ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return reasons(told or 0)


def reasons(bits: int) -> tuple[str, ...]:
    """A bit that has no word yet is named by its place: bit_13."""
    return tuple(_WORDS.get(1 << place, f"bit_{place}") for place in range(bits.bit_length()) if bits >> place & 1)
