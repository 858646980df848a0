"""When a node is told of."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gpu_agent.facts import Gpu, GpuProcess, Gpus, GpuState, Host, MigInstance, Reading, Wear, Xids
from forebay_gpu_agent.pace import Pace, Reason, decide, is_busy, telling, works

PACE = Pace(busy_s=2.0, idle_s=10.0)
HOST = Host("box", 2, 1.0, 0.5, 1, 1, 1, 1, 1, 1, machine_id="m", boot_id="b")
IDLE = Gpu(
    0,
    "GPU-0",
    driver_version="580",
    utilization_percent=0,
    memory_used_bytes=10 << 30,
    memory_total_bytes=80 << 30,
    power_mw=90_000,
    power_limit_mw=400_000,
    processes=(GpuProcess(41, 10 << 30),),
    wear=Wear(ecc_uncorrected_volatile=0),
    xids=Xids(),
)


def seen(*gpus: Gpu, host: Host | None = HOST, state: GpuState = GpuState.OK) -> Reading:
    return Reading(0.0, host, Gpus(state, gpus=gpus))


def reason(before: Reading, after: Reading, passed_s: float = 2.0) -> Reason | None:
    return decide(telling(before, 100.0), telling(after, 100.0 + passed_s), PACE)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),  # an engine that holds a model and does nothing
        ({"utilization_percent": 1}, True),
        ({"power_mw": 250_000}, True),
        ({"power_mw": None, "power_limit_mw": None}, False),
        ({"utilization_percent": None}, True),  # cut by MIG: who runs there may work
        ({"utilization_percent": None, "clock_reasons": ("gpu_idle",)}, False),
        ({"utilization_percent": None, "processes": ()}, False),
    ],
)
def test_a_gpu_works_when_something_is_computed_there(values: dict[str, object], expected: bool) -> None:
    assert works(dataclasses.replace(IDLE, **values)) is expected  # type: ignore[arg-type]


def test_a_node_is_busy_when_one_gpu_is() -> None:
    assert not is_busy(Gpus(GpuState.OK, gpus=(IDLE, IDLE)))
    assert is_busy(Gpus(GpuState.OK, gpus=(IDLE, dataclasses.replace(IDLE, utilization_percent=3))))
    assert not is_busy(Gpus(GpuState.NO_DRIVER))


@pytest.mark.parametrize(
    "values",
    [
        {"error": "GPU_IS_LOST"},
        {"utilization_percent": 5},
        {"memory_used_bytes": 12 << 30},
        {"processes": ()},
        {"clock_reasons": ("hw_thermal_slowdown",)},
        {"wear": Wear(ecc_uncorrected_volatile=1)},
        {"xids": Xids(1, 79, 5.0)},
        {"driver_version": "590"},
        {"mig_enabled": True, "mig_instances": (MigInstance(0, "MIG-a"),)},
    ],
)
def test_what_others_should_know_is_told_at_once(values: dict[str, object]) -> None:
    changed = dataclasses.replace(IDLE, **values)  # type: ignore[arg-type]
    assert reason(seen(IDLE, IDLE), seen(IDLE, changed)) is Reason.CHANGED
    assert reason(seen(IDLE, changed), seen(IDLE, IDLE)) is Reason.CHANGED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (seen(IDLE), seen()),
        (seen(IDLE), seen(state=GpuState.FAILED)),
        (seen(IDLE), seen(IDLE, host=dataclasses.replace(HOST, hostname="other"))),
        (seen(IDLE), seen(IDLE, host=None)),
    ],
)
def test_another_state_or_another_machine_is_told_at_once(before: Reading, after: Reading) -> None:
    assert reason(before, after) is Reason.CHANGED


@pytest.mark.parametrize(
    "values",
    [
        {"temperature_c": 55},
        {"power_mw": 91_000},
        {"memory_used_bytes": (10 << 30) + 4096},
        {"clock_reasons": ("gpu_idle",)},
        {"energy_mj": 5},
    ],
)
def test_what_always_moves_a_little_waits_for_the_beat(values: dict[str, object]) -> None:
    assert reason(seen(IDLE), seen(dataclasses.replace(IDLE, **values))) is None  # type: ignore[arg-type]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(-0.4, 0.4))
@settings(max_examples=30, deadline=None)
def test_the_promise_of_each_sample_is_kept(load: list[bool], jitter: float) -> None:
    """Whatever the load does, the next sample comes within what the last one said, give or take how late a look was."""
    told, promised = None, 0.0
    for beat, works_now in enumerate(load):
        at = 2.0 * beat + (jitter if beat % 2 else 0.0)
        now = telling(seen(dataclasses.replace(IDLE, utilization_percent=50 if works_now else 0)), at)
        if decide(told, now, PACE) is None:
            assert told is not None
            assert at - told.at < promised
            continue
        assert told is None or at - told.at <= promised + 0.8
        told, promised = now, PACE.within_s(now.is_busy)
