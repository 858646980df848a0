"""How GPUs, nodes and backends were, and what power they drew, from the registry's history."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from forebay.errors import NotFound
from forebay.wire.v1 import history_pb2, registry_pb2
from forebay_admin.row_files import harmless
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter.points import (
    KEPT,
    Points,
    Span,
    Value,
    asked_span,
    demand_few,
    gathered,
    of_column,
    together,
)
from forebay_admin.seeds.mindrouter.shapes import GB, number, the_backend, the_node
from forebay_admin.seeds.numbers import number_of
from forebay_admin.seeds.route import Answer, SeedRoute

_NODE, _GPU, _BACKEND = (
    history_pb2.SERIES_KIND_NODE,
    history_pb2.SERIES_KIND_GPU,
    history_pb2.SERIES_KIND_BACKEND,
)
_GPU_METRICS = {
    "utilization": {"value": "utilization_percent", "memory": "memory_utilization_percent"},
    "memory": {"value": "memory_used_bytes"},
    "power": {"value": "power_w"},
    "temperature": {"value": "temperature_c", "memory": "memory_temperature_c"},
    "clocks": {"sm": "sm_clock_mhz", "memory": "memory_clock_mhz"},
}
_OF_BACKENDS_GPUS = {
    "gpu_utilization": "utilization",
    "gpu_memory": "memory",
    "power": "power",
    "temperature": "temperature",
}
_BACKEND_METRICS = {
    "requests": {"value": "running", "queued": "waiting"},
    "throughput": {"value": "completion_tokens_per_s"},
}
_ADDED = ("memory_used_bytes", "power_w")
"""What several GPUs have together is the sum; of the rest it is the mean."""


async def of_gpu(asking: Asking) -> Any:
    metric = asking.query.word("metric", tuple(_GPU_METRICS), "utilization")
    span = _span(asking)
    name = _gpu_named(await _nodes(asking), asking.path["gpu_id"])
    read = await _read(asking, _GPU, [name], span, list(_GPU_METRICS[metric].values()))
    series = _series(_GPU_METRICS[metric], read.get(name, {}))
    return {"gpu_device_id": number("gpu", name), **_head(metric, span), "series": series}


async def of_node(asking: Asking) -> Any:
    metric = asking.query.word("metric", ("utilization", "memory", "power", "temperature"), "utilization")
    span, node = _span(asking), await the_node(asking)
    columns = {"value": _GPU_METRICS[metric]["value"]}
    series = _series(columns, await _gpus_together(asking, _gpus(node), span, columns))
    return {"node_id": number("node", node.id), "node_name": node.name, **_head(metric, span), "series": series}


async def of_backend(asking: Asking) -> Any:
    metric = asking.query.word("metric", (*_OF_BACKENDS_GPUS, *_BACKEND_METRICS), "gpu_utilization")
    span, backend = _span(asking), await the_backend(asking)
    if metric in _BACKEND_METRICS:
        columns: Mapping[str, str] = _BACKEND_METRICS[metric]
        read = await _read(asking, _BACKEND, [backend.name], span, list(columns.values()))
        held = read.get(backend.name, {})
    else:
        columns = {"value": _GPU_METRICS[_OF_BACKENDS_GPUS[metric]]["value"]}
        node = next((one for one in await _nodes(asking) if one.id == backend.node_id), None)
        names = [] if node is None else _gpus(node, list(backend.gpu_indices))
        held = await _gpus_together(asking, names, span, columns)
    told = {"backend_id": number("backend", backend.id), "backend_name": backend.name}
    return {**told, **_head(metric, span), "series": _series(columns, held)}


async def export(asking: Asking) -> Any:
    form = asking.query.word("format", ("json", "csv"), "json")
    asked, span = asking.query.which("backend_id"), _span(asking, usual="24h", resolution="1m")
    backends = (await asking.call("ShowBackends")).backends
    wanted = {backend.name: backend for backend in backends}
    if asked:
        backend = await the_backend(asking, asked)
        wanted = {backend.name: backend}
    columns = {
        "active_requests": "running",
        "queued_requests": "waiting",
        "tokens_per_second": "completion_tokens_per_s",
    }
    read = await _read(asking, _BACKEND, list(wanted), span, list(columns.values())) if wanted else {}
    rows = [
        {
            "timestamp": point.pop("timestamp"),
            "backend_id": number("backend", wanted[name].id),
            "backend_name": name,
            **point,
        }
        for name, held in read.items()
        if name in wanted
        for point in _series(columns, held)
    ]
    return await asyncio.to_thread(_file, form, rows, span, "telemetry_export.csv")


async def power_of_node(asking: Asking) -> Any:
    metric = asking.query.word("metric", ("server_power", "gpu_power"), "server_power")
    span, node = _span(asking), await the_node(asking)
    server, gpus = await _power(asking, [node], span)
    held = server.get(node.name, {}) if metric == "server_power" else gpus.get(node.name, {})
    told = {"node_id": number("node", node.id), "node_name": node.name}
    return {**told, **_head(metric, span), "series": _series({"value": "power_w"}, {"power_w": held})}


async def power_of_all(asking: Asking) -> Any:
    span = _span(asking)
    server, gpus = await _power(asking, await _nodes(asking), span)
    head = _head("", span)
    del head["metric"]
    return {**head, "series": _cluster(server, gpus)}


async def export_power(asking: Asking) -> Any:
    scope = asking.query.word("scope", ("all", "server", "gpu"), "all")
    form, asked = asking.query.word("format", ("csv", "json"), "csv"), asking.query.which("node_id")
    span = _span(asking, usual="24h")
    nodes = [await the_node(asking, asked)] if asked else await _nodes(asking)
    server, gpus = await _power(asking, nodes, span)
    rows = [
        {
            "timestamp": _iso(at),
            "node_id": number("node", node.id),
            "node_name": node.name,
            **({"server_power_watts": _mean(server, node.name, at)} if scope != "gpu" else {}),
            **({"gpu_power_watts": _mean(gpus, node.name, at)} if scope != "server" else {}),
        }
        for node in nodes
        for at in sorted({*server.get(node.name, {}), *gpus.get(node.name, {})})
    ]
    return await asyncio.to_thread(_file, form, rows, span, "energy.csv")


# --- reading -----------------------------------------------------------------------------------------------------------


async def _read(
    asking: Asking, kind: history_pb2.SeriesKind.ValueType, names: list[str], span: Span, metrics: list[str]
) -> dict[str, dict[str, dict[int, Value]]]:
    """Name → metric → points, in the steps that were asked for. What has no history yet is left out."""
    known = set((await asking.call("ShowSeries", kind=kind)).names)
    names = [name for name in names if name in known]
    demand_few(span, len(names))
    if not names:
        return {}
    held: dict[str, dict[str, dict[int, Value]]] = {}
    request = history_pb2.ReadHistoryRequest(
        kind=kind,
        names=names,
        from_us=round(span.since.timestamp() * 1_000_000),
        to_us=round(span.until.timestamp() * 1_000_000),
        resolution_s=KEPT[span.step_s],
        metrics=metrics,
    )
    while True:
        answer = await asking.make("ShowHistory", request)
        for series in answer.series:
            of_one = held.setdefault(series.name, {})
            for column in series.columns:
                points = of_column(series.at_us, column.means, column.mins, column.maxs)
                of_one.setdefault(column.metric, {}).update(points)
        if not answer.next_page:
            break
        request.page = answer.next_page
    return {
        name: {metric: gathered(points, span.step_s) for metric, points in of_one.items()}
        for name, of_one in held.items()
    }


async def _gpus_together(
    asking: Asking, names: list[str], span: Span, columns: Mapping[str, str]
) -> dict[str, dict[int, Value]]:
    if not names:
        return {}
    read = await _read(asking, _GPU, names, span, list(columns.values()))
    return {
        metric: together([held.get(metric, {}) for held in read.values()], adds_up=metric in _ADDED)
        for metric in columns.values()
    }


async def _power(
    asking: Asking, nodes: list[registry_pb2.Node], span: Span
) -> tuple[dict[str, dict[int, Value]], dict[str, dict[int, Value]]]:
    """Of the whole machines, and of their GPUs, by the node's name."""
    if not nodes:
        return {}, {}
    server = await _read(asking, _NODE, [node.name for node in nodes], span, ["power_w"])
    names = {name: node.name for node in nodes for name in _gpus(node)}
    gpus: dict[str, list[dict[int, Value]]] = {}
    for name, held in (await _read(asking, _GPU, list(names), span, ["power_w"]) if names else {}).items():
        gpus.setdefault(names.get(name, ""), []).append(held.get("power_w", {}))
    return (
        {name: held.get("power_w", {}) for name, held in server.items()},
        {name: together(held, adds_up=True) for name, held in gpus.items()},
    )


async def _nodes(asking: Asking) -> list[registry_pb2.Node]:
    return list((await asking.call("ShowNodes")).nodes)


def _gpus(node: registry_pb2.Node, indices: list[int] | None = None) -> list[str]:
    """As history calls them."""
    gpus = node.last_sample.gpus if node.HasField("last_sample") else ()
    return [f"{node.name}/{gpu.index}" for gpu in gpus if not indices or gpu.index in indices]


def _gpu_named(nodes: list[registry_pb2.Node], asked: str) -> str:
    """Raises NotFound."""
    for node in nodes:
        for name in _gpus(node):
            if asked in (name, str(number_of("gpu", name))):
                return name
    raise NotFound("GPU not found")


# --- telling -----------------------------------------------------------------------------------------------------------


def _span(asking: Asking, *, usual: str = "1h", resolution: str = "5m") -> Span:
    now = datetime.fromtimestamp(asking.now, UTC)
    return asked_span(asking.query, now, usual=usual, resolution=resolution)


def _head(metric: str, span: Span) -> dict[str, Any]:
    return {
        "metric": metric,
        "resolution": span.resolution,
        "start": span.since.isoformat(),
        "end": span.until.isoformat(),
    }


def _series(columns: Mapping[str, str], held: Mapping[str, Points]) -> list[dict[str, Any]]:
    """`columns`: what a point calls it → metric. The least and the most are told of `value`."""
    times = sorted({at for metric in columns.values() for at in held.get(metric, {})})
    told = []
    for at in times:
        point: dict[str, Any] = {"timestamp": _iso(at)}
        for name, metric in columns.items():
            value, by = held.get(metric, {}).get(at), GB if metric.endswith("_bytes") else 1
            point[name] = round(value.mean / by, 3) if value is not None else None
            if name == "value" and value is not None:
                point |= {"min": round(value.least / by, 3), "max": round(value.most / by, 3)}
        told.append(point)
    return told


def _cluster(server: Mapping[str, Points], gpus: Mapping[str, Points]) -> list[dict[str, Any]]:
    whole, of_gpus = together(server.values(), adds_up=True), together(gpus.values(), adds_up=True)
    return [
        {
            "timestamp": _iso(at),
            "server_power": round(whole[at].mean, 1) if at in whole else None,
            "gpu_power": round(of_gpus[at].mean, 1) if at in of_gpus else None,
            "node_count": sum(1 for name in {*server, *gpus} if at in server.get(name, {}) or at in gpus.get(name, {})),
        }
        for at in sorted({*whole, *of_gpus})
    ]


def _file(form: str, rows: list[dict[str, Any]], span: Span, name: str) -> Any:
    if form == "json":
        return {"start": span.since.isoformat(), "end": span.until.isoformat(), "count": len(rows), "data": rows}
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\r\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({of: harmless(value) if isinstance(value, str) else value for of, value in row.items()})
    return Answer(
        text.getvalue().encode(),
        content_type="text/csv",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _mean(held: Mapping[str, Points], name: str, at: int) -> float | None:
    value = held.get(name, {}).get(at)
    return round(value.mean, 1) if value is not None else None


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


_CALLS = ("ShowHistory", "ShowSeries", "ShowNodes")
ROUTES = (
    SeedRoute("GET", "/telemetry/backends/{backend_id}/history", of_backend, (*_CALLS, "ShowBackends")),
    SeedRoute("GET", "/telemetry/gpus/{gpu_id}/history", of_gpu, _CALLS),
    SeedRoute("GET", "/telemetry/nodes/{node_id}/history", of_node, _CALLS),
    SeedRoute("GET", "/telemetry/export", export, ("ShowHistory", "ShowSeries", "ShowBackends")),
    SeedRoute("GET", "/telemetry/energy/nodes/{node_id}/history", power_of_node, _CALLS),
    SeedRoute("GET", "/telemetry/energy/cluster/history", power_of_all, _CALLS),
    SeedRoute("GET", "/telemetry/energy/export", export_power, _CALLS),
)
