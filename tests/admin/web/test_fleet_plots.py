"""The numbers of plots: which address asks for what, how history and usage become columns, and who may have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from forebay.clock import SystemClock
from forebay.database import open_database
from forebay.errors import BadInput
from forebay.wire.v1 import history_pb2, usage_queries_pb2
from forebay_admin.people.people import Role
from forebay_admin.web.fleet.plots import (
    SPANS,
    asked,
    backend_plots,
    history_numbers,
    model_plots,
    node_plots,
    overview_plots,
    span_named,
    unit_of,
    usage_begins,
    usage_columns,
    usage_numbers,
)
from forebay_registry.history.calls import HistoryCalls
from forebay_registry.history.grid import Kept
from forebay_registry.history.reading import HistoryReader
from forebay_registry.history.rollup import Energy, Minute
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.store import HistoryStore
from forebay_registry.keeping.store import MIGRATIONS
from tests.admin.web.conftest import House
from tests.admin.web.fleet_house import fill

US = 1_000_000


def series(name: str, at_s: list[int], values: list[float], metric: str = "power_w") -> history_pb2.HistorySeries:
    nan = float("nan")
    column = history_pb2.HistoryColumn(
        metric=metric, mins=values, means=values, maxs=values, lasts=values, samples=[1] * len(values)
    )
    return history_pb2.HistorySeries(
        id=f"id-{name}",
        name=name,
        at_us=[at * US for at in at_s],
        columns=[column],
        gpu_wh=[5.0] * len(at_s),
        server_wh=[nan] * len(at_s),
        idle_wh=[nan] * len(at_s),
        measured_s=[60.0] * len(at_s),
        estimated=[False] * len(at_s),
        from_us=0,
        to_us=240 * US,
    )


def page_of(*found: history_pb2.HistorySeries) -> history_pb2.ReadHistoryResponse:
    return history_pb2.ReadHistoryResponse(resolution_s=60, series=found)


def test_a_time_at_which_nothing_is_known_is_a_gap_and_not_nothing() -> None:
    wanted = asked("gpu", ["box/0"], ["power_w"], "hour", is_summed=False)
    told = history_numbers([page_of(series("box/0", [0, 120], [100, 200]))], wanted)
    assert told == {
        "t": [0, 60, 120, 180],
        "series": [{"label": "Power", "unit": "W", "values": [100.0, None, 200.0, None]}],
    }


def test_several_series_are_told_apart_by_name_and_summed_where_that_is_asked() -> None:
    found = page_of(series("box/0", [0, 60], [100, 200]), series("box/1", [60], [50]))
    apart = history_numbers([found], asked("gpu", [], ["power_w"], "hour", is_summed=False))
    assert [one["label"] for one in apart["series"]] == ["box/0", "box/1"]  # type: ignore[attr-defined]
    summed = history_numbers([found], asked("gpu", [], ["power_w"], "hour", is_summed=True))
    assert summed["series"] == [{"label": "Power", "unit": "W", "values": [100.0, 250.0, None, None]}]


def test_pages_are_put_together_and_energy_is_a_column_like_others() -> None:
    pages = [page_of(series("box/0", [0], [1])), page_of(series("box/0", [60], [2]))]
    told = history_numbers(pages, asked("gpu", ["box/0"], ["energy_gpu_wh"], "day", is_summed=False))
    assert told["series"] == [{"label": "GPUs", "unit": "Wh", "values": [5.0, 5.0, None, None]}]
    nothing = history_numbers([page_of()], asked("gpu", [], ["power_w"], "day", is_summed=True))
    assert nothing == {"t": [], "series": []}


@pytest.mark.parametrize(
    ("metric", "unit", "factor"),
    [
        ("memory_used_bytes", "GB", 1e-9),
        ("network_sent_bytes_per_s", "MB/s", 1e-6),
        ("kv_used_fraction", "%", 100.0),
        ("serving", "%", 100.0),
        ("completion_tokens_per_s", "tokens/s", 1.0),
        ("running", "", 1.0),
    ],
)
def test_a_metrics_name_says_its_unit(metric: str, unit: str, factor: float) -> None:
    assert unit_of(metric) == (unit, factor)


@pytest.mark.parametrize(
    ("kind", "names", "metrics", "span"),
    [
        ("planet", [], ["power_w"], "day"),
        ("gpu", [], [], "day"),
        ("gpu", [], ["power_w"] * 9, "day"),
        ("gpu", ["x"] * 65, ["power_w"], "day"),
        ("gpu", [], ["power_w"], "century"),
        ("gpu", [], ["energy_solar"], "day"),
    ],
)
def test_an_address_that_asks_for_nonsense_is_refused(
    kind: str, names: list[str], metrics: list[str], span: str
) -> None:
    with pytest.raises(BadInput):
        asked(kind, names, metrics, span, is_summed=False)


def test_energy_alone_reads_no_metrics() -> None:
    request = asked("gpu", ["box/0"], ["energy_gpu_wh"], "day", is_summed=False).request(1_000_000.0)
    assert request.energy_only
    assert (request.to_us - request.from_us, request.resolution_s) == (86_400 * US, 300)


def test_a_bucket_in_which_nobody_asked_has_zeros() -> None:
    span = span_named("hour")
    begin = usage_begins(span, 7230.0)
    assert begin == 3600, "the whole minute that the span begins in"
    line = usage_queries_pb2.UsageLine(at_us=3660 * US, sums=usage_queries_pb2.UsageSums(requests=3))
    told = usage_numbers(
        usage_queries_pb2.QueryUsageResponse(from_us=begin * US, to_us=3780 * US, lines=[line]), span, ("requests",)
    )
    assert told == {"t": [3600, 3660, 3720], "series": [{"label": "Requests", "unit": "", "values": [0, 3, 0]}]}


def test_columns_of_usage_are_those_that_there_are() -> None:
    assert usage_columns(["requests", "failed", "requests"]) == ("requests", "failed")
    for names in ([], ["cost"], ["requests"] * 6):
        with pytest.raises(BadInput):
            usage_columns(names)
    with pytest.raises(BadInput):
        span_named("fortnight")


@pytest.mark.parametrize("span", SPANS)
def test_every_plot_asks_for_metrics_that_are_kept(span: str) -> None:
    plots = (
        *overview_plots(span),
        *node_plots("box", [0, 1], span),
        *backend_plots("vllm", span),
        *model_plots("org/m:8b", span),
    )
    for plot in plots:
        query = parse_qs(urlsplit(plot.src).query)
        if "kind" not in query:
            assert usage_columns(query["column"])
            continue
        wanted = asked(query["kind"][0], query.get("name", []), query["metric"], query["span"][0], is_summed=False)
        kept = METRICS[Kind(wanted.kind)]
        assert all(metric in kept or metric.startswith("energy_") for metric in wanted.metrics), plot
    assert len({plot.id for plot in node_plots("box", [0], span)}) == len(node_plots("box", [0], span))
    assert not any("kind=gpu" in plot.src for plot in node_plots("box", [], span)), "none where there is no GPU"


# --- over HTTP, with a real history -------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_history_is_answered_as_json_to_those_who_may_see_it(house: House) -> None:
    fill(house)
    at = round((datetime.now(UTC) - timedelta(minutes=20)).timestamp()) // 60 * 60
    gpu = Series(Kind.GPU, "no-box/0")
    numbers: list[float | None] = [40.0, *[None] * (len(METRICS[Kind.GPU]) - 1)]
    minutes = [
        Minute(gpu, at + 60 * i, [30, *[0] * (len(numbers) - 1)], numbers, numbers, numbers, numbers, Energy(1.0))
        for i in range(5)
    ]
    async with open_database(house.admin.site.database_url, "registry") as database:
        await database.prepare(MIGRATIONS)
        store, clock = HistoryStore(database), SystemClock()
        await store.begin(0.0)
        await store.write(uuid4(), minutes, {gpu: "box/0"}.__getitem__)
        reader = HistoryReader(database, clock, Kept(14 * 86_400.0, 400 * 86_400.0))
        house.admin.site.registry.history = HistoryCalls(reader)
        address = "/console/data/history.json?kind=gpu&name=box/0&metric=utilization_percent&span=hour"
        try:
            status, told = await (await house.of(Role.AUDITOR)).call("GET", address)
            assert status == 200
            (one,) = told["series"]
            assert (one["unit"], [value for value in one["values"] if value is not None]) == ("%", [40.0] * 5)
            assert len(told["t"]) == len(one["values"])
            assert (await (await house.of(Role.MEMBER)).call("GET", address))[0] == 403
            status, told = await (await house.of(Role.ADMIN)).call(
                "GET", address.replace("utilization_percent", "magic")
            )
            assert status == 400
            assert "magic" in str(told)
        finally:
            house.admin.site.registry.history = None
        status, told = await (await house.of(Role.ADMIN)).call("GET", address)
        assert status == 503, "its source is away"
    assert (await (await house.nobody()).call("GET", address))[0] == 401


@pytest.mark.asyncio(loop_scope="module")
async def test_usage_of_a_model_is_answered_as_json(house: House) -> None:
    address = "/console/data/usage.json?model=org/qwen3:8b&column=requests&column=failed&span=week"
    status, told = await (await house.of(Role.OPERATOR)).call("GET", address)
    assert status == 200
    assert [one["label"] for one in told["series"]] == ["Requests", "Failed"]
    assert set(told["series"][0]["values"]) == {0}
    assert (await (await house.of(Role.OPERATOR)).call("GET", f"{address}&column=cost"))[0] == 400
