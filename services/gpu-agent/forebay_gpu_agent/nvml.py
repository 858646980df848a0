"""The GPUs, through NVIDIA's management library. The only module that knows it.

Blocking, and as slow as the driver: a call may take seconds, or never return. Each value that the driver refuses is absent,
each GPU that it lost is named with its word for that, and the others go on. The library is opened again, more and more
patiently, until the driver is back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import pynvml

from forebay_gpu_agent.facts import Gpu, GpuProcess, Gpus, GpuState

log = logging.getLogger(__name__)

FIRST_WAIT_S = 2.0
MOST_WAIT_S = 60.0
MOST_PROCESSES = 256
"""Named per GPU, so that a sample stays far below what NATS carries."""

_WORDS: dict[int, str] = {
    value: name.removeprefix("NVML_ERROR_")
    for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and isinstance(value, int)
}

_GONE = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_IRQ_ISSUE,
    }
)
"""After these, what else the driver says of this GPU means nothing. Any other error concerns the one value only."""


class Nvml:
    """One thread at a time may call it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._is_open = False
        self._open_again_at: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._failure = Gpus(GpuState.FAILED, "The NVIDIA driver has not been asked yet.")
        self._driver_version = ""
        self._identities: dict[int, tuple[str, str]] = {}

    def read(self) -> Gpus:
        """Never raises for what the driver says."""
        now = self._monotonic()
        if self._open_again_at is not None and now >= self._open_again_at:
            self.close()
            self._open_again_at = None
        if not self._is_open and self._open_again_at is not None:
            return self._failure
        try:
            if not self._is_open:
                self._open()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            return self._fail(explain(error.value), now)
        if count == 0:
            return self._fail(Gpus(GpuState.NO_GPU, "This host has an NVIDIA driver and no GPU."), now)
        gpus = tuple(self._gpu(index) for index in range(count))
        if not any(gpu.error for gpu in gpus):
            self._open_again_at, self._wait_s = None, FIRST_WAIT_S
        elif self._open_again_at is None:
            self._plan_to_open_again(now)
        return Gpus(GpuState.OK, gpus=gpus)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("NVML did not close", extra={"action": "nvml_close", "error": word(error.value)})

    def _open(self) -> None:
        pynvml.nvmlInit()
        self._is_open = True
        self._identities.clear()  # the driver may number its GPUs anew
        self._driver_version = _ask(pynvml.nvmlSystemGetDriverVersion) or ""

    def _fail(self, failure: Gpus, now: float) -> Gpus:
        self.close()
        self._failure = failure
        self._plan_to_open_again(now)
        return failure

    def _plan_to_open_again(self, now: float) -> None:
        self._open_again_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, MOST_WAIT_S)

    def _gpu(self, index: int) -> Gpu:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if index not in self._identities:
                self._identities[index] = (
                    _ask(pynvml.nvmlDeviceGetUUID, handle) or "",
                    _ask(pynvml.nvmlDeviceGetName, handle) or "",
                )
            uuid, name = self._identities[index]
            return _read_gpu(handle, index, uuid, name, self._driver_version)
        except pynvml.NVMLError as error:
            uuid, name = self._identities.get(index, ("", ""))
            return Gpu(index, uuid, name, self._driver_version, error=word(error.value))


def word(code: int) -> str:
    """NVML's own name of an error, such as GPU_IS_LOST."""
    return _WORDS.get(code, f"ERROR_{code}")


def explain(code: int) -> Gpus:
    """What an error that concerns all GPUs means to the person who runs this host."""
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return Gpus(
            GpuState.NO_DRIVER, "There is no NVIDIA driver on this host (its library NVML is missing): no GPU is seen."
        )
    if code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return Gpus(GpuState.FAILED, "The NVIDIA driver is installed and not loaded (DRIVER_NOT_LOADED).")
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return Gpus(
            GpuState.FAILED,
            "The NVIDIA driver was updated while the old one is loaded (LIB_RM_VERSION_MISMATCH):"
            " restart this host, or reload the driver and restart the agent.",
        )
    return Gpus(GpuState.FAILED, f"The NVIDIA driver answers with an error: {word(code)}.")


def _read_gpu(handle: Any, index: int, uuid: str, name: str, driver_version: str) -> Gpu:
    utilization = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        driver_version=driver_version,
        utilization_percent=utilization.gpu if utilization else None,
        memory_utilization_percent=utilization.memory if utilization else None,
        memory_total_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        memory_free_bytes=memory.free if memory else None,
        temperature_c=_temperature(handle),
        power_mw=_ask(pynvml.nvmlDeviceGetPowerUsage, handle),
        power_limit_mw=_ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        fan_percent=_ask(pynvml.nvmlDeviceGetFanSpeed, handle),
        sm_clock_mhz=_ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=_ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        processes=_processes(handle),
    )


def _temperature(handle: Any) -> int | None:
    # The first is new in driver 575 and replaces the second, which CUDA 14 is to drop.
    told = _ask(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    told = _ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU) if told is None else told
    return None if told is None else max(0, told)


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Those that compute and those that draw: an engine on Vulkan counts as the latter."""
    found: dict[int, GpuProcess] = {}
    # By version: for a driver older than 510 the functions without one raise what is no NVMLError.
    for question in (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        processes: Iterable[Any] = _ask(question, handle) or ()
        for process in processes:
            found.setdefault(process.pid, GpuProcess(process.pid, process.usedGpuMemory))
    return tuple(found[pid] for pid in sorted(found)[:MOST_PROCESSES])


def _ask(question: Callable[..., Any], *about: Any) -> Any:
    """The driver's answer; None when it has none (a value that this GPU does not know, a function that an older driver does
    not have). Raises NVMLError when the GPU is gone."""
    try:
        return question(*about)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        return None
