"""What `forebay top` shows: rows from messages, and as many as there is room for."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from forebay.wire.v1 import admin_pb2, registry_pb2, scheduler_pb2, telemetry_pb2
from forebay_admin.cli.overview.top import _share, render
from forebay_admin.cli.overview.top_picture import BACKEND_COLUMNS, backend_row, bar, gpu_row, head, picture

LOAD = registry_pb2.EngineLoad(running=3, waiting=2, completion_tokens_per_s=120.4, measured_at_us=1)


def fleet(backends: int, gpus: int) -> tuple[list[registry_pb2.Backend], list[registry_pb2.Node]]:
    sample = telemetry_pb2.TelemetrySample(
        gpus=[
            telemetry_pb2.GpuSample(
                index=i,
                name="H100",
                utilization_percent=90,
                memory_used_bytes=79 * 10**9,
                memory_total_bytes=80 * 10**9,
            )
            for i in range(gpus)
        ]
    )
    many = [
        registry_pb2.Backend(
            id=f"be-{n}", name=f"vllm-{n}", enabled=True, slots=8, health=registry_pb2.BACKEND_HEALTH_HEALTHY, load=LOAD
        )
        for n in range(backends)
    ]
    return many, [registry_pb2.Node(name="box", last_sample=sample)]


def shown(width: int, height: int, backends: int, gpus: int, waiting: int = 0) -> list[str]:
    queued = [scheduler_pb2.QueuedUser(user_id=f"u{n}", model="m", requests=1, oldest_ms=n) for n in range(waiting)]
    asked = admin_pb2.ViewQueueResponse(queue=scheduler_pb2.ShowQueueResponse(waiting=queued))
    many, nodes = fleet(backends, gpus)
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(render(picture(asked, many, nodes, []), width, height, "12:00:00"))
    told: Any = console.file
    return [line.rstrip() for line in told.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (60, 20)])
def test_it_fits_whatever_there_is_to_show(width: int, height: int) -> None:
    lines = shown(width, height, backends=200, gpus=64, waiting=30)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert sum(line.strip().startswith("and ") for line in lines) == 3, "each table says what it left out"
    if width >= 80:
        assert not any("…" in line for line in lines), "nothing is cut that has a place in an ordinary terminal"


def test_where_there_is_room_all_is_shown() -> None:
    lines = shown(160, 60, backends=5, gpus=4, waiting=2)
    assert not any("more" in line for line in lines)
    assert sum("vllm-" in line for line in lines) == 5
    assert sum("box/" in line for line in lines) == 4


def test_small_tables_leave_their_room_to_large_ones() -> None:
    assert _share([2, 100, 3], 30) == [2, 25, 3]
    assert _share([100, 100], 11) == [6, 5]
    assert _share([5, 5], 0) == [2, 2]


def test_what_nobody_told_is_left_out_and_never_zero() -> None:
    (b,) = picture(None, [registry_pb2.Backend(name="b", enabled=True, slots=4)], None, None).backends
    assert backend_row(b)[4:] == ("? of 4", "", "", "", "")
    assert len(backend_row(b)) == len(BACKEND_COLUMNS)
    stale = registry_pb2.Backend(name="b", load=registry_pb2.EngineLoad(running=3, stale=True))
    assert picture(None, [stale], None, None).backends[0].running is None
    nobody = picture(None, None, None, None, ["The registry is away."])
    told = Text.from_markup(head(nobody)).plain
    assert told == "? of ? slots in use   ? waiting   reads ?   writes ?   ? of ? backends serve   ? gateways"
    assert nobody.plain()["completion_tokens_per_s"] is None
    gpu = telemetry_pb2.GpuSample(index=0, uuid="GPU-1", error="GPU_IS_LOST")
    node = registry_pb2.Node(name="box", last_sample=telemetry_pb2.TelemetrySample(gpus=[gpu]))
    assert "GPU_IS_LOST" in gpu_row(picture(None, None, [node], None).gpus[0])[2]


def test_a_bar_shows_that_something_is_there_and_when_it_is_full() -> None:
    assert bar(0.01) == "[green]█[/green][dim]░░░░░░░░░[/dim]"
    assert bar(0.99).startswith("[red]██████████")
    assert bar(0.99, is_good=True).startswith("[green]")
    assert bar(7.0).count("█") == 10
    assert bar(None) == "[dim]··········[/dim]"
