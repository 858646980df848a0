"""The panes of `forebay top` in a terminal: what stands in each, row by row, and which rows a filter leaves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape

from forebay.wire.v1 import admin_pb2, registry_pb2, scheduler_pb2, usage_pb2
from forebay_admin.cli.overview.top_picture import (
    BACKEND_COLUMNS,
    GPU_COLUMNS,
    QUEUE_COLUMNS,
    backend_row,
    gpu_row,
    queue_row,
)
from forebay_admin.cli.plain import usage_row, word
from forebay_admin.cli.words import coloured, count, gigabytes, milliseconds, span
from forebay_admin.fleet.picture import Picture

QUEUE, BACKENDS, GPUS, NODES, STREAMS, REQUESTS = "queue", "backends", "gpus", "nodes", "streams", "requests"
TITLES = {
    QUEUE: "Queue",
    BACKENDS: "Backends",
    GPUS: "GPUs",
    NODES: "Nodes",
    STREAMS: "Streams, by gateway",
    REQUESTS: "Latest requests",
}
COLUMNS = {
    QUEUE: QUEUE_COLUMNS,
    BACKENDS: BACKEND_COLUMNS,
    GPUS: GPU_COLUMNS,
    NODES: ("Node", "Heard", "#CPU", "#Load", "Memory", "Agent?", "What is wrong"),
    STREAMS: ("Gateway", "State", "Heard", "#Running", "#Queued", "#May hold"),
    REQUESTS: ("Request", "Began", "Model", "Outcome", "#Tokens", "#First token", "#Took"),
}
"""As in top_picture: # stands to the right, ? is left out where it is narrow."""
NOTHING = {
    QUEUE: "Nobody waits.",
    BACKENDS: "No backends. Add one with: forebay backend add NAME URL",
    GPUS: "No GPUs are known.",
    NODES: "No nodes have joined.",
    STREAMS: "No gateway is connected.",
    REQUESTS: "No requests in the last day.",
}
_SILENT_S = 15.0
_SHORT_ID = 18


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    """By which it is found again in the next look: a backend's name, a request's id."""
    cells: tuple[str, ...]
    """rich's markup."""
    words: str
    """What a filter looks in, without markup and capitals."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look."""

    picture: Picture
    nodes: Sequence[registry_pb2.Node] = ()
    gateways: Sequence[scheduler_pb2.GatewaySession] = ()
    requests: Sequence[usage_pb2.UsageRecord] = ()
    drained: frozenset[str] = frozenset()
    """Names of backends that nothing new is sent to by somebody's word."""


def seen(
    picture: Picture,
    queue: admin_pb2.ViewQueueResponse | None,
    backends: Sequence[registry_pb2.Backend] | None,
    nodes: Sequence[registry_pb2.Node] | None,
    requests: Sequence[usage_pb2.UsageRecord],
) -> Seen:
    return Seen(
        picture=picture,
        nodes=nodes or (),
        gateways=queue.queue.gateways if queue is not None else (),
        requests=requests,
        drained=frozenset(backend.name for backend in backends or () if backend.draining),
    )


def panes(look: Seen, now: float, *, narrow: bool) -> dict[str, list[Row]]:
    """By COLUMNS; with all of a row's cells, whatever is left out of them."""
    p = look.picture
    return {
        QUEUE: [
            _row(f"{q.user}/{q.pool}/{q.model}/{q.band}", queue_row(q), q.user, q.pool, q.model, q.band)
            for q in p.queue
        ],
        BACKENDS: [_row(b.name, backend_row(b, narrow=narrow), b.name, b.pool, b.health) for b in p.backends],
        GPUS: [_row(f"{g.node}/{g.index}", gpu_row(g, narrow=narrow), g.node, g.name, g.error) for g in p.gpus],
        NODES: [_node(node, now) for node in look.nodes],
        STREAMS: [_stream(gateway) for gateway in look.gateways],
        REQUESTS: [_request(record, now) for record in look.requests],
    }


def kept(rows: Iterable[Row], wanted: str) -> list[Row]:
    """Those with all words of the filter in them."""
    words = wanted.casefold().split()
    return [row for row in rows if all(word in row.words for word in words)]


def shown_columns(pane: str, *, narrow: bool) -> list[int]:
    return [place for place, name in enumerate(COLUMNS[pane]) if not (narrow and name.endswith("?"))]


def _row(key: str, cells: tuple[str, ...], *words: str) -> Row:
    return Row(key, cells, " ".join(words).casefold())


def _node(node: registry_pb2.Node, now: float) -> Row:
    host = node.last_sample.host
    heard_s = now - node.heard_at_us / 1e6 if node.HasField("heard_at_us") else None
    heard = "never" if heard_s is None else f"{span(max(0.0, heard_s))} ago"
    used = host.memory_total_bytes - host.memory_available_bytes
    problems = "; ".join(node.problems) or ("described, without an agent" if node.without_agent else "")
    cells = (
        escape(node.name),
        f"[yellow]{heard}[/yellow]" if heard_s is None or heard_s > _SILENT_S else heard,
        f"{host.cpu_percent:.0f} %" if host.HasField("cpu_percent") else "",
        f"{host.load_1m:.1f}" if host.memory_total_bytes else "",
        f"{used / 1e9:.1f} of {gigabytes(host.memory_total_bytes)}" if host.memory_total_bytes else "",
        escape(node.last_sample.agent_version),
        f"[yellow]{escape(problems)}[/yellow]" if problems else "",
    )
    return _row(node.name, cells, node.name, problems)


def _stream(gateway: scheduler_pb2.GatewaySession) -> Row:
    cells = (
        escape(gateway.gateway),
        "[green]connected[/green]" if gateway.connected else "[red]away[/red]",
        f"{milliseconds(gateway.heard_ago_ms)} ago",
        count(gateway.running),
        count(gateway.queued),
        count(gateway.ceilings),
    )
    return _row(gateway.gateway, cells, gateway.gateway, "connected" if gateway.connected else "away")


def _request(record: usage_pb2.UsageRecord, now: float) -> Row:
    ledger_id = str(usage_row(record)["ledger_id"])
    outcome = word(record, "outcome") or "unknown"
    model = record.model or record.model_requested
    label = record.request_id or ledger_id
    cells = (
        escape(label if len(label) <= _SHORT_ID else f"{label[: _SHORT_ID - 1]}…"),
        f"{span(max(0.0, now - record.started_at_us / 1e6))} ago",
        escape(model),
        coloured(outcome) + (f" [dim]{escape(record.reason)}[/dim]" if record.reason else ""),
        count(record.usage.prompt_tokens + record.usage.completion_tokens),
        milliseconds(record.ttft_ms) if record.HasField("ttft_ms") else "",
        milliseconds(record.duration_ms),
    )
    return _row(ledger_id, cells, label, ledger_id, model, outcome, record.reason)
