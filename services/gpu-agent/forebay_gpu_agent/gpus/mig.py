"""MIG: the parts into which a GPU was cut, each a GPU to the programs that run there."""

from __future__ import annotations

from typing import Any

import pynvml

from forebay_gpu_agent.facts import MigInstance
from forebay_gpu_agent.gpus.asking import ask, ask_text

MOST_INSTANCES = 16
"""Read per GPU; NVIDIA's largest have 7 or 8."""


def is_cut(handle: Any) -> bool | None:
    """None where the GPU cannot be cut, or an older driver does not say."""
    mode = ask(pynvml.nvmlDeviceGetMigMode, handle)
    return None if mode is None else mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE


def handles(handle: Any) -> dict[int, Any]:
    """Index → handle of the instances there are; their numbers may have gaps."""
    most = min(ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0, MOST_INSTANCES)
    found = {index: ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(most)}
    return {index: part for index, part in found.items() if part is not None}


def read_instance(part: Any, index: int) -> MigInstance:
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, part)
    return MigInstance(
        index=index,
        uuid=ask_text(pynvml.nvmlDeviceGetUUID, part),
        name=ask_text(pynvml.nvmlDeviceGetName, part),
        gpu_instance=ask(pynvml.nvmlDeviceGetGpuInstanceId, part),
        compute_instance=ask(pynvml.nvmlDeviceGetComputeInstanceId, part),
        memory_total_bytes=memory.total if memory else None,
        memory_used_bytes=memory.used if memory else None,
        memory_free_bytes=memory.free if memory else None,
    )
