"""A machine whose NVIDIA driver is a stand-in: a process in which nvidia-ml-py finds a library compiled from nvml_stub.c,
and the file from which that library answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

SOURCE = Path(__file__).with_name("nvml_stub.c")

_READ_ON_REQUEST = """
import json, sys
from dataclasses import asdict
from forebay.clock import ManualClock
from forebay_gpu_agent.nvml import Nvml

for line in sys.stdin:
    if line == "anew\\n":
        if "nvml" in globals():
            nvml.close()
        clock = ManualClock()
        nvml = Nvml(clock.monotonic, clock.now)
        continue
    clock.advance(float(line))
    print(json.dumps(asdict(nvml.read())), flush=True)
"""

A100: dict[str, object] = {
    "name": "NVIDIA A100-SXM4-80GB",
    "utilization": 55,
    "memory_utilization": 21,
    "memory_total": 80 << 30,
    "memory_used": 30 << 30,
    "temperature": 61,
    "power": 250_125,
    "power_limit": 400_000,
    "fan": 30,
    "sm_clock": 1410,
    "memory_clock": 1593,
    "compute": "3999999041:1000,3999999007:-",
    "graphics": "3999999041:1000,3999999099:5",
    "field.82": 70,
    "energy": 123_456_789_012,
    "performance_state": 2,
    "clock_reasons": 4 | 64,
    "max_sm_clock": 1980,
    "max_memory_clock": 1593,
    "ecc": 1,
    "ecc_corrected_volatile": 3,
    "ecc_uncorrected_volatile": 0,
    "ecc_corrected_aggregate": 40,
    "ecc_uncorrected_aggregate": 1,
    "field.29": 2,
    "field.30": 1,
    "field.31": 0,
    "remapped_rows": "1,2,0,0",
    "pcie_tx": 1500,
    "pcie_rx": 2500,
    "pcie_generation": 4,
    "pcie_width": 8,
    "max_pcie_generation": 4,
    "max_pcie_width": 16,
    "field.91": 4,
    "field.138.all": 1000,
    "field.139.all": 2000,
    "nvlink_states": "1101",
    "mig": 0,
    "pci_bus_id": "00000000:07:00.0",
    "serial": "1562920000001",
    "compute_capability": "8.0",
}
"""A GPU that tells everything."""


def cut(*instances: dict[str, object]) -> dict[str, object]:
    """The values of a GPU that MIG has cut into these instances; an empty one is a number that is not taken."""
    values: dict[str, object] = {"mig": 1, "utilization": "!3", "compute": "!3", "graphics": "!3"}
    for index, instance in enumerate(instances):
        values |= {f"mig{index}.{name}": value for name, value in instance.items()}
    return {**A100, **values}


def build_library(directory: Path, *, old_driver: bool = False) -> Path:
    """The folder that holds libnvidia-ml.so.1."""
    library = directory / "libnvidia-ml.so.1"
    flags = ["-DOLD_DRIVER"] if old_driver else []
    soname = "-Wl,-soname,libnvidia-ml.so.1"
    command = ["cc", "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", soname, *flags]
    subprocess.run([*command, "-o", str(library), str(SOURCE)], check=True)
    return directory


class NvmlMachine:
    """Entered: its process runs. Each `read` is one sample of the GPUs."""

    def __init__(self, library: Path, answers: Path) -> None:
        self._library = library
        self._answers = answers
        self._values: dict[str, object] = {}
        self._written = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_LIBRARY_PATH": str(self._library), "NVML_STUB": str(self._answers)}

    def __enter__(self) -> NvmlMachine:
        command = [sys.executable, "-c", _READ_ON_REQUEST]
        self._process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.begin_anew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def begin_anew(self) -> None:
        """With a driver that answers nothing, and an agent that was not there before."""
        self._values = {}
        self.answer()
        self._write("anew")

    def has(self, *gpus: dict[str, object], driver: str = "580.65.06") -> None:
        """The driver answers with these GPUs from now on."""
        self._values = {"driver": driver, "cuda": 12_080, "count": len(gpus)}
        for index, gpu in enumerate(gpus):
            self._values |= {f"gpu{index}.uuid": f"GPU-{index}"} | {f"gpu{index}.{k}": v for k, v in gpu.items()}
        self.answer()

    def set(self, **values: object) -> None:
        """`gpu1_power="!15"` (or "gpu1.power"): this GPU's power answers with error 15."""
        self._values |= {key if "." in key else key.replace("_", ".", 1): value for key, value in values.items()}
        self.answer()

    def forget(self, key: str) -> None:
        del self._values[key]
        self.answer()

    def answer(self) -> None:
        new = self._answers.with_suffix(".new")
        text = "".join(f"{key} {value}\n" for key, value in self._values.items())
        new.write_bytes(text.encode(errors="surrogateescape"))
        self._written += 1
        os.utime(new, (0, self._written))  # by which the library knows that it is another
        new.replace(self._answers)

    def read(self, after_s: float = 2.0) -> dict[str, Any]:
        """The next sample, with the clock moved on: `facts.Gpus` as a dictionary."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._write(str(after_s))
        read: dict[str, Any] = json.loads(self._process.stdout.readline())
        return read

    def _write(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
