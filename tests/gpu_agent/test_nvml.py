"""What is read of GPUs: nvidia-ml-py itself, on a driver that answers as the test wants."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pynvml

from forebay_gpu_agent.nvml import FIRST_WAIT_S, MOST_WAIT_S, explain, word
from tests.gpu_agent.nvml_machine import A100, NvmlMachine

LOST = f"!{pynvml.NVML_ERROR_GPU_IS_LOST}"
NOT_LOADED = f"!{pynvml.NVML_ERROR_DRIVER_NOT_LOADED}"


def test_the_stand_in_and_nvidia_ml_py_agree_on_the_layout(nvml_library: Path) -> None:
    library = ctypes.CDLL(str(nvml_library / "libnvidia-ml.so.1"))
    assert {
        "memory": library.stub_sizeof_memory(),
        "utilization": library.stub_sizeof_utilization(),
        "temperature": library.stub_sizeof_temperature(),
        "process": library.stub_sizeof_process(),
    } == {
        "memory": ctypes.sizeof(pynvml.c_nvmlMemory_t),
        "utilization": ctypes.sizeof(pynvml.c_nvmlUtilization_t),
        "temperature": ctypes.sizeof(pynvml.c_nvmlTemperature_v1_t),
        "process": ctypes.sizeof(pynvml.c_nvmlProcessInfo_v3_t),
    }
    assert [name for name, _ in pynvml.c_nvmlMemory_t._fields_] == ["total", "free", "used"]
    assert [name for name, _ in pynvml.c_nvmlUtilization_t._fields_] == ["gpu", "memory"]
    assert [name for name, _ in pynvml.c_nvmlProcessInfo_v3_t._fields_][:2] == ["pid", "usedGpuMemory"]


def test_every_value_of_every_gpu_is_read(machine: NvmlMachine) -> None:
    machine.has(A100, {**A100, "utilization": 0, "temperature": 40})
    read = machine.read()
    assert (read["state"], read["message"]) == ("ok", "")
    assert read["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-0",
        "name": "NVIDIA A100-SXM4-80GB",
        "driver_version": "580.65.06",
        "utilization_percent": 55,
        "memory_utilization_percent": 21,
        "memory_total_bytes": 80 << 30,
        "memory_used_bytes": 30 << 30,
        "memory_free_bytes": 50 << 30,
        "temperature_c": 61,
        "power_mw": 250_125,
        "power_limit_mw": 400_000,
        "fan_percent": 30,
        "sm_clock_mhz": 1410,
        "memory_clock_mhz": 1593,
        "processes": [
            {"pid": 7, "memory_bytes": None},
            {"pid": 41, "memory_bytes": 1000},
            {"pid": 99, "memory_bytes": 5},
        ],
        "error": "",
    }
    second = read["gpus"][1]
    assert (second["uuid"], second["utilization_percent"], second["temperature_c"]) == ("GPU-1", 0, 40)


def test_values_are_read_anew_each_time(machine: NvmlMachine) -> None:
    machine.has(A100)
    assert machine.read()["gpus"][0]["utilization_percent"] == 55
    machine.set(gpu0_utilization=99)
    assert machine.read()["gpus"][0]["utilization_percent"] == 99


def test_what_a_gpu_does_not_support_is_absent_and_not_zero(machine: NvmlMachine) -> None:
    machine.has({"name": "A card of few words"})
    gpu = machine.read()["gpus"][0]
    assert (gpu["uuid"], gpu["name"], gpu["error"], gpu["processes"]) == ("GPU-0", "A card of few words", "", [])
    values = [k for k in gpu if k.endswith(("_percent", "_bytes", "_c", "_mw", "_mhz"))]
    assert len(values) == 11
    assert {gpu[k] for k in values} == {None}


def test_any_other_error_of_one_value_costs_that_value_alone(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.set(gpu0_power=f"!{pynvml.NVML_ERROR_UNKNOWN}", gpu0_compute=f"!{pynvml.NVML_ERROR_NO_PERMISSION}")
    gpu = machine.read()["gpus"][0]
    assert (gpu["power_mw"], gpu["power_limit_mw"], gpu["error"]) == (None, 400_000, "")
    assert [process["pid"] for process in gpu["processes"]] == [41, 99]


def test_a_gpu_that_is_lost_in_the_middle_of_a_sample_is_named_and_the_others_go_on(machine: NvmlMachine) -> None:
    machine.has(A100, A100, A100)
    machine.set(gpu1_power=LOST)
    read = machine.read()
    assert read["state"] == "ok"
    lost = read["gpus"][1]
    assert (lost["uuid"], lost["name"], lost["error"]) == ("GPU-1", "NVIDIA A100-SXM4-80GB", "GPU_IS_LOST")
    assert lost["utilization_percent"] is None  # read before the loss, and worth nothing after it
    assert [gpu["error"] for gpu in read["gpus"]] == ["", "GPU_IS_LOST", ""]
    assert read["gpus"][2]["power_mw"] == 250_125


def test_a_gpu_whose_handle_is_refused_keeps_the_name_it_had(machine: NvmlMachine) -> None:
    machine.has(A100, A100)
    machine.read()
    machine.set(gpu0_handle=LOST)
    lost = machine.read()["gpus"][0]
    assert (lost["uuid"], lost["name"], lost["error"]) == ("GPU-0", "NVIDIA A100-SXM4-80GB", "GPU_IS_LOST")


def test_a_lost_gpu_that_returns_is_read_again(machine: NvmlMachine) -> None:
    machine.has(A100, A100)
    machine.set(gpu1_power=LOST)
    assert machine.read()["gpus"][1]["error"] == "GPU_IS_LOST"
    machine.set(gpu1_power=1000)
    assert [gpu["power_mw"] for gpu in machine.read(after_s=MOST_WAIT_S)["gpus"]] == [250_125, 1000]


def test_an_older_driver_without_some_functions_is_read_as_far_as_it_goes(
    old_nvml_library: Path, tmp_path: Path
) -> None:
    with NvmlMachine(old_nvml_library, tmp_path / "nvml") as machine:
        machine.has(A100)
        gpu = machine.read()["gpus"][0]
    assert (gpu["temperature_c"], gpu["power_mw"], gpu["error"]) == (61, 250_125, "")
    assert (gpu["power_limit_mw"], gpu["processes"]) == (None, [])


def test_a_driver_without_a_gpu_says_so(machine: NvmlMachine) -> None:
    machine.has()
    read = machine.read()
    assert read == {"state": "no_gpu", "message": "This host has an NVIDIA driver and no GPU.", "gpus": []}
    machine.has(A100)
    assert machine.read(after_s=MOST_WAIT_S)["state"] == "ok"


def test_a_driver_that_goes_away_and_comes_back_is_opened_again(machine: NvmlMachine) -> None:
    machine.has(A100)
    assert machine.read()["state"] == "ok"
    machine.set(count=NOT_LOADED, init=NOT_LOADED)
    gone = machine.read()
    assert (gone["state"], gone["gpus"]) == ("failed", [])
    assert "not loaded" in gone["message"]
    machine.has(A100, driver="590.1")
    back = machine.read(after_s=FIRST_WAIT_S)
    assert (back["state"], back["gpus"][0]["driver_version"]) == ("ok", "590.1")


def test_a_driver_that_stays_away_is_asked_less_and_less_often(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.set(init=NOT_LOADED)
    assert machine.read()["state"] == "failed"  # asked again after 2 s, then 4 s, 8 s …
    assert machine.read(after_s=FIRST_WAIT_S)["state"] == "failed"
    machine.forget("init")
    assert machine.read(after_s=2 * FIRST_WAIT_S - 0.5)["state"] == "failed"  # not asked yet
    assert machine.read(after_s=0.5)["state"] == "ok"


def test_however_long_it_was_away_a_driver_is_found_within_a_minute(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.set(init=NOT_LOADED)
    for _ in range(20):
        assert machine.read(after_s=10 * MOST_WAIT_S)["state"] == "failed"
    machine.forget("init")
    assert machine.read(after_s=MOST_WAIT_S)["state"] == "ok"


def test_without_a_library_one_plain_sentence_says_that_there_is_no_driver(tmp_path: Path) -> None:
    code = (
        "from forebay_gpu_agent.nvml import Nvml; read = Nvml(lambda: 0.0).read(); print(read.state, '|', read.message)"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    if _has_real_driver():  # then only a broken file in front of it hides it
        (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library")
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    state, message = shown.stdout.strip().split(" | ")
    assert state == "no_driver"
    assert message.startswith("There is no NVIDIA driver on this host")


def test_every_error_has_a_word_and_a_sentence() -> None:
    assert word(pynvml.NVML_ERROR_RESET_REQUIRED) == "RESET_REQUIRED"
    assert word(4711) == "ERROR_4711"
    assert "updated" in explain(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH).message
    assert explain(pynvml.NVML_ERROR_UNKNOWN).message == "The NVIDIA driver answers with an error: UNKNOWN."


def _has_real_driver() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True
