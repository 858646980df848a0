"""What was, as MindRouter tells it: points of the registry's own tables, in its steps; and the steps that we do not keep."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from forebay.clock import SystemClock
from forebay.database import open_database
from forebay.errors import BadInput
from forebay.wire.v1 import registry_pb2, telemetry_pb2
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.points import Value, asked_span, demand_few, gathered, of_column, together
from forebay_admin.seeds.numbers import number_of
from forebay_registry.history.calls import HistoryCalls
from forebay_registry.history.grid import Kept
from forebay_registry.history.reading import HistoryReader
from forebay_registry.history.rollup import Energy, Minute
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.store import HistoryStore
from forebay_registry.keeping.store import MIGRATIONS
from tests.admin.replica import Running
from tests.admin.seeds.conftest import Script

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
GPUS = [Series(Kind.GPU, f"no-1/{index}") for index in range(2)]
NODE, BACKEND = Series(Kind.NODE, "no-1"), Series(Kind.BACKEND, "be-1")
NAMES = {GPUS[0]: "box/0", GPUS[1]: "box/1", NODE: "box", BACKEND: "vllm"}
GB = 1024**3


def minute(series: Series, offset: int, **values: float) -> Minute:
    told = [values.get(metric) for metric in METRICS[series.kind]]
    samples = [0 if value is None else 30 for value in told]
    at = round((HOUR + timedelta(minutes=offset)).timestamp())
    return Minute(series, at, samples, told, told, told, told, Energy())


@pytest.fixture
async def known(admin: Running) -> AsyncIterator[Running]:
    """An hour of a node with two GPUs, of which a backend has the first."""
    rows = []
    for at in range(60):
        used = {"memory_used_bytes": float(GB), "power_w": 100.0}
        rows += [minute(gpu, at, utilization_percent=float(at), **used) for gpu in GPUS]
        rows.append(minute(NODE, at, power_w=500.0))
        rows.append(minute(BACKEND, at, running=4.0, waiting=1.0, completion_tokens_per_s=30.0))
    registry = admin.site.registry
    gpus = [telemetry_pb2.GpuSample(index=index) for index in range(2)]
    sample = telemetry_pb2.TelemetrySample(node="box", gpus=gpus)
    registry.enrolled["box"] = registry_pb2.Node(id="no-1", name="box", heard_at_us=1, last_sample=sample)
    registry.enrolled["new"] = registry_pb2.Node(id="no-2", name="new", last_sample=sample)
    registry.known["vllm"] = registry_pb2.Backend(
        id="be-1", name="vllm", url="http://192.0.2.1:1", node_id="no-1", gpu_indices=[0], enabled=True
    )
    async with open_database(admin.site.database_url, "registry") as database:
        await database.prepare(MIGRATIONS)
        store, kept = HistoryStore(database), Kept(14 * 86_400.0, 400 * 86_400.0)
        await store.begin(0.0)
        await store.write(uuid4(), rows, NAMES.__getitem__)
        registry.history = HistoryCalls(HistoryReader(database, SystemClock(), kept))
        yield admin


async def test_each_kind_of_history_is_told_in_its_steps(known: Running, script: Script) -> None:
    span = f"start={HOUR:%Y-%m-%dT%H:%M:%SZ}&end={HOUR + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    at = "/api/admin/telemetry"
    gpu, backend, node = number_of("gpu", "box/0"), number_of("backend", "be-1"), number_of("node", "no-1")
    told = await script.done("GET", f"{at}/gpus/{gpu}/history?{span}&resolution=15m")
    assert (told["gpu_device_id"], told["metric"], told["resolution"]) == (gpu, "utilization", "15m")
    values = [(point["min"], point["value"], point["max"]) for point in told["series"]]
    assert values == [(0, 7, 14), (15, 22, 29), (30, 37, 44), (45, 52, 59)]
    for path, value in (
        (f"nodes/{node}/history?metric=memory&resolution=1m", 2.0),
        (f"nodes/{node}/history?metric=power&resolution=5m", 200.0),
        (f"backends/{backend}/history?metric=gpu_memory&resolution=5m", 1.0),
        (f"backends/{backend}/history?metric=throughput&resolution=1h", 30.0),
        (f"energy/nodes/{node}/history?metric=server_power&resolution=15m", 500.0),
        (f"energy/nodes/{node}/history?metric=gpu_power", 200.0),
    ):
        told = await script.done("GET", f"{at}/{path}&{span}")
        assert {point["value"] for point in told["series"]} == {value}, path
    told = await script.done("GET", f"{at}/backends/{backend}/history?metric=requests&{span}&resolution=1h")
    assert [(point["value"], point["queued"]) for point in told["series"]] == [(4, 1)]
    told = await script.done("GET", f"{at}/energy/cluster/history?{span}&resolution=15m")
    points = {(one["server_power"], one["gpu_power"], one["node_count"]) for one in told["series"]}
    assert (points, len(told["series"])) == ({(500.0, 200.0, 1)}, 4)

    told = await script.done("GET", f"{at}/export?{span}&backend_id={backend}")
    assert (told["count"], told["data"][0]["backend_name"], told["data"][0]["active_requests"]) == (60, "vllm", 4)
    text = await script.done("GET", f"{at}/export?{span}&format=csv")
    assert [row["tokens_per_second"] for row in csv.DictReader(io.StringIO(text))] == ["30.0"] * 60
    text = await script.done("GET", f"{at}/energy/export?{span}&resolution=15m&scope=gpu&node_id={node}")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["node_name"], row["gpu_power_watts"]) for row in rows] == [("box", "200.0")] * 4
    nothing = await script.done("GET", f"{at}/nodes/{number_of('node', 'no-2')}/history?metric=power&{span}")
    assert nothing["series"] == []
    told = await script.done("GET", f"{at}/energy/export?{span}&resolution=1h&format=json")
    assert (told["data"][0]["server_power_watts"], told["data"][0]["gpu_power_watts"]) == (500.0, 200.0)


def test_finer_points_are_put_together() -> None:
    points = {at: Value(at, at - 1, at + 1) for at in (0, 300, 600, 900)}
    assert gathered(points, 900) == {0: Value(300, -1, 601), 900: Value(900, 899, 901)}
    two = [{0: Value(1, 0, 2)}, {0: Value(3, 2, 4), 60: Value(5, 5, 5)}]
    assert together(two, adds_up=True) == {0: Value(4, 2, 6), 60: Value(5, 5, 5)}
    assert together(two, adds_up=False) == {0: Value(2, 1, 3), 60: Value(5, 5, 5)}
    nan = float("nan")
    assert of_column([0, 60_000_000], [1.0, nan], [1.0, nan], [1.0, nan]) == {0: Value(1.0, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("asked", "hours"),
    [({}, 1), ({"range": "7d"}, 168), ({"start": "2026-01-01T00:00:00Z"}, 48), ({"end": "2026-01-02T00:00:00Z"}, 1)],
)
def test_a_span_is_said_by_its_ends_or_by_its_length(asked: dict[str, str], hours: int) -> None:
    now = datetime(2026, 1, 3, tzinfo=UTC)
    span = asked_span(Fields(asked, "query"), now)
    assert span.until - span.since == timedelta(hours=hours)
    demand_few(span, 10)
    with pytest.raises(BadInput):
        demand_few(span, 10_000)


@pytest.mark.parametrize(
    "asked", [{"range": "1y"}, {"resolution": "2m"}, {"start": "2026-02-01"}, {"range": "30d", "resolution": "1m"}]
)
def test_a_span_that_cannot_be_told_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        asked_span(Fields(asked, "query"), datetime(2026, 1, 3, tzinfo=UTC))
