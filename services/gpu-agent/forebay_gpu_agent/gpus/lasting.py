"""What lasts: a GPU's traits, read once, and its wear, which is read now and then, since some of it lies in slow memory."""

from __future__ import annotations

from typing import Any

import pynvml

from forebay_gpu_agent.facts import Traits, Wear
from forebay_gpu_agent.gpus.asking import ask, ask_fields, ask_text

_MEMORY = (
    pynvml.NVML_FI_DEV_RETIRED_SBE,
    pynvml.NVML_FI_DEV_RETIRED_DBE,
    pynvml.NVML_FI_DEV_RETIRED_PENDING,
)


def read_traits(handle: Any) -> Traits:
    pci = ask(pynvml.nvmlDeviceGetPciInfo_v3, handle)
    capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return Traits(
        pci_bus_id=_text(pci.busId) if pci else "",
        serial=ask_text(pynvml.nvmlDeviceGetSerial, handle),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        cuda_version=cuda_version(cuda) if cuda else "",
        max_sm_clock_mhz=ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        max_memory_clock_mhz=ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        max_pcie_generation=ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        max_pcie_width=ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    )


def read_wear(handle: Any) -> Wear:
    mode = ask(pynvml.nvmlDeviceGetEccMode, handle)
    ecc = bool(mode[0]) if mode else None
    retired_corrected, retired_uncorrected, retirement_pending = ask_fields(handle, _MEMORY)
    rows = ask(pynvml.nvmlDeviceGetRemappedRows, handle) or (None,) * 4
    pending = [one for one in (retirement_pending, rows[2]) if one is not None]
    return Wear(
        ecc_enabled=ecc,
        ecc_corrected_volatile=_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC),
        ecc_uncorrected_volatile=_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC),
        ecc_corrected_aggregate=_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_AGGREGATE_ECC),
        ecc_uncorrected_aggregate=_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_AGGREGATE_ECC),
        retired_pages_corrected=retired_corrected,
        retired_pages_uncorrected=retired_uncorrected,
        remapped_rows_corrected=rows[0],
        remapped_rows_uncorrected=rows[1],
        repair_pending=any(pending) if pending else None,
        repair_failed=None if rows[3] is None else bool(rows[3]),
    )


def cuda_version(number: int) -> str:
    """12080 → 12.8"""
    return f"{number // 1000}.{number % 1000 // 10}"


def _errors(handle: Any, kind: int, counter: int) -> int | None:
    told: int | None = ask(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, counter)
    return told


def _text(told: Any) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
