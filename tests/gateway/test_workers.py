"""A gateway of several processes: even, exact in its sums, and whole again after one of them was killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay.clock import SystemClock
from forebay.errors import BadSettings
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.ops import Ops
from forebay.service import Ground
from forebay.wire.v1 import scheduler_pb2
from forebay_gateway.config import GatewaySettings
from forebay_gateway.ledger.journal import open_journal
from forebay_gateway.workers.crew import Crew
from forebay_gateway.workers.opening import serving_workers
from forebay_gateway.workers.orders import left_journals, own_settings
from forebay_gateway.workers.sums import add_up, as_metrics, from_plain, only_what_grows, read_page, to_plain
from tests.conftest import NatsServer, free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.doubles import SchedulerDouble
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import events, text_of
from tests.gateway.test_process import admins_bus, gateway_process, read_rows

START_S = 240.0
"""For processes to start on a machine that has much else to do."""


# --- what is decided ----------------------------------------------------------------------------------------------------


def settings_in(directory: Path, **changes: Any) -> GatewaySettings:
    needed = ("token_file", "pepper_file", "snapshot_dir", "snapshot_key_file")
    return GatewaySettings(**{**dict.fromkeys(needed, directory), "journal_dir": directory / "journal", **changes})


def test_a_worker_is_a_gateway_of_its_own_and_the_same_user_of_the_bus(tmp_path: Path) -> None:
    whole = settings_in(tmp_path, workers=4, held_bodies_bytes=4096)
    mine = own_settings(whole, 3)
    assert (mine.name, mine.nats_user, mine.workers) == ("gateway-1.3", "gateway-1", 1)
    assert (mine.journal_dir, mine.held_bodies_bytes) == (tmp_path / "journal" / "worker-3", 1024)
    with pytest.raises(ValueError, match="workers"):
        settings_in(tmp_path, workers=0)


@pytest.mark.parametrize(
    ("with_records", "workers", "left"),
    [
        ((".", "worker-1", "worker-3"), 1, ["worker-1", "worker-3"]),
        ((".", "worker-1", "worker-3"), 2, [".", "worker-3"]),
        (("worker-1", "worker-2"), 2, []),
        ((), 2, []),
        (("worker-1", "worker-next"), 2, ["worker-next"]),
        (
            ("worker-1", "worker-next/worker-1", "worker-next/worker-2"),
            2,
            ["worker-next/worker-1", "worker-next/worker-2"],
        ),
    ],
)
def test_what_lies_in_journals_of_other_numbers_of_workers_is_found(
    tmp_path: Path, with_records: tuple[str, ...], workers: int, left: list[str]
) -> None:
    for name in ("worker-1", "worker-2", "worker-3", "worker-next/worker-1", "worker-next/worker-2"):
        (tmp_path / name).mkdir(parents=True)
    for name in with_records:
        (tmp_path / name / "0000000001.segment").touch()
    assert left_journals(tmp_path, workers) == [tmp_path / name for name in left]


def told(requests: int, seconds: float, running: int, version: int) -> Metrics:
    metrics = Metrics()
    metrics.counter("forebay_gateway_requests", "Requests.", ("route",)).child("chat").value = requests
    metrics.histogram("forebay_gateway_seconds", "Took.", (), (0.1, 1.0)).child().observe(seconds)
    metrics.gauge("forebay_gateway_running", "Run.", (), lambda: [((), running)])
    metrics.gauge("forebay_gateway_fleet_version", "Known.", (), lambda: [((), version)])
    return metrics


def test_sums_keep_what_the_dead_have_counted_and_not_what_they_had_running() -> None:
    pages = [from_plain(to_plain(read_page(told(*one).collect()))) for one in ((3, 0.5, 2, 7), (4, 0.05, 1, 9))]
    dead, living = only_what_grows(pages[0]), pages[1]

    whole = Metrics()
    whole.add_source(lambda: as_metrics(add_up([dead, living])))
    found = values_of(whole.exposition())
    assert found["forebay_gateway_requests_total", ("chat",)] == 7
    assert [found["forebay_gateway_seconds_bucket", (le,)] for le in ("0.1", "1.0", "+Inf")] == [1, 2, 2]
    assert found["forebay_gateway_seconds_sum", ()] == 0.55
    assert (found["forebay_gateway_running", ()], found["forebay_gateway_fleet_version", ()]) == (1, 9)
    both = values_of_page(add_up(pages))
    assert (both["forebay_gateway_running", ()], both["forebay_gateway_fleet_version", ()]) == (3, 7)


def values_of(exposition: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and labels' values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def values_of_page(page: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    metrics = Metrics()
    metrics.add_source(lambda: as_metrics(page))
    return values_of(metrics.exposition())


async def test_a_bus_in_memory_is_no_bus_for_several(tmp_path: Path) -> None:
    ground = Ground("gateway", SystemClock(), Ops("gateway"), MemoryBus(SystemClock().now))
    with pytest.raises(BadSettings, match="workers"):
        async with serving_workers(settings_in(tmp_path, workers=2, nats_url="memory:"), ground):
            pass


# --- what is left --------------------------------------------------------------------------------------------------------


async def test_records_of_a_worker_that_is_no_more_are_published_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "journal" / "worker-2"
    left.mkdir(parents=True)
    journal = open_journal(left, 1 << 16, 4)
    record = {"ledger_id": bytes(16), "gateway": "gateway-1.2", "generation": 7}
    journal.open(bytes(16), usage_record(request_id="lost", **record))
    journal.close(bytes(15) + b"1", usage_record(request_id="over", **{**record, "ledger_id": bytes(15) + b"1"}))
    del journal  # as a killed process leaves it
    async with open_house(tmp_path, FakeEngine()) as house:
        rows = await house.rows(2)
        assert {(row.request_id, row.gateway) for row in rows} == {("lost", "gateway-1.2"), ("over", "gateway-1.2")}
        await eventually(lambda: not list(left.glob("*.segment")))


def usage_record(**fields: Any) -> bytes:
    from forebay.wire.v1 import usage_pb2

    return usage_pb2.UsageRecord(**fields).SerializeToString()


# --- real processes ------------------------------------------------------------------------------------------------------


def let_each_session_have_its_scheduler(house: House) -> list[SchedulerDouble]:
    """The double knows of one gateway; so each of several has one of its own."""
    doubles: list[SchedulerDouble] = []

    async def session(frames: Any, context: Any) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        double = SchedulerDouble(house.scheduler.slots)
        doubles.append(double)
        async for frame in double.Session(frames, context):
            yield frame

    house.scheduler.Session = session  # type: ignore[method-assign]
    return doubles


@asynccontextmanager
async def crew_of(
    house: House, nats: NatsServer, workers: int, **changes: Any
) -> AsyncIterator[tuple[Crew, list[SchedulerDouble]]]:
    """Of real processes, behind `house.url`, whose parent is this one. All are ready."""
    await house.stop_gateway()
    await house.stop_server(house.scheduler)
    schedulers = let_each_session_have_its_scheduler(house)
    await house.start_server(house.scheduler)
    house.ops = Ops("gateway")
    ground = Ground("gateway", SystemClock(), house.ops, MemoryBus(SystemClock().now))
    seed = nats.seed_file("gateway-1")
    own = replace(house.settings, workers=workers, nats_url=nats.url, nats_seed_file=seed, **changes)
    # Nobody takes out of turn, however slow this machine makes the others.
    async with serving_workers(own, ground, patience_s=600.0) as (address, crew):
        house.url = f"http://{address}"
        await eventually(lambda: crew.ready == workers, within_s=START_S)
        assert house.metric("forebay_gateway_workers") == workers
        assert not house.ops.missing.keys() - {"start"}
        yield crew, schedulers


async def scrape(house: House) -> dict[tuple[str, tuple[str, ...]], float]:
    return values_of(await asyncio.to_thread(house.ops.metrics.exposition))


def connections(house: House) -> list[float]:
    found = values_of(house.ops.metrics.exposition())
    return [value for (name, _), value in sorted(found.items()) if name == "forebay_gateway_worker_connections"]


class Stream:
    def __init__(self) -> None:
        self.text = ""

    async def run(self, client: aiohttp.ClientSession, house: House, label: str) -> None:
        url, headers = f"{house.url}/v1/chat/completions", {**house.headers, "x-request-id": label}
        async with client.post(url, json=ask(stream=True), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            async for chunk in answer.content.iter_any():
                self.text += chunk.decode()


async def test_workers_are_even_exact_and_lose_nothing_but_their_own_streams(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    engine = FakeEngine(slots=64, pace=Pace(tokens_per_s=20, answer_tokens=20_000))
    async with (
        open_house(tmp_path, engine) as house,
        admins_bus(nats_server) as bus,
        crew_of(house, nats_server, 2) as (crew, schedulers),
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(one_connection()) for _ in range(8)]
        # Each client keeps its connection: eight requests one after another, and eight at once on the same ones.
        for client in clients:
            await finish_one(client, house)
        assert connections(house) == [4, 4]
        await asyncio.gather(*(finish_one(client, house) for client in clients))
        assert connections(house) == [4, 4]
        assert {hello.gateway for one in schedulers for hello in one.hellos} == {"gateway-1.1", "gateway-1.2"}
        await finish(house, 16)

        streams = [Stream() for _ in clients]
        running = [
            asyncio.create_task(one.run(client, house, f"stream-{number}"))
            for number, (one, client) in enumerate(zip(streams, clients, strict=True))
        ]
        await eventually(lambda: all("word0" in one.text for one in streams), lambda: str(running))
        killed, other = crew.pid(1), crew.pid(2)
        assert killed is not None
        assert other is not None
        # Nobody takes what arrives now, and one of the two dies before anybody could.
        for pid in (other, killed):
            os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: is_stopped(other) and is_stopped(killed))
        newcomers = [await asyncio.open_connection(*house.url.removeprefix("http://").split(":")) for _ in range(6)]
        os.kill(killed, signal.SIGKILL)
        os.kill(other, signal.SIGCONT)
        assert await asyncio.gather(*(finish_raw(*pair, house) for pair in newcomers)) == [b"HTTP/1.1 200 OK"] * 6
        await eventually(lambda: crew.ready == 2 and crew.pid(1) != killed, within_s=START_S)
        await finish(house, 22)
        assert values_of(house.ops.metrics.exposition())["forebay_gateway_worker_restarts_total", ()] == 1
        await eventually(lambda: sum(one.done() for one in running) == 4)
        alive = [(one, len(one.text)) for one, task in zip(streams, running, strict=True) if not task.done()]
        await eventually(lambda: all(len(one.text) > before for one, before in alive))
        for task in running:
            task.cancel()
        ends = await asyncio.gather(*running, return_exceptions=True)
        assert sum(isinstance(one, aiohttp.ClientError) for one in ends) == 4

        rows = await read_rows(bus, 22 + 8)
        by_id = {row.ledger_id: row for row in rows}.values()
        ended = Counter((row.gateway, OUTCOME(row.outcome)) for row in by_id if row.request_id.startswith("stream-"))
        assert ended == {("gateway-1.1", "OUTCOME_GATEWAY_LOST"): 4, ("gateway-1.2", "OUTCOME_CANCELLED"): 4}
        assert len(by_id) == 22 + 8


def one_connection() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=600))


async def finish_one(client: aiohttp.ClientSession, house: House) -> None:
    body, url = ask(max_tokens=2), f"{house.url}/v1/chat/completions"
    async with client.post(url, json=body, headers=house.headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()


async def finish_raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, house: House) -> bytes:
    """The first line of the answer to a request on a connection that is there."""
    body = json.dumps(ask(max_tokens=2)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\nconnection: close\r\n"
    )
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    return answer.partition(b"\r\n")[0]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def finish(house: House, number: int) -> None:
    """So many are over, and no more. A client may have its answer before that is counted."""
    async with asyncio.timeout(60):
        while await finished(house) < number:
            await asyncio.sleep(0.02)
    assert await finished(house) == number


async def finished(house: House) -> float:
    """Requests that are over, by what all workers together have counted."""
    return sum(
        value
        for (name, labels), value in (await scrape(house)).items()
        if name == "forebay_gateway_requests_total" and "finished" in labels
    )


async def wait_for_metric(house: House, ops: str, name: str, value: float) -> None:
    async with asyncio.timeout(START_S):
        while True:
            async with house.client.get(f"http://{ops}/metrics") as answer:
                if values_of(await answer.read()).get((name, ())) == value:
                    return
            await asyncio.sleep(0.1)


async def test_on_sigterm_all_workers_drain(tmp_path: Path, nats_server: NatsServer) -> None:
    engine = FakeEngine(slots=8, pace=Pace(tokens_per_s=40, answer_tokens=40))
    async with open_house(tmp_path, engine) as house, admins_bus(nats_server) as bus:
        await house.stop_gateway()
        await house.stop_server(house.scheduler)
        let_each_session_have_its_scheduler(house)
        await house.start_server(house.scheduler)
        ops = f"127.0.0.1:{free_port()}"
        async with (
            gateway_process(house, nats_server, "--workers", "2", ops_listen=ops) as process,
            AsyncExitStack() as stack,
        ):
            await wait_for_metric(house, ops, "forebay_gateway_workers", 2)
            clients = [await stack.enter_async_context(one_connection()) for _ in range(4)]
            streams = [Stream() for _ in clients]
            running = [
                asyncio.create_task(one.run(client, house, f"drained-{number}"))
                for number, (one, client) in enumerate(zip(streams, clients, strict=True))
            ]
            await eventually(lambda: all("word0" in one.text for one in streams), lambda: str(running))
            process.terminate()
            await asyncio.gather(*running)
            assert all("word39" in text_of(events(one.text)) for one in streams)
            assert await process.wait() == 0
        rows = {row.request_id: OUTCOME(row.outcome) for row in await read_rows(bus, 4)}
        assert rows == {f"drained-{number}": "OUTCOME_FINISHED" for number in range(4)}
