"""What every bus owes its users, asked of the one in memory and of the real NATS."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from forebay.bus import BACKLOG, BACKLOG_BYTES, Bus, Consumer, Delivery, Message, WrongRevision
from forebay.errors import CannotStart, Unavailable
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.subjects import Stream
from tests.real_nats import RealNats

WITHIN_S = 15.0
_numbers = itertools.count(1)


class Outage(Protocol):
    """A bus and the switch that takes it away and brings it back with everything it stored."""

    bus: Bus

    async def take_away(self) -> None: ...
    async def bring_back(self) -> None: ...


class MemoryOutage:
    def __init__(self) -> None:
        self._memory = MemoryBus(time.time)
        self.bus: Bus = self._memory

    async def take_away(self) -> None:
        self._memory.is_connected = False

    async def bring_back(self) -> None:
        self._memory.is_connected = True


class NatsOutage:
    def __init__(self, bus: Bus, server: RealNats) -> None:
        self.bus, self._server = bus, server

    async def take_away(self) -> None:
        self._server.kill()
        await becomes(lambda: not self.bus.is_connected)

    async def bring_back(self) -> None:
        self._server.start()
        await asyncio.wait_for(self.bus.wait_connected(), WITHIN_S)


async def becomes(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not is_so():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def lasting_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNats]:
    with RealNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus(time.time)
        return
    async with open_nats_bus(request.getfixturevalue("lasting_nats").url, "tester") as bus:
        await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
        yield bus


@pytest.fixture(params=["memory", "nats"])
async def outage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outage]:
    if request.param == "memory":
        yield MemoryOutage()
        return
    with RealNats(tmp_path) as server:
        async with open_nats_bus(server.url, "tester") as bus:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            yield NatsOutage(bus, server)


def new_stream(max_bytes: int = 1 << 20) -> tuple[Stream, str]:
    """A stream of its own for a test, and a subject that it holds."""
    number = next(_numbers)
    return Stream(f"TEST_{number}", (f"test{number}.*",), max_bytes), f"test{number}.here"


async def take(messages: AsyncIterator[Message], count: int) -> list[Message]:
    async with asyncio.timeout(WITHIN_S):
        return [await anext(messages) for _ in range(count)]


def payloads(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [d.payload for d in deliveries]


async def fetch_one(consumer: Consumer) -> Delivery:
    fetched = await consumer.fetch(1, 5)
    assert len(fetched) == 1
    return fetched[0]


# --- messages that may be lost ----------------------------------------------------------------------------------------


async def test_a_subscriber_hears_its_subjects_in_order_and_no_others(bus: Bus) -> None:
    async with bus.subscribe("weather.*.wind") as messages:
        await bus.publish("weather.north.wind", b"1")
        await bus.publish("weather.north.rain", b"not asked for")
        await bus.publish("weather.north.coast.wind", b"one token too many")
        await bus.publish("weather.south.wind", b"2")
        assert await take(messages, 2) == [Message("weather.north.wind", b"1"), Message("weather.south.wind", b"2")]


async def test_a_trailing_wildcard_stands_for_one_or_more_tokens(bus: Bus) -> None:
    async with bus.subscribe("tree.>") as messages:
        await bus.publish("tree", b"no token at all")
        await bus.publish("tree.a", b"1")
        await bus.publish("tree.a.b.c", b"2")
        assert [m.payload for m in await take(messages, 2)] == [b"1", b"2"]


async def test_every_subscriber_hears_a_message(bus: Bus) -> None:
    async with bus.subscribe("news") as first, bus.subscribe("news") as second:
        await bus.publish("news", b"x")
        assert [m.payload for m in await take(first, 1) + await take(second, 1)] == [b"x", b"x"]


async def test_a_subscriber_that_falls_behind_loses_the_newest(bus: Bus) -> None:
    async with bus.subscribe("flood") as messages, bus.subscribe("after") as after:
        for number in range(BACKLOG + 10):
            await bus.publish("flood", str(number).encode())
        await bus.publish("after", b"")
        await take(after, 1)
        heard = await take(messages, BACKLOG)
        assert (heard[0].payload, heard[-1].payload) == (b"0", str(BACKLOG - 1).encode())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), 0.1)


async def test_a_subscriber_that_falls_behind_by_large_messages_loses_the_newest_too(bus: Bus) -> None:
    large = b"x" * 512 * 1024
    async with bus.subscribe("flood") as messages, bus.subscribe("after") as after:
        for _ in range(BACKLOG_BYTES // len(large) + 10):
            await bus.publish("flood", large)
        await bus.publish("after", b"")
        await take(after, 1)
        await take(messages, BACKLOG_BYTES // len(large))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), 0.1)


async def test_a_subscriber_that_left_hears_nothing_and_holds_nobody_up(bus: Bus) -> None:
    async with bus.subscribe("leaving") as messages:
        pass
    await bus.publish("leaving", b"x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(messages), 0.1)


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_keeps_messages_until_they_are_acknowledged(bus: Bus) -> None:
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    for payload in (b"a", b"b", b"c"):
        await bus.append(subject, payload)
    consumer = await bus.consumer(stream, "reader")
    deliveries = list(await consumer.fetch(10, 5))
    assert payloads(deliveries) == [b"a", b"b", b"c"]
    assert {(d.subject, d.times_delivered) for d in deliveries} == {(subject, 1)}
    for delivery in deliveries:
        await delivery.ack()
    assert list(await consumer.fetch(10, 0.1)) == []


async def test_a_fetch_takes_no_more_than_it_asked_for(bus: Bus) -> None:
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    for payload in (b"a", b"b", b"c"):
        await bus.append(subject, payload)
    consumer = await bus.consumer(stream, "reader")
    assert payloads(await consumer.fetch(2, 5)) == [b"a", b"b"]
    assert payloads(await consumer.fetch(2, 5)) == [b"c"]


async def test_an_empty_stream_answers_after_the_wait(bus: Bus) -> None:
    stream, _ = new_stream()
    await bus.ensure_stream(stream)
    consumer = await bus.consumer(stream, "reader")
    before = time.monotonic()
    assert list(await consumer.fetch(10, 0.3)) == []
    assert 0.25 <= time.monotonic() - before < 10


async def test_a_waiting_fetch_gets_what_arrives(bus: Bus) -> None:
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    consumer = await bus.consumer(stream, "reader")
    waiting = asyncio.create_task(consumer.fetch(10, 10))
    await asyncio.sleep(0.1)
    await bus.append(subject, b"late")
    before = time.monotonic()
    assert payloads(await waiting) == [b"late"]
    assert time.monotonic() - before < 10


async def test_what_is_given_back_comes_again_not_sooner_than_said_and_counts(bus: Bus) -> None:
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    await bus.append(subject, b"again")
    consumer = await bus.consumer(stream, "reader")
    first = await fetch_one(consumer)
    given_back_at = time.monotonic()
    await first.give_back(0.5)
    second = await fetch_one(consumer)
    assert time.monotonic() - given_back_at >= 0.45
    assert (second.payload, second.times_delivered) == (b"again", 2)
    await second.ack()
    assert list(await consumer.fetch(1, 0.7)) == []


async def test_two_readers_of_one_name_share_the_work(bus: Bus) -> None:
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    await bus.append(subject, b"once")
    first, second = await bus.consumer(stream, "reader"), await bus.consumer(stream, "reader")
    assert payloads(await first.fetch(10, 5)) == [b"once"]
    assert list(await second.fetch(10, 0.2)) == []


async def test_a_full_stream_refuses_and_takes_again_when_there_is_room(bus: Bus) -> None:
    stream, subject = new_stream(max_bytes=4096)
    await bus.ensure_stream(stream)
    stored = 0
    while stored < 10:
        try:
            await bus.append(subject, bytes(1000))
        except Unavailable:
            break
        stored += 1
    assert 1 <= stored <= 4
    consumer = await bus.consumer(stream, "reader")
    kept = await consumer.fetch(10, 5)
    assert len(kept) == stored
    for delivery in kept:
        await delivery.ack()
    await bus.append(subject, b"fits")
    assert (await fetch_one(consumer)).payload == b"fits"


async def test_ensuring_a_stream_again_keeps_what_it_holds_and_takes_new_limits(bus: Bus) -> None:
    stream, subject = new_stream(max_bytes=2000)
    await bus.ensure_stream(stream)
    await bus.append(subject, bytes(1000))
    await bus.ensure_stream(Stream(stream.name, stream.subjects, max_bytes=100_000))
    await bus.append(subject, bytes(1500))
    consumer = await bus.consumer(stream, "reader")
    assert [len(p) for p in payloads(await consumer.fetch(10, 5))] == [1000, 1500]


async def test_a_stream_that_was_given_more_room_keeps_it(bus: Bus) -> None:
    """Whoever enlarges one for what the disks have would else lose that with the next start of a service."""
    stream, subject = new_stream(max_bytes=100_000)
    await bus.ensure_stream(stream)
    await bus.ensure_stream(Stream(stream.name, stream.subjects, max_bytes=2000))
    for _ in range(3):
        await bus.append(subject, bytes(1500))
    consumer = await bus.consumer(stream, "reader")
    assert len(payloads(await consumer.fetch(10, 5))) == 3


async def test_a_subject_that_no_stream_holds_is_unavailable(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await bus.append("nobody.keeps.this", b"x")


# --- buckets ----------------------------------------------------------------------------------------------------------


async def test_a_bucket_gives_the_last_value_and_a_revision_that_grows(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-last-value")
    assert await bucket.get("absent") is None
    first = await bucket.put("key", b"one")
    second = await bucket.put("key", b"two")
    entry = await bucket.get("key")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"two", second)
    assert second > first > 0


async def test_compare_and_set_lets_one_of_two_writers_through(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-compare-and-set")
    revision = await bucket.update("leader", b"a", 0)
    with pytest.raises(WrongRevision):
        await bucket.update("leader", b"b", 0)
    newer = await bucket.update("leader", b"a again", revision)
    with pytest.raises(WrongRevision):
        await bucket.update("leader", b"b", revision)
    entry = await bucket.get("leader")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"a again", newer)


async def test_of_many_simultaneous_creates_one_wins(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-many-creates")
    outcomes = await asyncio.gather(
        *(bucket.update("leader", str(n).encode(), 0) for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(o, int) for o in outcomes) == 1
    assert sum(isinstance(o, WrongRevision) for o in outcomes) == 7


async def test_a_bucket_knows_when_it_was_made_and_opening_it_again_changes_nothing(bus: Bus) -> None:
    before = time.time()
    bucket = await bus.bucket("bucket-created-at")
    await bucket.put("key", b"kept")
    assert before - 1 <= bucket.created_at <= time.time() + 1
    again = await bus.bucket("bucket-created-at")
    assert again.created_at == bucket.created_at
    entry = await again.get("key")
    assert entry is not None
    assert entry.value == b"kept"


async def test_a_deleted_key_is_absent_and_may_be_made_again_with_a_later_revision(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-delete")
    made = await bucket.update("leader", b"a", 0)
    await bucket.delete("leader", made)
    assert await bucket.get("leader") is None
    with pytest.raises(WrongRevision):
        await bucket.update("leader", b"stale", made)
    again = await bucket.update("leader", b"b", 0)
    assert again > made
    with pytest.raises(WrongRevision):
        await bucket.update("leader", b"c", 0)


async def test_a_key_that_somebody_else_wrote_meanwhile_is_not_deleted(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-delete-compares")
    mine = await bucket.update("leader", b"mine", 0)
    theirs = await bucket.update("leader", b"theirs", mine)
    with pytest.raises(WrongRevision):
        await bucket.delete("leader", mine)
    entry = await bucket.get("leader")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"theirs", theirs)


async def test_an_entry_is_gone_when_its_life_is_over_and_each_write_gives_it_a_new_one(bus: Bus) -> None:
    bucket = await bus.bucket("bucket-lifetime", entries_live_s=1.0)
    began = time.monotonic()
    revision = await bucket.update("leader", b"a", 0)
    await asyncio.sleep(0.6)
    revision = await bucket.update("leader", b"a", revision)
    await asyncio.sleep(0.6)
    assert await bucket.get("leader") is not None
    while True:
        try:
            again = await bucket.update("leader", b"b", 0)
            break
        except WrongRevision:
            await asyncio.sleep(0.05)
    assert 1.5 <= time.monotonic() - began <= 2.6
    assert again > revision
    with pytest.raises(WrongRevision):
        await bucket.update("leader", b"a", revision)


async def test_a_bucket_is_brought_to_another_lifetime_and_stays_the_same_bucket(bus: Bus) -> None:
    lasting = await bus.bucket("bucket-new-lifetime")
    revision = await lasting.put("leader", b"from before")
    bucket = await bus.bucket("bucket-new-lifetime", entries_live_s=0.5)
    assert bucket.created_at == lasting.created_at
    async with asyncio.timeout(30):
        while await bucket.get("leader") is not None:
            await asyncio.sleep(0.05)
    assert await bucket.update("leader", b"new", 0) > revision
    again = await bus.bucket("bucket-new-lifetime", entries_live_s=0.5)
    assert again.created_at == lasting.created_at


# --- while it is away -------------------------------------------------------------------------------------------------


async def test_while_the_bus_is_away_publish_drops_and_everything_kept_is_unavailable(outage: Outage) -> None:
    bus = outage.bus
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    bucket = await bus.bucket("bucket-away")
    await bucket.put("key", b"before")
    consumer = await bus.consumer(stream, "reader")
    await bus.append(subject, b"held")
    held = await fetch_one(consumer)
    await outage.take_away()
    before = time.monotonic()
    await bus.publish("any.subject", b"dropped")
    for kept in (
        bus.append(subject, b"x"),
        bus.ensure_stream(stream),
        bus.bucket("another"),
        bus.consumer(stream, "reader"),
        bucket.get("key"),
        bucket.put("key", b"x"),
        bucket.update("key", b"x", 1),
        bucket.delete("key", 1),
        consumer.fetch(1, 1),
        held.ack(),
        held.give_back(0),
    ):
        with pytest.raises(Unavailable):
            await kept
    assert time.monotonic() - before < 10  # nobody waits for what is known to be away


async def test_after_an_outage_everything_works_again_and_nothing_stored_is_gone(outage: Outage) -> None:
    bus = outage.bus
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    await bus.append(subject, b"before")
    bucket = await bus.bucket("bucket-outage")
    revision = await bucket.put("key", b"before")
    created_at = bucket.created_at
    consumer = await bus.consumer(stream, "reader")
    async with bus.subscribe("spoken") as messages:
        await outage.take_away()
        await outage.bring_back()

        await bus.append(subject, b"after")
        assert payloads(await consumer.fetch(2, 5)) == [b"before", b"after"]
        entry = await bucket.get("key")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"before", revision)
        assert await bucket.update("key", b"after", revision) > revision
        assert bucket.created_at == created_at
        await bus.publish("spoken", b"heard by who listened before")
        assert [m.payload for m in await take(messages, 1)] == [b"heard by who listened before"]


async def test_what_failed_during_an_outage_is_not_done_after_it(outage: Outage) -> None:
    bus = outage.bus
    bucket = await bus.bucket("bucket-late")
    await bucket.put("key", b"before")
    await outage.take_away()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await bucket.put("key", b"too late")
    await outage.bring_back()
    await asyncio.sleep(0.3)
    entry = await bucket.get("key")
    assert entry is not None
    assert entry.value == b"before"


async def test_a_fetch_that_an_outage_interrupts_ends_without_cancelling_its_task(outage: Outage) -> None:
    bus = outage.bus
    stream, subject = new_stream()
    await bus.ensure_stream(stream)
    consumer = await bus.consumer(stream, "reader")

    async def read_until(wanted: bytes) -> int:
        """How often the bus was away."""
        away = 0
        while True:
            try:
                for delivery in await consumer.fetch(5, 0.5):
                    await delivery.ack()
                    if delivery.payload == wanted:
                        return away
            except Unavailable:
                away += 1
                await asyncio.sleep(0.05)

    reading = asyncio.create_task(read_until(b"found"))
    await asyncio.sleep(0.2)
    await outage.take_away()
    await asyncio.sleep(0.2)
    await outage.bring_back()
    await bus.append(subject, b"found")
    assert await asyncio.wait_for(reading, WITHIN_S) >= 1


# --- NATS alone -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_connections(server: RealNats) -> AsyncIterator[tuple[Bus, Bus]]:
    async with open_nats_bus(server.url, "one") as one, open_nats_bus(server.url, "two") as two:
        await asyncio.wait_for(asyncio.gather(one.wait_connected(), two.wait_connected()), WITHIN_S)
        yield one, two


@contextmanager
def server_with(configuration: Path, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server with a configuration file, which it reads again on SIGHUP."""
    server = RealNats(directory, "-c", str(configuration))
    with server:
        assert server.process is not None
        yield server.process, server.port


async def test_the_bus_starts_before_its_server_and_finds_it(tmp_path: Path) -> None:
    server = RealNats(tmp_path)
    async with open_nats_bus(server.url, "early") as bus:
        await bus.publish("any.subject", b"dropped")
        with pytest.raises(Unavailable):
            await bus.append("any.subject", b"x")
        with server:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            assert bus.is_connected
            assert (await bus.bucket("found")).created_at > 0


async def test_a_subscription_made_before_the_server_is_there_begins_with_it(tmp_path: Path) -> None:
    server = RealNats(tmp_path)

    async def first_word(bus: Bus) -> bytes:
        async with bus.subscribe("greeting") as messages:
            return (await anext(messages)).payload

    async with open_nats_bus(server.url, "early") as bus:
        waiting = asyncio.create_task(first_word(bus))
        await asyncio.sleep(0.1)
        with server:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            await asyncio.sleep(0.1)
            await bus.publish("greeting", b"hello")
            assert await asyncio.wait_for(waiting, WITHIN_S) == b"hello"


async def test_a_server_without_its_disk_gets_the_bucket_and_the_stream_anew(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    server = RealNats(tmp_path / "first")
    stream, subject = new_stream()
    with server:
        async with open_nats_bus(server.url, "tester") as bus:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            bucket = await bus.bucket("epoch")
            await bucket.put("key", b"lost")
            consumer = await bus.consumer(stream, "reader")
            created_at = bucket.created_at
            server.kill()
            await becomes(lambda: not bus.is_connected)
            empty = RealNats(tmp_path / "second")
            empty.port = server.port
            with empty:
                await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
                assert await bucket.get("key") is None
                assert bucket.created_at > created_at
                assert list(await consumer.fetch(1, 0.1)) == []
                await bus.append(subject, b"kept again")
                assert (await fetch_one(consumer)).payload == b"kept again"
                server = empty


async def test_a_bus_that_was_sent_away_comes_back_when_it_is_let_in_again(tmp_path: Path) -> None:
    """Whoever loses its rights is disconnected with an error, after which nats-py by itself would stay away for good."""
    configuration = tmp_path / "nats.conf"

    def allow(password: str) -> None:
        configuration.write_text(f"authorization {{ user: agent, password: {password} }}\n")

    allow("right")
    with server_with(configuration, tmp_path) as (server, port):
        async with open_nats_bus(f"nats://agent:right@127.0.0.1:{port}", "agent") as bus:
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
            allow("changed")
            server.send_signal(signal.SIGHUP)
            await becomes(lambda: not bus.is_connected)
            await asyncio.sleep(0.5)
            assert not bus.is_connected
            allow("right")
            server.send_signal(signal.SIGHUP)
            await asyncio.wait_for(bus.wait_connected(), WITHIN_S)


async def test_a_password_in_the_address_stays_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with open_nats_bus(f"nats://agent:hush@127.0.0.1:{port}", "agent"):
            await becomes(lambda: any("not reachable" in r.getMessage() for r in caplog.records))
    assert "hush" not in "".join(str(vars(record)) for record in caplog.records)
    told = [r for r in caplog.records if "not reachable" in r.getMessage()]
    assert len(told) == 1  # once an outage, not once a try
    assert vars(told[0])["url"] == f"127.0.0.1:{port}"


async def test_a_missing_seed_or_ca_file_is_said_before_anything_starts(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    for seed_file, ca_file in ((absent, None), (None, absent)):
        with pytest.raises(CannotStart, match="absent"):
            async with open_nats_bus("nats://127.0.0.1:1", "agent", seed_file=seed_file, ca_file=ca_file):
                raise AssertionError("it must not open")


async def test_messages_cross_between_two_connections(lasting_nats: RealNats) -> None:
    async with two_connections(lasting_nats) as (one, two), one.subscribe("crossing") as messages:
        heard = asyncio.create_task(take(messages, 1))
        while not heard.done():  # the server may learn of the subscription a moment after us
            await two.publish("crossing", b"x")
            await asyncio.sleep(0.02)
        assert (await heard)[0].payload == b"x"


async def test_a_message_that_the_server_does_not_take_is_dropped_and_told(
    lasting_nats: RealNats, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nats_bus(lasting_nats.url, "tester") as bus, bus.subscribe("large") as messages:
        heard = asyncio.create_task(take(messages, 1))
        await asyncio.wait_for(bus.wait_connected(), WITHIN_S)
        await bus.publish("large", b"x" * (2 << 20))
        while not heard.done():
            await bus.publish("large", b"x")
            await asyncio.sleep(0.02)
        assert (await heard)[0].payload == b"x"
    assert [vars(r)["bytes"] for r in caplog.records if r.getMessage() == "message dropped"] == [2 << 20]
