"""The GPUs, through NVIDIA's management library: it is opened here, and closed, and opened again; what is asked of a GPU
stands in `gpus`. Nothing else knows NVML.

Blocking, and as slow as the driver: a call may take seconds, or never return. Each value that the driver refuses is absent,
each GPU that it lost is named with its word for that, and the others go on. The library is opened again, more and more
patiently, until the driver is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pynvml

from forebay_gpu_agent.facts import Gpu, Gpus, GpuState, Traits, Wear
from forebay_gpu_agent.gpus import mig
from forebay_gpu_agent.gpus.asking import ask_text, word
from forebay_gpu_agent.gpus.lasting import read_traits, read_wear
from forebay_gpu_agent.gpus.links import read_links
from forebay_gpu_agent.gpus.live import read_live
from forebay_gpu_agent.gpus.processes import Names, read_processes, the_largest
from forebay_gpu_agent.gpus.xids import XidWatch
from forebay_gpu_agent.rates import Rates

log = logging.getLogger(__name__)

FIRST_WAIT_S = 2.0
MOST_WAIT_S = 60.0
WEAR_EVERY_S = 30.0
"""And at once after an error of the GPU."""


class Nvml:
    """One thread at a time may call it."""

    def __init__(self, monotonic: Callable[[], float], now: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._is_open = False
        self._open_again_at: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._failure = Gpus(GpuState.FAILED, "The NVIDIA driver has not been asked yet.")
        self._driver_version = ""
        self._identities: dict[int, tuple[str, str, Traits]] = {}
        self._wear: dict[str, tuple[float, Wear]] = {}
        self._rates = Rates()
        self._names = Names()
        self._xids = XidWatch(now)
        self._is_doubted = False

    def open_anew(self) -> None:
        """With the next reading, whatever the last one said. From any thread."""
        self._is_doubted = True

    def read(self) -> Gpus:
        """Never raises for what the driver says."""
        now = self._monotonic()
        is_due = self._open_again_at is not None and now >= self._open_again_at
        if is_due or self._is_doubted:
            self._is_doubted = False
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
        self._xids.fetch()
        gpus = tuple(self._gpu(index, now) for index in range(count))
        self._names.forget_all_but(process.pid for gpu in gpus for process in gpu.processes)
        if not any(gpu.error for gpu in gpus):
            self._open_again_at, self._wait_s = None, FIRST_WAIT_S
        elif self._open_again_at is None:
            self._plan_to_open_again(now)
        return Gpus(GpuState.OK, gpus=gpus)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._xids.stop()
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.debug("NVML did not close", extra={"action": "nvml_close", "error": word(error.value)})

    def _open(self) -> None:
        pynvml.nvmlInit()
        self._is_open = True
        self._identities.clear()  # the driver may number its GPUs anew
        self._wear.clear()
        self._driver_version = ask_text(pynvml.nvmlSystemGetDriverVersion)

    def _fail(self, failure: Gpus, now: float) -> Gpus:
        self.close()
        self._failure = failure
        self._plan_to_open_again(now)
        return failure

    def _plan_to_open_again(self, now: float) -> None:
        self._open_again_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, MOST_WAIT_S)

    def _gpu(self, index: int, now: float) -> Gpu:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if index not in self._identities:
                uuid, name = ask_text(pynvml.nvmlDeviceGetUUID, handle), ask_text(pynvml.nvmlDeviceGetName, handle)
                self._identities[index] = uuid, name, read_traits(handle)
                self._xids.watch(handle, uuid)
            return self._read(handle, index, now)
        except pynvml.NVMLError as error:
            uuid, name, traits = self._identities.get(index, ("", "", Traits()))
            xids = self._xids.of(uuid)  # an Xid is often why it is gone
            return Gpu(index, uuid, name, self._driver_version, traits=traits, xids=xids, error=word(error.value))

    def _read(self, handle: Any, index: int, now: float) -> Gpu:
        uuid, name, traits = self._identities[index]
        is_cut = mig.is_cut(handle)
        parts = mig.handles(handle) if is_cut else {}
        processes, left_out = the_largest(read_processes(handle, parts, self._names))
        return Gpu(
            index=index,
            uuid=uuid,
            name=name,
            driver_version=self._driver_version,
            traits=traits,
            wear=self._wear_of(handle, uuid, now),
            links=read_links(handle, uuid, self._rates, now),
            mig_enabled=is_cut,
            mig_instances=tuple(mig.read_instance(part, number) for number, part in parts.items()),
            processes=processes,
            processes_left_out=left_out,
            xids=self._xids.of(uuid),
            **read_live(handle),
        )

    def _wear_of(self, handle: Any, uuid: str, now: float) -> Wear:
        read_at, wear = self._wear.get(uuid, (None, Wear()))
        if read_at is None or now - read_at >= WEAR_EVERY_S or uuid in self._xids.new:
            wear = read_wear(handle)
            self._wear[uuid] = now, wear
        return wear


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
