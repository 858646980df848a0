"""The fleet as operators see and change it, in a Forebay of real processes: a node with a GPU (by a stand-in for its
driver), a fleet file, a drain, a pull, and two registries of which one dies at any time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Library
from tests.gpu_agent.nvml_machine import A100, NvmlMachine, build_library
from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, start_up, stream

REGISTRIES = {"registry": 7, "registry-2": 51}
"""Their ops ports, above the base."""


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> NvmlMachine:
    place = tmp_path_factory.mktemp("driver")
    machine = NvmlMachine(build_library(place), place / "nvml")
    machine.has(A100)
    return machine


@pytest.fixture(scope="module")
def fleet(
    own_engine: FakeEngineProcess, gpu: NvmlMachine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("fleet")
    settings = directory / "forebay.toml"
    settings.write_text(
        '[gpu_agent]\nnode = "gpu-box"\ninterval_s = 0.5\nidle_interval_s = 1.0\nfind_engines = false\n'
    )
    running = start_up(
        directory / "data",
        *("--gateways", "2", "--registries", "2", "--no-engine", "--config", str(settings)),
        environment=gpu.environment,
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def fleet_file(own_engine: FakeEngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("file") / "fleet.yaml"
    file.write_text(
        "nodes:\n"
        "  - name: gpu-box\n"
        "    labels: {rack: a}\n"
        "backends:\n"
        f"  - {{name: gpu, url: '{own_engine.url}', kind: openai, node: gpu-box, gpu_indices: [0], slots: 4, pool: lab}}\n"
        "pools:\n"
        "  - {name: lab, path_prefix: /lab, hosts: [lab.example.org]}\n"
    )
    return file


def standing(fleet: Installation) -> dict[str, str]:
    """What each registry says that it is."""
    told: dict[str, str] = {}
    for name, offset in REGISTRIES.items():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{fleet.base_port + offset}/metrics", timeout=30) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            continue
        for line in lines:  # none of them, of one that has just started
            if line.startswith("forebay_registry_standing{") and line.endswith(" 1.0"):
                told[name] = line.split('"')[1]
    return told


async def leader(fleet: Installation) -> str:
    found: list[str] = []

    def leads() -> bool:
        found[:] = [name for name, what in standing(fleet).items() if what == "leading"]
        assert len(found) < 2, "two registries lead"
        return bool(found)

    await eventually(leads, 20, "no registry leads", every_s=0.1)
    return found[0]


async def until(fleet: Installation, words: tuple[str, ...], holds: Callable[[Any], bool], within_s: float = 60) -> Any:
    """What `forebay WORDS` tells as soon as that holds."""
    async with asyncio.timeout(within_s):
        while True:
            done = await asyncio.to_thread(fleet.run_cli, *words, "--json")
            if done.returncode == 0 and holds(told := json.loads(done.stdout)):
                return told
            await asyncio.sleep(0.1)


def backend(name: str, health: str) -> Callable[[Any], bool]:
    return lambda told: any(one["name"] == name and one["health"] == health for one in told)


LONG = {"model": "fake-model", "messages": [{"role": "user", "content": "Go on."}], "stream": True, "max_tokens": 3000}
RUNNING = {
    "openai": ("/v1/chat/completions", LONG),
    "anthropic": ("/v1/messages", LONG),
    "ollama": ("/api/chat", {**LONG, "options": {"num_predict": 3000}}),
}
"""By dialect: two and a half minutes of words."""


async def whole_stream(
    client: aiohttp.ClientSession, fleet: Installation, key: str, dialect: str, begun: asyncio.Event
) -> str:
    """All that came until its end, which has to be a clean one; `begun` is set at the first word."""
    path, body = RUNNING[dialect]
    headers = {"authorization": f"Bearer {key}", "x-request-id": f"forced-{dialect}"}
    told = ""
    async with client.post(f"{fleet.gateway}/lab{path}", json=body, headers=headers) as answer:
        async for chunk in answer.content.iter_any():
            told += chunk.decode()
            if "word0" in told:
                begun.set()
    return told


async def answers_again(client: aiohttp.ClientSession, fleet: Installation, key: str) -> None:
    """Until the pool lab does."""
    body = ask("Go on.", model="fake-model", max_tokens=2)
    async with asyncio.timeout(20):
        while not (await stream(client, f"{fleet.gateway}/lab", key, body, "again")).is_done:
            await asyncio.sleep(0.1)


def powers(series: Any) -> list[Any]:
    """What each minute says of the GPU's power, in watts."""
    return [point["power_w"] for one in series for point in one["points"] if point.get("power_w")]


async def test_a_node_is_shown_with_its_gpu(fleet: Installation) -> None:
    listed = await until(fleet, ("node", "list"), lambda nodes: nodes and nodes[0]["last_sample"])
    assert [node["name"] for node in listed] == ["gpu-box"]
    (gpu,) = listed[0]["last_sample"]["gpus"]
    assert (gpu["name"], gpu["memory_total_bytes"]) == (A100["name"], A100["memory_total"])
    shown = await asyncio.to_thread(fleet.run_cli, "node", "show", "gpu-box")
    assert "NVIDIA A100-SXM4-80GB" in shown.stdout
    assert "580.65.06" in shown.stdout


async def test_a_fleet_file_is_applied_once_and_its_virtual_endpoint_serves(
    fleet: Installation, fleet_file: Path, client: aiohttp.ClientSession
) -> None:
    words = ("-f", str(fleet_file))
    assert (await asyncio.to_thread(fleet.run_cli, "diff", *words)).returncode == 1
    applied = await asyncio.to_thread(fleet.cli, "apply", *words)
    assert {(one["kind"], one["name"]) for one in applied["changes"]} == {
        ("node", "gpu-box"),
        ("backend", "gpu"),
        ("pool", "lab"),
    }
    again = await asyncio.to_thread(fleet.cli, "apply", *words)
    assert (again["version"], again["changes"]) == (applied["version"], [])
    assert (await asyncio.to_thread(fleet.run_cli, "diff", *words)).returncode == 0
    await until(fleet, ("backend", "list"), backend("gpu", "healthy"))

    key = fleet.make_key("coder")
    body = ask("Go on.", model="fake-model", max_tokens=3)
    for number in (1, 2):
        url = fleet.gateway_url(number)
        async with asyncio.timeout(10):
            while not (result := await stream(client, f"{url}/lab", key, body, f"lab-{number}")).is_done:
                await asyncio.sleep(0.1)
        assert result.status == 200
        headers = {"authorization": f"Bearer {key}"}
        async with client.get(f"{url}/v1/models", headers=headers) as answer:
            assert (await answer.json())["data"] == [], "it is in the pool lab alone"
        async with client.get(f"{url}/v1/models", headers={**headers, "host": "lab.example.org"}) as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["fake-model"]
    (pool,) = [pool for pool in await asyncio.to_thread(fleet.cli, "pool", "list") if pool["pool"] == "lab"]
    assert (pool["hosts"], pool["path_prefix"]) == (["lab.example.org"], "/lab")
    (told,) = await asyncio.to_thread(fleet.cli, "explain", "lab-1")
    assert told["pool"] == "lab"


async def test_a_forced_drain_ends_what_runs_and_each_client_is_told(
    fleet: Installation, client: aiohttp.ClientSession, own_engine: FakeEngineProcess
) -> None:
    key = fleet.make_key("evicted")
    await answers_again(client, fleet, key)
    begun = [asyncio.Event() for _ in RUNNING]
    pace = f"{own_engine.url}/control/pace"
    async with client.post(pace, json={"answer_tokens": 3000}) as answer:
        assert answer.status == 200
    running = [
        asyncio.create_task(whole_stream(client, fleet, key, dialect, event))
        for dialect, event in zip(RUNNING, begun, strict=True)
    ]
    await asyncio.gather(*(asyncio.wait_for(event.wait(), 60) for event in begun))
    async with client.post(pace, json={"answer_tokens": 100}) as answer:
        assert answer.status == 200
    words = ("drain", "gpu", "--deadline", "1s", "--force", "--wait", "--reason", "new driver")
    drained = await asyncio.to_thread(fleet.cli, *words)
    assert (drained["running"], drained["drained"]) == (0, True)
    openai, anthropic, ollama = await asyncio.gather(*running)
    *_, told, end = openai.split("\n\n")
    assert (json.loads(told.removeprefix("data: "))["error"]["code"], end) == ("draining", "")
    *_, told, end = anthropic.split("\n\n")
    assert (told.splitlines()[0], end) == ("event: error", "")
    assert json.loads(ollama.splitlines()[-1])["error"]
    await until(fleet, ("backend", "list"), backend("gpu", "drained"))
    async with asyncio.timeout(20):
        while (await (await client.get(f"{own_engine.url}/control/seen")).json())["running"]:
            await asyncio.sleep(0.05)
    (held,) = [one for one in (await asyncio.to_thread(fleet.cli, "queue"))["held"] if one["backend_name"] == "gpu"]
    assert (held["held"], held["draining"]) == (0, True)

    def rows(told: Any) -> list[Any]:
        return [row for row in told if row["request_id"].startswith("forced-")]

    usage = ("usage", "--rows", "--limit", "1000")
    told = await until(fleet, usage, lambda told: len(rows(told)) == len(RUNNING), within_s=60)
    assert {(row["outcome"], row["reason"]) for row in rows(told)} == {("failed", "draining")}
    assert all(row["completion_tokens"] > 0 for row in rows(told))
    await asyncio.to_thread(fleet.cli, "drain", "gpu", "--undo")
    await until(fleet, ("backend", "list"), backend("gpu", "healthy"))
    await answers_again(client, fleet, key)


async def test_a_pull_is_followed_to_its_end_and_the_model_is_in_the_fleet(
    fleet: Installation, client: aiohttp.ClientSession
) -> None:
    async with FakeEngine(flavour=Flavour.OLLAMA, library=Library(("tiny",))) as ollama:
        ollama.library.every_s = 0.05
        await asyncio.to_thread(fleet.cli, "backend", "add", "ollama", ollama.url, "--kind", "ollama", "--slots", "1")
        await until(fleet, ("backend", "list"), backend("ollama", "healthy"))
        pulled = await asyncio.to_thread(fleet.run_cli, "model", "pull", "llama", "--backend", "ollama", "--json")
        assert pulled.returncode == 0, pulled.stderr
        told = [json.loads(line) for line in pulled.stdout.splitlines()]
        assert told[-1]["state"] == "done"
        done = [job["targets"][0]["completed_bytes"] or 0 for job in told]
        assert done == sorted(done)
        assert done[-1] == 1060
        await until(fleet, ("model", "list"), lambda models: "llama:latest" in [model["name"] for model in models])
        headers = {"authorization": f"Bearer {fleet.key}"}
        async with asyncio.timeout(10):
            listed: list[str] = []
            while "llama:latest" not in listed:
                async with client.get(f"{fleet.gateway}/v1/models", headers=headers) as answer:
                    listed = [model["id"] for model in (await answer.json())["data"]]
        await asyncio.to_thread(fleet.cli, "backend", "remove", "ollama")


async def test_a_registry_that_is_killed_is_followed_its_orders_stand_and_gateways_go_on(
    fleet: Installation, client: aiohttp.ClientSession
) -> None:
    key = fleet.make_key("streamer")
    leads = await leader(fleet)
    begun = [asyncio.Event() for _ in range(2)]
    body = ask("Go on.", model="fake-model", max_tokens=100)
    running = [
        asyncio.create_task(stream(client, f"{fleet.gateway_url(1 + n)}/lab", key, body, f"killed-{n}", begun[n]))
        for n in range(2)
    ]
    await asyncio.gather(*(asyncio.wait_for(event.wait(), 15) for event in begun))
    await asyncio.to_thread(fleet.cli, "backend", "drain", "gpu", "--reason", "new driver")
    died = fleet.kill(leads)
    follows = await leader(fleet)
    assert follows != leads
    draining, drained = backend("gpu", "draining"), backend("gpu", "drained")
    await until(fleet, ("backend", "list"), lambda told: draining(told) or drained(told))
    results = await asyncio.gather(*running)
    assert all(result.is_done for result in results)
    await until(fleet, ("backend", "list"), drained)
    await asyncio.to_thread(fleet.cli, "backend", "undrain", "gpu")
    await until(fleet, ("backend", "list"), backend("gpu", "healthy"))
    await answers_again(client, fleet, key)
    await fleet.wait_restarted(leads, died)
    await eventually(lambda: standing(fleet).get(leads) == "standby", 20, "it does not stand by", every_s=0.1)
    assert standing(fleet)[follows] == "leading"


async def test_the_minute_in_which_a_registry_stops_is_in_the_history(fleet: Installation) -> None:
    leads = await leader(fleet)
    stopped = fleet.pid(leads)
    os.kill(stopped, signal.SIGTERM)
    await fleet.wait_restarted(leads, stopped)
    words = ("history", "gpu", "gpu-box/0", "--last", "30m")
    await until(fleet, words, lambda series: 250.125 in [watts["max"] for watts in powers(series)])
