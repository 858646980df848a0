"""Grafana dashboards as code: `python deploy/observe/dashboards.py` writes dashboards/*.json, with `--check` it says whether
they are as they would be written.

A panel is a title, a unit and its queries; where it stands follows from the order. A query that is rightly empty while all
is well ends in `or vector(0)`, so that an empty panel always says that something is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 24, 8


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""
    """With {{label}} for a label's value."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    """Of Grafana: short, s, bytes, percentunit, reqps, celsius, watt, …"""
    queries: Sequence[Query]
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    """Of 24."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    about: str
    panels: Sequence[Panel]


def one(title: str, unit: str, expr: str, about: str = "", *, width: int = 4) -> Panel:
    """A single number."""
    return Panel(title, unit, (Query(expr),), about, "stat", width)


def lines(title: str, unit: str, *queries: tuple[str, str], about: str = "", width: int = 8) -> Panel:
    """(query, legend) pairs over time."""
    return Panel(title, unit, tuple(Query(expr, legend) for expr, legend in queries), about, width=width)


def quantiles(title: str, histogram: str, about: str = "") -> Panel:
    return lines(
        title,
        "s",
        *(
            (f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket[$__rate_interval])))", f"p{q[2:]}")
            for q in ("0.50", "0.95", "0.99")
        ),
        about=about,
    )


_RATE = "[$__rate_interval]"

FLEET = Dashboard(
    "forebay-fleet",
    "Forebay: fleet",
    "Whether the services, the backends and the nodes are well.",
    (
        one("Services up", "short", 'sum(up{job=~"forebay-.*"})'),
        one("Services not ready", "short", "count(forebay_ready == 0) or vector(0)"),
        one(
            "Backends that take requests",
            "short",
            'sum(forebay_registry_backends{condition=~"healthy|degraded|saturated"})',
        ),
        one("Backends down", "short", 'sum(forebay_registry_backends{condition=~"unhealthy|offline"})'),
        one("Open alerts of the registry", "short", "sum(forebay_registry_alerts)"),
        one("Nodes in trouble", "short", "sum(forebay_registry_node_problems) or vector(0)"),
        lines("Backends by condition", "short", ("sum by (condition) (forebay_registry_backends)", "{{condition}}")),
        lines("Circuit breakers", "short", ("sum by (state) (forebay_registry_breakers)", "{{state}}")),
        lines(
            "Slots in use",
            "percentunit",
            (
                'sum by (backend) (forebay_scheduler_slots{what="held"}) '
                '/ sum by (backend) (forebay_scheduler_slots{what="cap"})',
                "{{backend}}",
            ),
            about="Of a backend's cap.",
        ),
        lines(
            "Looks at backends",
            "ops",
            (f"sum by (outcome) (rate(forebay_registry_probes_total{_RATE}))", "{{outcome}}"),
        ),
        lines(
            "Readings of engines' gauges",
            "ops",
            (f"sum by (outcome) (rate(forebay_registry_scrapes_total{_RATE}))", "{{outcome}}"),
        ),
        lines(
            "Samples of nodes",
            "ops",
            (f"sum(rate(forebay_registry_samples_total{_RATE})) or vector(0)", "taken"),
            (f"sum by (reason) (rate(forebay_registry_samples_dropped_total{_RATE}))", "dropped: {{reason}}"),
        ),
        lines("GPU use", "percent", ("forebay_gpu_utilization_percent or on() vector(0)", "{{instance}} {{gpu}}")),
        lines(
            "GPU memory in use",
            "percentunit",
            (
                "forebay_gpu_memory_used_bytes / forebay_gpu_memory_total_bytes or on() vector(0)",
                "{{instance}} {{gpu}}",
            ),
        ),
        lines(
            "GPU temperature", "celsius", ("forebay_gpu_temperature_celsius or on() vector(0)", "{{instance}} {{gpu}}")
        ),
        lines("Processor use of nodes", "percent", ("forebay_host_cpu_percent", "{{instance}}")),
        lines("Memory available on nodes", "bytes", ("forebay_host_memory_available_bytes", "{{instance}}")),
        lines(
            "Room on disks of nodes",
            "percentunit",
            ("forebay_host_disk_free_bytes / forebay_host_disk_total_bytes", "{{instance}} {{path}}"),
        ),
        lines(
            "Connections to NATS and PostgreSQL",
            "short",
            ('{__name__=~"forebay_(gateway|scheduler|registry|admin)_bus_connected"}', "NATS: {{job}} {{instance}}"),
            ("forebay_admin_database_connected", "PostgreSQL: admin {{instance}}"),
            ("forebay_registry_postgres_in_step", "PostgreSQL: registry {{instance}}"),
            about="1: there.",
        ),
        lines(
            "Memory of services", "bytes", ('process_resident_memory_bytes{job=~"forebay-.*"}', "{{job}} {{instance}}")
        ),
        lines(
            "Processor use of services",
            "percentunit",
            (f'rate(process_cpu_seconds_total{{job=~"forebay-.*"}}{_RATE})', "{{job}} {{instance}}"),
        ),
    ),
)

GATEWAY = Dashboard(
    "forebay-gateway",
    "Forebay: gateway",
    "What clients get: how many, how soon, and what is refused.",
    (
        one("Requests a second", "reqps", f"sum(rate(forebay_gateway_requests_total{_RATE}))"),
        one("Being served", "short", "sum(forebay_gateway_running)", "Queued ones included."),
        one("Waiting for a slot", "short", "sum(forebay_gateway_waiting)"),
        one(
            "Bad, last hour",
            "percentunit",
            "forebay:slo_availability_bad:ratio_rate1h",
            "Failed, or refused through no fault of the client.",
        ),
        one("First token after 10 s, last hour", "percentunit", "forebay:slo_ttft_bad:ratio_rate1h"),
        one("Waited over 2.5 s, last hour", "percentunit", "forebay:slo_queue_wait_bad:ratio_rate1h"),
        lines(
            "Requests by how they ended",
            "reqps",
            (f"sum by (outcome) (rate(forebay_gateway_requests_total{_RATE}))", "{{outcome}}"),
        ),
        lines(
            "Refused and failed, by why",
            "reqps",
            (
                f'sum by (reason) (rate(forebay_gateway_requests_total{{outcome=~"refused|failed"}}{_RATE}))',
                "{{reason}}",
            ),
        ),
        lines(
            "Requests by route", "reqps", (f"sum by (route) (rate(forebay_gateway_requests_total{_RATE}))", "{{route}}")
        ),
        quantiles("Time to the first token", "forebay_gateway_time_to_first_token_seconds", "Waiting included."),
        quantiles("Wait for a slot", "forebay_gateway_queue_seconds"),
        quantiles("Duration", "forebay_gateway_duration_seconds"),
        lines(
            "Tokens by model",
            "short",
            (f"sum by (model, kind) (rate(forebay_gateway_tokens_total{_RATE}))", "{{model}} {{kind}}"),
            about="A second.",
        ),
        lines(
            "First token by model, lately",
            "s",
            ("max by (pool, model) (forebay_gateway_first_token_seconds)", "{{pool}} {{model}}"),
        ),
        lines(
            "Attempts that another backend took over",
            "reqps",
            (f"sum by (blame) (rate(forebay_gateway_attempts_failed_total{_RATE})) or vector(0)", "{{blame}}"),
        ),
        lines(
            "Journal",
            "percentunit",
            ("forebay_gateway_journal_bytes / forebay_gateway_journal_limit_bytes", "{{instance}}"),
        ),
        lines("Usage records not published", "short", ("forebay_gateway_records_unpublished", "{{instance}}")),
        lines(
            "Slots that gateways may hold",
            "short",
            ("forebay_gateway_ceiling_slots", "{{instance}} ceiling"),
            ("forebay_gateway_credit_slots", "{{instance}} on credit"),
        ),
        lines(
            "Without a scheduler",
            "short",
            ("1 - forebay_gateway_scheduler_connected", "{{instance}} no session"),
            ("forebay_gateway_local", "{{instance}} decides alone"),
        ),
        lines(
            "Begun past the fence",
            "ops",
            (f"sum(rate(forebay_gateway_starts_past_fence_total{_RATE})) or vector(0)", "starts"),
        ),
        lines(
            "Bodies held",
            "bytes",
            ("forebay_gateway_held_body_bytes", "{{instance}} in memory"),
            ("forebay_gateway_spooled_body_bytes", "{{instance}} on disk"),
        ),
    ),
)

SCHEDULER = Dashboard(
    "forebay-scheduler",
    "Forebay: scheduler and fairness",
    "Whose turn it is, and whether shares are kept.",
    (
        one("Leaders", "short", "sum(forebay_scheduler_leads)", "One, always."),
        one("Waiting", "short", "sum(forebay_scheduler_waiting)"),
        one("Slots in use", "percentunit", "forebay:slots_used:ratio"),
        one("Gateways", "short", 'sum(forebay_scheduler_gateways{reachable="yes"})'),
        one("Gateways out of reach", "short", 'sum(forebay_scheduler_gateways{reachable="no"})'),
        one(
            "Widest gap between users",
            "short",
            'max(forebay_scheduler_fairness_gap_tokens{level="user"})',
            "Tokens of weight one.",
        ),
        lines("Waiting by pool", "short", ("sum by (pool) (forebay_scheduler_pool_waiting)", "{{pool}}")),
        lines(
            "Gaps between those who wait",
            "short",
            ("max by (pool, level) (forebay_scheduler_fairness_gap_tokens)", "{{pool}} {{level}}"),
            about="By how many tokens, weight for weight, one is served ahead of another who waits for the same model. "
            "About one request's cost is as even as it can be.",
        ),
        quantiles("Wait for a grant", "forebay_scheduler_queue_seconds"),
        lines(
            "Asked, granted, ended",
            "reqps",
            (f"sum(rate(forebay_scheduler_submits_total{_RATE}))", "asked"),
            (f"sum(rate(forebay_scheduler_grants_total{_RATE}))", "granted"),
            (f"sum(rate(forebay_scheduler_settles_total{_RATE}))", "ended"),
        ),
        lines(
            "Refused, by why",
            "reqps",
            (f"sum by (reason) (rate(forebay_scheduler_rejects_total{_RATE})) or vector(0)", "{{reason}}"),
        ),
        lines(
            "Placed again, taken back, cancelled",
            "reqps",
            (f"sum(rate(forebay_scheduler_retries_total{_RATE}))", "placed again"),
            (f"sum(rate(forebay_scheduler_revokes_total{_RATE}))", "taken back"),
            (f"sum(rate(forebay_scheduler_cancels_total{_RATE}))", "cancelled"),
        ),
        lines("Slots", "short", ("sum by (what) (forebay_scheduler_slots)", "{{what}}")),
        lines("Grants not served", "reqps", (f"sum(rate(forebay_scheduler_nacks_total{_RATE}))", "nacks")),
        lines(
            "Lost",
            "short",
            ("sum(increase(forebay_scheduler_gateways_lost_total[1h]))", "gateways"),
            ("sum(increase(forebay_scheduler_orphans_total[1h]))", "their requests"),
            about="In the last hour.",
        ),
    ),
)

TENANTS = Dashboard(
    "forebay-tenants",
    "Forebay: tenants",
    "What groups use. Users and keys are in `forebay usage`: they are too many for metrics.",
    (
        one("Groups that use it", "short", "count(count by (group) (forebay_admin_group_requests_total))"),
        one("Ledger rows a second", "short", f'sum(rate(forebay_admin_ledger_rows_total{{result="written"}}{_RATE}))'),
        one("Ledger behind by", "s", "max(forebay_admin_ledger_lag_seconds)", "Of the last rows entered."),
        one("Dead letters, last hour", "short", "sum(increase(forebay_admin_dead_letters_total[1h]))"),
        one("Batches running", "short", "sum(forebay_admin_batches_running)"),
        one("Spans waiting to be summed", "short", "max(forebay_admin_usage_touched)"),
        lines(
            "Requests by group",
            "reqps",
            (f"sum by (group) (rate(forebay_admin_group_requests_total{_RATE}))", "{{group}}"),
            width=12,
        ),
        lines(
            "Tokens by group",
            "short",
            (f"sum by (group, kind) (rate(forebay_admin_group_tokens_total{_RATE}))", "{{group}} {{kind}}"),
            about="A second.",
            width=12,
        ),
        lines(
            "Share of tokens",
            "percentunit",
            (
                f"sum by (group) (rate(forebay_admin_group_tokens_total{_RATE})) "
                f"/ on() group_left() sum(rate(forebay_admin_group_tokens_total{_RATE}))",
                "{{group}}",
            ),
            width=12,
        ),
        lines(
            "Not finished, by group",
            "reqps",
            (
                f'sum by (group, outcome) (rate(forebay_admin_group_requests_total{{outcome!="finished"}}{_RATE}))',
                "{{group}} {{outcome}}",
            ),
            width=12,
        ),
        lines("Watching services", "short", ("sum by (stream) (forebay_admin_watchers)", "{{stream}}"), width=12),
        lines(
            "Events not delivered",
            "short",
            ("max by (state) (forebay_admin_event_deliveries) or vector(0)", "{{state}}"),
            width=12,
        ),
    ),
)

COST = Dashboard(
    "forebay-cost",
    "Forebay: cost",
    "What is spent, as it is entered into the ledger. For bills: `forebay usage` and `forebay ledger`.",
    (
        one(
            "Spent, last hour",
            "short",
            "sum(increase(forebay_admin_group_cost_micros_total[1h])) / 1e6",
            "In the currency of the prices.",
            width=6,
        ),
        one("Spent, last day", "short", "sum(increase(forebay_admin_group_cost_micros_total[1d])) / 1e6", width=6),
        one(
            "Rows without a price, last hour",
            "short",
            "sum(increase(forebay_admin_unpriced_rows_total[1h])) or vector(0)",
            width=6,
        ),
        one("Power drawn by GPUs", "watt", "sum(forebay_gpu_power_watts) or vector(0)", width=6),
        lines(
            "Spent by group, an hour",
            "short",
            (f"sum by (group) (rate(forebay_admin_group_cost_micros_total{_RATE})) * 3600 / 1e6", "{{group}}"),
            width=12,
        ),
        lines(
            "Spent by model, an hour",
            "short",
            (f"sum by (model) (rate(forebay_admin_model_cost_micros_total{_RATE})) * 3600 / 1e6", "{{model}}"),
            width=12,
        ),
        lines(
            "Cost of a million tokens, by group",
            "short",
            (
                "sum by (group) (increase(forebay_admin_group_cost_micros_total[1h])) "
                "/ sum by (group) (increase(forebay_admin_group_tokens_total[1h]))",
                "{{group}}",
            ),
            about="Over an hour.",
            width=12,
        ),
        lines(
            "Rows without a price, by why",
            "short",
            (f"sum by (why) (rate(forebay_admin_unpriced_rows_total{_RATE})) or vector(0)", "{{why}}"),
            width=12,
        ),
    ),
)

ALL = (FLEET, GATEWAY, SCHEDULER, TENANTS, COST)


def render(dashboard: Dashboard) -> Mapping[str, Any]:
    panels: list[Mapping[str, Any]] = []
    x = y = row = 0
    for number, panel in enumerate(dashboard.panels, 1):
        height = 4 if panel.kind == "stat" else _HEIGHT
        if x + panel.width > _WIDTH or (x and height != row):
            x, y = 0, y + row
        row = height
        panels.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": height}))
        x += panel.width
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["forebay"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "hide": 0,
                }
            ]
        },
        "links": [{"type": "dashboards", "tags": ["forebay"], "title": "Forebay", "asDropdown": True}],
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: Mapping[str, int]) -> Mapping[str, Any]:
    fields: dict[str, Any] = {"unit": panel.unit}
    options: dict[str, Any] = {}
    if panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"}
    else:
        fields |= {"min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "title": panel.title,
        "description": panel.about,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": fields, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place_in),
                "expr": query.expr,
                "legendFormat": query.legend or "__auto",
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
                "datasource": SOURCE,
            }
            for place_in, query in enumerate(panel.queries)
        ],
    }


def text(dashboard: Dashboard) -> str:
    return json.dumps(render(dashboard), indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    files = {FOLDER / f"{dashboard.uid.removeprefix('forebay-')}.json": text(dashboard) for dashboard in ALL}
    if "--check" not in arguments:
        for file, content in files.items():
            file.write_text(content)
        return 0
    stale = [file.name for file, content in files.items() if not file.exists() or file.read_text() != content]
    stale += [file.name for file in FOLDER.glob("*.json") if file not in files]
    if stale:
        print(f"Not what {Path(__file__).name} writes: {', '.join(sorted(stale))}. Run it.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
