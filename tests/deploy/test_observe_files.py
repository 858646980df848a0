"""What is written about watching Forebay fits together: rules, their tests, runbooks, dashboards and the code's metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "deploy" / "observe"
OPERATIONS = ROOT / "docs" / "operations.md"
RULES = sorted((OBSERVE / "rules").glob("*.yml"))
DASHBOARDS = sorted((OBSERVE / "dashboards").glob("*.json"))
_OF_SERVICES = re.compile(r"\bforebay_[a-z0-9_]+")
_NOT_A_METRIC = re.compile(r"__name__=~\"[^\"]*\"")


def rules() -> Iterator[dict[str, Any]]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            yield dashboard["uid"], panel


def queries() -> list[str]:
    told = [target["expr"] for _, panel in panels() for target in panel["targets"]]
    return told + [rule["expr"] for rule in rules()]


@cache
def sources() -> str:
    files = [*(ROOT / "services").rglob("*.py"), *(ROOT / "forebay").glob("*.py")]
    return "\n".join(file.read_text() for file in files)


def test_every_alert_says_how_bad_it_is_what_it_means_and_where_its_runbook_is() -> None:
    assert len(alerts()) >= 30
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["annotations"]["description"].endswith("."), name
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}", name


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^### (Forebay\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == set(alerts())


def test_every_runbook_says_what_users_see_where_to_look_and_what_to_do() -> None:
    runbooks = re.split(r"^### (?=Forebay)", OPERATIONS.read_text(), flags=re.MULTILINE)[1:]
    for runbook in runbooks:
        for part in ("**Users see**", "**Look at**", "**Do**"):
            assert part in runbook, f"{runbook.splitlines()[0]}: {part}"


def test_every_alert_is_tried_where_it_comes_and_where_it_does_not() -> None:
    comes: set[str] = set()
    silent: set[str] = set()
    for file in sorted((OBSERVE / "tests").glob("*.yml")):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for tried in case["alert_rule_test"]:
                (comes if tried["exp_alerts"] else silent).add(tried["alertname"])
    assert comes == silent == set(alerts())


@pytest.mark.parametrize("program", ["dashboards.py", "slos.py"])
def test_what_is_generated_is_as_it_would_be_written(program: str) -> None:
    done = subprocess.run(
        [sys.executable, str(OBSERVE / program), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_there_are_the_five_dashboards_and_no_two_panels_overlap() -> None:
    assert {file.stem for file in DASHBOARDS} == {"fleet", "gateway", "scheduler", "tenants", "cost"}
    for file in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(file.read_text())["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{file.name}: {panel['title']}"
            assert place["x"] + place["w"] <= 24
            taken |= cells


def test_every_metric_in_a_query_is_one_that_the_code_makes() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for query in queries():
        for record in re.findall(r"\bforebay:[a-z0-9_:]+", query):
            assert record in recorded, record
        for name in _OF_SERVICES.findall(_NOT_A_METRIC.sub("", query)):
            assert _is_made(name), f"{name} in {query}"


def _is_made(name: str) -> bool:
    """Whole, or as a part behind the service's name, as where many are made in a loop."""
    base = re.sub(r"_(total|bucket|count|sum)$", "", name)
    short = re.sub(r"^forebay_[a-z]+_", "", base)
    return any(f'"{word}"' in sources() for word in (name, base, short)) or f'_{short}"' in sources()


def test_no_label_of_ours_names_a_user_a_key_or_a_request() -> None:
    for query in queries():
        labels = set(re.findall(r"by \(([^)]*)\)", query))
        named = {label.strip() for some in labels for label in some.split(",")}
        assert not named & {"user", "key", "key_id", "user_id", "request_id", "address"}, query


def test_the_collector_listens_on_loopback_and_batches_behind_a_bound() -> None:
    told = yaml.safe_load((OBSERVE / "otel-collector.yaml").read_text())
    pipeline = told["service"]["pipelines"]["traces"]
    assert pipeline["processors"][0] == "memory_limiter"
    for part, kind in (("receivers", "receivers"), ("processors", "processors"), ("exporters", "exporters")):
        assert set(pipeline[part]) <= set(told[kind])
    for protocol in told["receivers"]["otlp"]["protocols"].values():
        assert protocol["endpoint"].startswith("${env:OTEL_LISTEN:-127.0.0.1}:")


def test_prometheus_scrapes_the_ops_port_of_each_service() -> None:
    told = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    ports = {
        job["job_name"]: job["static_configs"][0]["targets"][0].rpartition(":")[2] for job in told["scrape_configs"]
    }
    assert ports == {
        "forebay-gateway": "8095",
        "forebay-scheduler": "8096",
        "forebay-registry": "8097",
        "forebay-admin": "8098",
        "forebay-agent": "8099",
    }
