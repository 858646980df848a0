"""What is read of GPUs: nvidia-ml-py itself, on a driver that answers as the test wants."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pynvml
import pytest

from forebay_gpu_agent.gpus.asking import word
from forebay_gpu_agent.gpus.clocks import reasons
from forebay_gpu_agent.gpus.lasting import cuda_version
from forebay_gpu_agent.gpus.processes import MOST_PROCESSES
from forebay_gpu_agent.nvml import FIRST_WAIT_S, MOST_WAIT_S, WEAR_EVERY_S, explain
from tests.gpu_agent.nvml_machine import A100, NvmlMachine, cut

MISMATCH = f"!{pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}"
LOST = f"!{pynvml.NVML_ERROR_GPU_IS_LOST}"
NOT_LOADED = f"!{pynvml.NVML_ERROR_DRIVER_NOT_LOADED}"


def test_the_stand_in_and_nvidia_ml_py_agree_on_the_layout(nvml_library: Path) -> None:
    library = ctypes.CDLL(str(nvml_library / "libnvidia-ml.so.1"))
    told = {
        "memory": library.stub_sizeof_memory(),
        "utilization": library.stub_sizeof_utilization(),
        "temperature": library.stub_sizeof_temperature(),
        "process": library.stub_sizeof_process(),
        "pci": library.stub_sizeof_pci(),
        "event": library.stub_sizeof_event(),
        "field": library.stub_sizeof_field(),
    }
    _ctypes.dlclose(library._handle)  # else it would be this process's driver from now on, found by its name
    assert told == {
        "memory": ctypes.sizeof(pynvml.c_nvmlMemory_t),
        "utilization": ctypes.sizeof(pynvml.c_nvmlUtilization_t),
        "temperature": ctypes.sizeof(pynvml.c_nvmlTemperature_v1_t),
        "process": ctypes.sizeof(pynvml.c_nvmlProcessInfo_v3_t),
        "pci": ctypes.sizeof(pynvml.nvmlPciInfo_t),
        "event": ctypes.sizeof(pynvml.c_nvmlEventData_t),
        "field": ctypes.sizeof(pynvml.c_nvmlFieldValue_t),
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
        "memory_temperature_c": 70,
        "power_mw": 250_125,
        "power_limit_mw": 400_000,
        "energy_mj": 123_456_789_012,
        "fan_percent": 30,
        "sm_clock_mhz": 1410,
        "memory_clock_mhz": 1593,
        "performance_state": 2,
        "clock_reasons": ["sw_power_cap", "hw_thermal_slowdown"],
        "traits": {
            "pci_bus_id": "00000000:07:00.0",
            "serial": "1562920000001",
            "compute_capability": "8.0",
            "cuda_version": "12.8",
            "max_sm_clock_mhz": 1980,
            "max_memory_clock_mhz": 1593,
            "max_pcie_generation": 4,
            "max_pcie_width": 16,
        },
        "wear": {
            "ecc_enabled": True,
            "ecc_corrected_volatile": 3,
            "ecc_uncorrected_volatile": 0,
            "ecc_corrected_aggregate": 40,
            "ecc_uncorrected_aggregate": 1,
            "retired_pages_corrected": 2,
            "retired_pages_uncorrected": 1,
            "remapped_rows_corrected": 1,
            "remapped_rows_uncorrected": 2,
            "repair_pending": False,
            "repair_failed": False,
        },
        "links": {
            "pcie_tx_bytes_per_s": 1_500_000,
            "pcie_rx_bytes_per_s": 2_500_000,
            "pcie_generation": 4,
            "pcie_width": 8,
            "nvlink_tx_bytes_per_s": None,  # what passed is known from the second reading on
            "nvlink_rx_bytes_per_s": None,
            "nvlinks": 4,
            "nvlinks_active": 3,
        },
        "mig_enabled": False,
        "mig_instances": [],
        "processes": [
            {"pid": 3_999_999_007, "memory_bytes": None, "name": "", "mig_index": None},
            {"pid": 3_999_999_041, "memory_bytes": 1000, "name": "", "mig_index": None},
            {"pid": 3_999_999_099, "memory_bytes": 5, "name": "", "mig_index": None},
        ],
        "processes_left_out": 0,
        "xids": {"count": 0, "last": None, "last_at": None},
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
    values = [k for k in gpu if k.endswith(("_percent", "_bytes", "_c", "_mw", "_mj", "_mhz", "_state", "_enabled"))]
    assert len(values) == 15
    assert {gpu[k] for k in values} | {*gpu["links"].values()} | {*gpu["wear"].values()} == {None}
    assert {v for k, v in gpu["traits"].items() if k != "cuda_version"} == {None, ""}


def test_any_other_error_of_one_value_costs_that_value_alone(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.set(gpu0_power=f"!{pynvml.NVML_ERROR_UNKNOWN}", gpu0_compute=f"!{pynvml.NVML_ERROR_NO_PERMISSION}")
    gpu = machine.read()["gpus"][0]
    assert (gpu["power_mw"], gpu["power_limit_mw"], gpu["error"]) == (None, 400_000, "")
    assert [process["pid"] for process in gpu["processes"]] == [3_999_999_041, 3_999_999_099]


def test_a_name_that_is_no_text_costs_the_name(machine: NvmlMachine) -> None:
    machine.has({**A100, "name": "A\udcff", "serial": "\udcff"})
    gpu = machine.read()["gpus"][0]
    assert (gpu["name"], gpu["traits"]["serial"], gpu["error"], gpu["power_mw"]) == ("", "", "", 250_125)


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
    assert (gpu["power_limit_mw"], gpu["processes"], gpu["mig_enabled"], gpu["xids"]) == (None, [], None, None)
    assert (gpu["memory_temperature_c"], gpu["energy_mj"], gpu["links"]["nvlinks"]) == (None, None, None)
    # Under the name that they had before driver 535.
    assert gpu["clock_reasons"] == ["sw_power_cap", "hw_thermal_slowdown"]
    assert (gpu["wear"]["ecc_corrected_volatile"], gpu["wear"]["remapped_rows_corrected"]) == (3, None)


def test_a_gpu_that_is_cut_tells_each_of_its_instances(machine: NvmlMachine) -> None:
    small = {"name": "A100 MIG 1g.10gb", "memory_total": 10 << 30, "memory_used": 1 << 30, "compute": "3999999041:7"}
    machine.has(
        cut(
            {"uuid": "MIG-a", "gpu_instance": 9, "compute_instance": 0, **small},
            {},  # a number that is not taken
            {"uuid": "MIG-c", "memory_total": "!999", "graphics": "3999999050:9"},
        ),
        A100,
    )
    gpu, whole = machine.read()["gpus"]
    assert (gpu["mig_enabled"], gpu["utilization_percent"], gpu["memory_total_bytes"]) == (True, None, 80 << 30)
    first, third = gpu["mig_instances"]
    assert first == {
        "index": 0,
        "uuid": "MIG-a",
        "name": "A100 MIG 1g.10gb",
        "gpu_instance": 9,
        "compute_instance": 0,
        "memory_total_bytes": 10 << 30,
        "memory_used_bytes": 1 << 30,
        "memory_free_bytes": 9 << 30,
    }
    assert (third["index"], third["uuid"], third["name"], third["memory_used_bytes"]) == (2, "MIG-c", "", None)
    assert [(p["pid"], p["mig_index"]) for p in gpu["processes"]] == [(3_999_999_041, 0), (3_999_999_050, 2)]
    assert (whole["mig_enabled"], whole["mig_instances"]) == (False, [])


def test_an_instance_that_is_lost_with_its_gpu_is_that_gpus_error(machine: NvmlMachine) -> None:
    machine.has(cut({"uuid": "MIG-a", "compute": LOST}), A100)
    assert [gpu["error"] for gpu in machine.read()["gpus"]] == ["GPU_IS_LOST", ""]


def test_what_passed_over_nvlink_lies_between_two_readings(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.read()
    machine.set(**{"gpu0.field.138.all": 3000, "gpu0.field.139.all": 1})  # the second began anew
    links = machine.read(after_s=2.0)["gpus"][0]["links"]
    assert (links["nvlink_tx_bytes_per_s"], links["nvlink_rx_bytes_per_s"]) == (1000 * 1024, None)


def test_a_process_is_named_where_its_name_may_be_read(machine: NvmlMachine) -> None:
    machine.has({**A100, "compute": f"{os.getpid()}:5", "graphics": "!3"})
    (process,) = machine.read()["gpus"][0]["processes"]
    assert (process["pid"], process["name"]) == (os.getpid(), psutil.Process().name())


def test_of_very_many_processes_those_with_the_most_memory_are_told(machine: NvmlMachine) -> None:
    crowd = ",".join(f"{3_999_000_000 + n}:{n}" for n in range(500))
    machine.has({**A100, "compute": crowd, "graphics": "!3"})
    gpu = machine.read()["gpus"][0]
    assert [p["memory_bytes"] for p in gpu["processes"]] == list(range(500 - MOST_PROCESSES, 500))
    assert gpu["processes_left_out"] == 500 - MOST_PROCESSES


def test_an_error_that_the_driver_reports_is_told_with_its_time_and_the_wear_is_read_at_once(
    machine: NvmlMachine,
) -> None:
    machine.has(A100, {**A100, "events": "!4"})
    machine.read()
    machine.set(xids="0:31,1:31,0:48", **{"gpu0.ecc_uncorrected_volatile": 1})
    first, unwatched = machine.read()["gpus"]
    assert first["xids"] == {"count": 2, "last": 48, "last_at": 1_800_000_004.0}
    assert first["wear"]["ecc_uncorrected_volatile"] == 1
    assert unwatched["xids"] is None
    assert machine.read()["gpus"][0]["xids"]["count"] == 2


def test_wear_is_read_now_and_then(machine: NvmlMachine) -> None:
    machine.has(A100)
    machine.read()
    machine.set(**{"gpu0.ecc_corrected_volatile": 9})
    assert machine.read(after_s=WEAR_EVERY_S - 1)["gpus"][0]["wear"]["ecc_corrected_volatile"] == 3
    assert machine.read(after_s=1)["gpus"][0]["wear"]["ecc_corrected_volatile"] == 9


def test_eight_gpus_are_told_apart(machine: NvmlMachine) -> None:
    machine.has(*({**A100, "utilization": n, "serial": f"s{n}"} for n in range(8)))
    told = machine.read()["gpus"]
    assert [(g["uuid"], g["utilization_percent"], g["traits"]["serial"]) for g in told] == [
        (f"GPU-{n}", n, f"s{n}") for n in range(8)
    ]


def test_a_driver_that_is_updated_under_the_agent_is_said_and_read_again_after_the_restart(
    machine: NvmlMachine,
) -> None:
    machine.has(A100)
    assert machine.read()["state"] == "ok"
    machine.set(count=MISMATCH, init=MISMATCH)
    read = machine.read()
    assert (read["state"], "updated while the old one is loaded" in read["message"]) == ("failed", True)
    machine.has(A100, driver="600.1")
    assert machine.read(after_s=FIRST_WAIT_S)["gpus"][0]["driver_version"] == "600.1"


@pytest.mark.parametrize(
    ("bits", "told"),
    [(0, ()), (1, ("gpu_idle",)), (8 | 128, ("hw_slowdown", "hw_power_brake_slowdown")), (1 << 40, ("bit_40",))],
)
def test_the_reasons_of_slow_clocks_are_words(bits: int, told: tuple[str, ...]) -> None:
    assert reasons(bits) == told


@pytest.mark.parametrize(("number", "told"), [(12_080, "12.8"), (11_040, "11.4"), (13_000, "13.0")])
def test_a_version_of_cuda_is_read_from_its_number(number: int, told: str) -> None:
    assert cuda_version(number) == told


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
