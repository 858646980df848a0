"""A real Prometheus looks at a whole Forebay with the configuration that is shipped: every panel has data, every rule works,
and no log line holds what nobody may read there."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import yaml

from forebay.local.layout import Layout
from tests.deploy.test_observe_files import OBSERVE, RULES, alerts, panels, queries
from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, start_up, stream

pytestmark = pytest.mark.deploy

MODEL = "fake-model"
PROMPT_WORDS = ("quicksilver", "marmalade", "zeppelin")
KEYS: list[str] = []
"""That requests were made with."""
_SCRAPE_S = 1
_UP_S = 120.0


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs Prometheus: there is no promtool (apt install prometheus)")
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngineProcess]:
    made = FakeEngineProcess("--slots", "2", "--tokens-per-s", "100")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def whole(engine: FakeEngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("observed")
    settings = folder / "forebay.toml"
    settings.write_text(f'[[registry.backends]]\nname = "fake"\nurl = "{engine.url}"\nkind = "openai"\nslots = 2\n')
    running = start_up(folder / "data", "--no-engine", "--config", str(settings))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prometheus(whole: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that scrapes `whole` each second with the shipped configuration, its ports and paces changed."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus (apt install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    told = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": f"{_SCRAPE_S}s", "evaluation_interval": f"{_SCRAPE_S}s"}
    told["rule_files"] = [str(folder / "rules" / "*.yml")]
    for job in told["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ops_port(whole, job['job_name'])}"]}]
    (folder / "rules").mkdir()
    for file in RULES:
        groups = re.sub(r"^    interval: .*\n", "", file.read_text(), flags=re.MULTILINE)
        (folder / "rules" / file.name).write_text(groups)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(told))
    port = whole.base_port + 55
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def ops_port(whole: Installation, job: str) -> int:
    part = job.removeprefix("forebay-")
    return Layout(whole.base_port).ops("gateway-1" if part == "gateway" else "gpu-agent" if part == "agent" else part)


async def api(client: aiohttp.ClientSession, address: str, path: str, **parameters: str) -> Any:
    async with client.get(f"{address}/api/v1/{path}", params=parameters) as answer:
        told = await answer.json()
    assert told["status"] == "success", told
    return told["data"]


async def traffic(client: aiohttp.ClientSession, whole: Installation, key: str) -> None:
    """Streams, plain answers, refusals of several kinds."""
    words = " ".join(PROMPT_WORDS)
    url = f"{whole.gateway}/v1/chat/completions"
    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(
                stream(client, whole.gateway, key, ask(words, model=MODEL, max_tokens=8), f"watched-{number}")
            )
    for body, headers in (
        (ask(words, model=MODEL, max_tokens=4), {"authorization": f"Bearer {key}"}),
        (ask(words, model="no-such-model"), {"authorization": f"Bearer {key}"}),
        (ask(words, model=MODEL), {"authorization": "Bearer fb-nobody-nothing"}),
    ):
        async with client.post(url, json=body, headers=headers) as answer:
            await answer.read()


async def test_every_panel_of_every_dashboard_has_data(whole: Installation, prometheus: str) -> None:
    whole.cli("price", "set", MODEL, "--prompt", "1", "--completion", "2")
    key = whole.make_key("observed")
    KEYS.append(key)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as client:
        until = time.monotonic() + _UP_S
        while True:  # until each of the five was scraped, and admin has entered rows between scrapes
            await traffic(client, whole, key)
            try:
                up = await api(client, prometheus, "query", query='sum(up{job=~"forebay-.*"})')
                cost = await api(
                    client, prometheus, "query", query="sum(increase(forebay_admin_group_cost_micros_total[1m])) > 0"
                )
                if up["result"] and up["result"][0]["value"][1] == "5" and cost["result"]:
                    break
            except aiohttp.ClientConnectionError:
                pass
            assert time.monotonic() < until, "not all of Forebay was scraped in time"
            await asyncio.sleep(_SCRAPE_S)
        await traffic(client, whole, key)
        await asyncio.sleep(3 * _SCRAPE_S)
        empty = await _empty_panels(client, prometheus)
        assert not empty, "\n".join(empty)


async def _empty_panels(client: aiohttp.ClientSession, prometheus: str) -> list[str]:
    """After what a query needs has been there for an evaluation or two: asked for until then."""
    until = time.monotonic() + 20
    while True:
        empty = []
        for dashboard, panel in panels():
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "30s")
                found = await api(client, prometheus, "query", query=query)
                if not found["result"]:
                    empty.append(f"{dashboard}, {panel['title']}: {query}")
        if not empty or time.monotonic() > until:
            return empty
        await asyncio.sleep(_SCRAPE_S)


async def test_the_numbers_are_those_of_what_was_asked(whole: Installation, prometheus: str) -> None:
    """Requests, first tokens and refusals, as one who reads the dashboards would see them."""
    async with aiohttp.ClientSession() as client:
        told = await api(client, prometheus, "query", query="sum by (outcome, reason) (forebay_gateway_requests_total)")
        counts = {(r["metric"]["outcome"], r["metric"].get("reason", "")): float(r["value"][1]) for r in told["result"]}
        assert counts["finished", ""] >= 14
        assert counts["refused", "invalid_key"] >= 2
        assert counts["refused", "model_unknown"] >= 2
        told = await api(client, prometheus, "query", query="forebay:slo_availability_bad:ratio_rate5m")
        assert float(told["result"][0]["value"][1]) == 0, "a wrong key and a wrong model break no promise"
        told = await api(client, prometheus, "query", query="sum(forebay_scheduler_leads)")
        assert float(told["result"][0]["value"][1]) == 1


async def test_the_rules_are_loaded_evaluated_without_error_and_nothing_is_wrong(
    whole: Installation, prometheus: str
) -> None:
    async with aiohttp.ClientSession() as client:
        groups = (await api(client, prometheus, "rules"))["groups"]
        loaded = [rule for group in groups for rule in group["rules"]]
        assert {rule["name"] for rule in loaded if rule["type"] == "alerting"} == set(alerts())
        assert {rule["health"] for rule in loaded} == {"ok"}
        assert [rule["name"] for rule in loaded if rule.get("state") == "firing"] == []
        for query in queries():  # each is one that this Prometheus can evaluate
            found = await api(client, prometheus, "query", query=query.replace("$__rate_interval", "30s"))
            for row in found["result"]:
                assert not math.isinf(float(row["value"][1])), query


async def test_the_series_of_each_service_stay_bounded_through_a_storm_of_names(whole: Installation) -> None:
    async with aiohttp.ClientSession() as client:
        before = await series(client, whole)
        key = whole.make_key("storm")

        async def one(number: int) -> None:
            wrong = number % 2
            async with client.post(
                f"{whole.gateway}/v1/{'chat/completions' if number % 3 else f'made-up/{number}'}",
                json=ask("hello", model=f"model-{number}"),
                headers={
                    "authorization": f"Bearer {f'fb-key{number}-secret{number}' if wrong else key}",
                    "x-request-id": f"request-{number}",
                    "x-session-id": f"session-{number}",
                },
            ) as answer:
                await answer.read()

        for first in range(0, 600, 20):
            await asyncio.gather(*(one(number) for number in range(first, first + 20)))
        after = await series(client, whole)
    for part, names in after.items():
        grown = names - before[part]
        assert len(grown) < 40, f"{part}: {sorted(grown)[:5]}"
        assert len(names) < 1500, part
        assert not [line for line in names if re.search(r"(model|key|request|session|made-up/?)-?\d{2,}", line)], part


async def series(client: aiohttp.ClientSession, whole: Installation) -> dict[str, set[str]]:
    """By service, the names and labels of all samples."""
    found = {}
    for part in ("gateway", "scheduler", "registry", "admin", "agent"):
        async with client.get(f"http://127.0.0.1:{ops_port(whole, part)}/metrics") as answer:
            page = await answer.text()
        found[part] = {line.rpartition(" ")[0] for line in page.splitlines() if line and not line.startswith("#")}
    return found


def test_promtool_takes_every_rule_and_the_configuration(promtool: str) -> None:
    for words in (("check", "rules", *map(str, RULES)), ("check", "config", str(OBSERVE / "prometheus.yml"))):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_comes_where_it_has_to_and_only_there(promtool: str) -> None:
    files = sorted((OBSERVE / "tests").glob("*.yml"))
    done = subprocess.run(
        [promtool, "test", "rules", *(file.name for file in files)],
        cwd=OBSERVE / "tests",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_logs_are_json_lines_and_hold_neither_prompts_nor_answers_nor_keys(whole: Installation) -> None:
    """Last in this file: whatever was asked above is in no log of any part, nor what `forebay up` says itself."""
    logs = sorted((whole.data_dir / "logs").glob("*")) if (whole.data_dir / "logs").is_dir() else []
    logs = logs or sorted(whole.data_dir.rglob("*.log"))
    assert logs
    lines = 0
    for log in logs:
        text = log.read_text(errors="replace")
        for secret in (*PROMPT_WORDS, *(key.rpartition("-")[2] for key in (whole.key, *KEYS))):
            assert secret not in text, log.name
        if any(part in log.name for part in ("gateway", "scheduler", "registry", "admin", "agent")):
            for line in text.splitlines():
                if line.startswith("{"):
                    told = json.loads(line)
                    assert {"time", "level", "event"} <= told.keys()
                    lines += 1
    assert lines > 10
    assert not [word for word in PROMPT_WORDS if word in whole.output]
