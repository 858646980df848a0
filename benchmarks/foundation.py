"""Measures the foundation's targets on real processes and tells them truthfully, met or not.

A fresh clone is brought up with `make up` and asked for its first token; its idle memory is added up; clients go away, a
key is revoked, and every part is killed in turn under load. Takes about four minutes, without the time of `make test`,
which is taken from the last whole run of this very tree and only run here when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.targets import Target, tell
from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, free_base_port, start_up, stream

ROOT = Path(__file__).parents[1]
KILLED = ("gateway-1", "scheduler", "registry", "admin", "nats", "postgres")
SERVICES = ("gateway-1", "scheduler", "registry", "admin", "gpu-agent", "postgres", "nats")


def main() -> None:
    # Open to others, for PostgreSQL's unprivileged user when we are root.
    work = Path(tempfile.mkdtemp(prefix="forebay-targets-"))
    work.chmod(0o755)
    try:
        targets = [*_fresh_clone(work), _test_time()]
        targets += asyncio.run(_before_a_fake_engine(work))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    tell("foundation", targets)


# --- a fresh clone ------------------------------------------------------------------------------------------------------


def _fresh_clone(work: Path) -> list[Target]:
    """`make up` in a clone, as a newcomer would: to the first token, at rest, and one long streamed answer."""
    clone, data_dir, base = work / "clone", work / "data", free_base_port()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
    }
    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # the packaged model, the same on every machine
    began = time.monotonic()
    with (work / "up.output").open("wb") as output:
        up = subprocess.Popen(
            ["make", "up", f"ARGS=--data-dir {data_dir} --base-port {base}"],
            cwd=clone,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        connection_file = data_dir / "connection.json"
        while not connection_file.exists():
            if up.poll() is not None or time.monotonic() - began > 600:
                raise SystemExit("make up failed:\n" + (work / "up.output").read_text())
            time.sleep(0.05)
        running = Installation(data_dir, base, up, work / "up.output", json.loads(connection_file.read_text()))
        first_token_s, early = asyncio.run(_first_tokens(running, began))
        time.sleep(5)  # at rest
        idle_mb = sum(_memory_mb(running.pid(part)) for part in SERVICES)
    finally:
        os.killpg(up.pid, signal.SIGTERM)
        up.wait(60)
    return [
        Target(
            "make_up_to_first_token_s",
            first_token_s,
            180,
            "at most",
            "s",
            "fresh clone, warm download cache, real model",
        ),
        Target(
            "idle_memory_mb", idle_mb, 700, "at most", "MB", "PSS of five services, PostgreSQL and NATS, all children"
        ),
        Target("chunks_before_end_ratio", early, 0.9, "at least", "", "chunks of a real stream seen before its end"),
    ]


async def _first_tokens(running: Installation, began: float) -> tuple[float, float]:
    async with aiohttp.ClientSession() as client:
        first = asyncio.Event()
        asking = asyncio.create_task(
            stream(
                client,
                running.gateway,
                running.key,
                ask("What is the capital of France?", max_tokens=16),
                "first",
                first,
            )
        )
        await first.wait()
        first_token_s = time.monotonic() - began
        await asking
        long = ask("Tell me a story about a river.", max_tokens=64, ignore_eos=True, stop=["no such words"])
        result = await stream(client, running.gateway, running.key, long, "long")
        early = sum(at < result.ended_s - 0.02 for at in result.arrivals)
        return first_token_s, early / max(1, len(result.arrivals))


def _memory_mb(pid: int) -> float:
    """Proportional set size: what is shared between PostgreSQL's processes is counted once."""
    process = psutil.Process(pid)
    return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True))) / 1e6


def _test_time() -> Target:
    """Seconds of `make test`, installing included, as its last whole run of this tree took, else of one run now."""
    record = ROOT / "build" / "test-time.json"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    if record.exists():
        told = json.loads(record.read_text())
        if told["commit"] == head:
            return Target("make_test_s", told["seconds"], 600, "at most", "s", "the last whole run of this tree")
    began = time.monotonic()
    done = subprocess.run(["make", "test"], cwd=ROOT)
    how = "run just now" if done.returncode == 0 else f"run just now, and it failed with {done.returncode}"
    return Target("make_test_s", time.monotonic() - began, 600, "at most", "s", how)


# --- before a fake engine -----------------------------------------------------------------------------------------------


async def _before_a_fake_engine(work: Path) -> list[Target]:
    engine = FakeEngineProcess("--slots", "4", "--tokens-per-s", "20")
    settings = work / "forebay.toml"
    settings.write_text(f'[[registry.backends]]\nname = "fake"\nurl = "{engine.url}"\nkind = "openai"\nslots = 4\n')
    running = await asyncio.to_thread(
        start_up, work / "fake" / "data", "--gateways", "2", "--no-engine", "--config", str(settings)
    )
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as client:
            return [
                await _cancel(running, client, engine),
                await _revoke(running, client),
                *await _kills(running, client),
            ]
    finally:
        await asyncio.to_thread(running.stop)
        engine.stop()


async def _cancel(running: Installation, client: aiohttp.ClientSession, engine: FakeEngineProcess) -> Target:
    """From the client's close to the moment at which a request that waited for the slot reaches the engine."""
    body = ask("Go on.", model="fake-model", max_tokens=400, n=4)  # all four slots
    took_ms = []
    for round_number in range(20):
        async with aiohttp.ClientSession() as going:
            begun = asyncio.Event()
            leaving = asyncio.create_task(
                stream(going, running.gateway, running.key, body, f"leaves-{round_number}", begun)
            )
            await begun.wait()
            next_one = asyncio.Event()
            short = ask("Go on.", model="fake-model", max_tokens=1)
            waiting = asyncio.create_task(
                stream(client, running.gateway_url(2), running.key, short, f"waits-{round_number}", next_one)
            )
            await asyncio.sleep(0.3)
            left = time.monotonic()
            leaving.cancel()
            await asyncio.wait([leaving])
        await waiting
        async with client.get(f"{engine.url}/control/seen") as answer:
            seen: dict[str, Any] = await answer.json()
        # The newest request is the one that waited; both clocks are the machine's monotonic one.
        took_ms.append((seen["requests"][-1]["started_at"] - left) * 1000)
    how = f"worst of {len(took_ms)}: the client closes, the next request reaches the engine in its slot"
    return Target("cancel_to_freed_slot_ms", max(took_ms), 100, "at most", "ms", how)


async def _revoke(running: Installation, client: aiohttp.ClientSession) -> Target:
    worst = 0.0
    for number in range(3):
        made = await asyncio.to_thread(running.cli, "key", "create", "--name", f"revoked {number}")
        headers = {"authorization": f"Bearer {made['secret']}"}

        async def status(url: str, headers: dict[str, str] = headers) -> int:
            async with client.get(f"{url}/v1/models", headers=headers) as answer:
                return answer.status

        urls = [running.gateway_url(1), running.gateway_url(2)]
        for url in urls:
            while await status(url) != 200:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(running.cli, "key", "revoke", made["key"]["id"])
        began = time.monotonic()
        for url in urls:
            while await status(url) != 401:
                await asyncio.sleep(0.002)
        worst = max(worst, time.monotonic() - began)
    return Target(
        "revoke_to_refusal_s", worst, 1, "at most", "s", "worst of 3, the slower of two gateways, from the CLI's answer"
    )


async def _kills(running: Installation, client: aiohttp.ClientSession) -> list[Target]:
    """Eight streams, one part killed. Over all parts: rows missing or too many, and streams cut that should not be."""
    wrong_rows = cut = 0
    body = ask("Go on.", model="fake-model", max_tokens=30)
    for part in KILLED:
        begun = [asyncio.Event() for _ in range(8)]
        streams = [
            asyncio.create_task(
                stream(client, running.gateway_url(1 + n % 2), running.key, body, f"{part}-{n}", begun[n])
            )
            for n in range(8)
        ]
        while sum(event.is_set() for event in begun) < 4:
            await asyncio.sleep(0.01)
        died = await asyncio.to_thread(running.kill, part)
        results = await asyncio.gather(*streams)
        await running.wait_restarted(part, died)
        cut += sum(not r.is_done for n, r in enumerate(results) if not (part == "gateway-1" and n % 2 == 0))
        wanted = {f"{part}-{n}" for n in range(8)}
        counted: Counter[str] = Counter()
        for _ in range(120):
            try:
                rows = await asyncio.to_thread(running.ledger_rows)
            except AssertionError:
                rows = []
            counted = Counter(row["request_id"] for row in rows if row["request_id"] in wanted)
            if counted.keys() == wanted:
                break
            await asyncio.sleep(0.5)
        wrong_rows += sum(abs(counted[name] - 1) for name in wanted)
    return [
        Target(
            "ledger_rows_wrong_after_kills",
            wrong_rows,
            0,
            "at most",
            "rows",
            f"missing or doubled; killed: {', '.join(KILLED)}",
        ),
        Target("streams_cut_by_kills", cut, 0, "at most", "streams", "of gateways that were not the one killed"),
    ]


if __name__ == "__main__":
    main()
