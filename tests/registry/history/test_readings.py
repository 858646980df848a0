"""The numbers of a series in what agents and engines tell."""

from __future__ import annotations

from math import inf, nan

from forebay.wire.v1.telemetry_pb2 import GpuSample, HostSample
from forebay_registry.backend import BackendId, Condition, Desired, Load, Model, Observed, Rates, Seen
from forebay_registry.fleet.fleet import View, view_of
from forebay_registry.history import readings
from forebay_registry.history.series import METRICS, Kind

BACKEND = Desired(BackendId("be-1"), "big", "http://gpu-1:8000", None, "default", 4, None, "ada", 0.0)


def told(kind: Kind, reading: readings.Reading) -> dict[str, float]:
    return {metric: n for metric, n in zip(METRICS[kind], reading, strict=True) if n is not None}


def view(condition: Condition, *models: Model, load: Load | None = None) -> View:
    return view_of(BACKEND, Observed(condition, seen=Seen(models=models), load=load), has_credential=False)


def test_every_reading_has_a_place_for_every_metric_and_what_was_not_told_is_in_none_of_them() -> None:
    assert told(Kind.NODE, readings.of_host(HostSample())) == {"load_1m": 0.0}
    assert told(Kind.GPU, readings.of_gpu(GpuSample())) == {}
    assert told(Kind.GPU, readings.of_gpu(GpuSample(error="GPU_IS_LOST", temperature_c=50))) == {}
    assert told(Kind.BACKEND, readings.of_backend(Condition.UNKNOWN, None)) == {}


def test_what_is_told_is_in_the_units_that_the_names_say() -> None:
    host = HostSample(
        memory_total_bytes=10, memory_available_bytes=4, disk_total_bytes=1, disk_free_bytes=5, power_mw=1500
    )
    assert told(Kind.NODE, readings.of_host(host)) == {"load_1m": 0.0, "memory_used_bytes": 6.0, "power_w": 1.5}
    gpu = GpuSample(temperature_c=90, power_mw=700_000, clock_reasons=["sw_power_cap", "hw_thermal_slowdown"])
    assert told(Kind.GPU, readings.of_gpu(gpu)) == {"temperature_c": 90.0, "power_w": 700.0, "thermal_slowdown": 1.0}
    load = Load(2, 0, 0.5, 1.0, rates=Rates(15.0, completion_tokens_per_s=99.0))
    assert told(Kind.BACKEND, readings.of_backend(Condition.SATURATED, load)) == {
        "serving": 1.0,
        "running": 2.0,
        "waiting": 0.0,
        "kv_used_fraction": 0.5,
        "completion_tokens_per_s": 99.0,
    }


def test_what_is_no_number_or_stale_is_not_told() -> None:
    assert told(Kind.NODE, readings.of_host(HostSample(cpu_percent=nan, load_1m=inf))) == {}
    stale = Load(2, 0, nan, 1.0).grown_stale()
    assert told(Kind.BACKEND, readings.of_backend(Condition.UNHEALTHY, stale)) == {"serving": 0.0}
    assert "kv_used_fraction" not in told(Kind.BACKEND, readings.of_backend(Condition.HEALTHY, Load(2, 0, 1e300, 1.0)))


def test_how_much_runs_of_a_model_is_counted_where_its_backend_has_no_other() -> None:
    alone = view(Condition.HEALTHY, Model("llama", loaded=True), load=Load(3, 1, None, 1.0))
    among = view(Condition.HEALTHY, Model("llama"), Model("qwen"), load=Load(5, 5, None, 1.0))
    down = view(Condition.UNHEALTHY, Model("llama", loaded=True), Model("a\0b"), load=Load(7, 7, None, 1.0))
    found = {name: told(Kind.MODEL, reading) for name, reading in readings.of_models([alone, among, down]).items()}
    assert found == {
        "llama": {"backends": 3.0, "serving_backends": 2.0, "loaded_backends": 1.0, "running": 3.0, "waiting": 1.0},
        "qwen": {"backends": 1.0, "serving_backends": 1.0},
    }


def test_what_is_too_small_for_a_mean_in_postgres_is_nothing() -> None:
    rates = Rates(2.0, prompt_tokens_per_s=1e-44, completion_tokens_per_s=3.0)
    told = readings.of_backend(Condition.HEALTHY, Load(1, 0, None, 1.0, rates=rates))
    assert told[4:6] == [0.0, 3.0]
