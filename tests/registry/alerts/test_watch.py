"""Alerts at work: a real Postgres, webhooks that are real HTTP servers, and facts that the tests make up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from forebay import subjects
from forebay.clock import SystemClock
from forebay.database import Database
from forebay.errors import NotFound, Unavailable
from forebay.memory_bus import MemoryBus
from forebay.wire.v1 import alerts_pb2 as wire
from forebay_registry.alerts.calls import AlertCalls
from forebay_registry.alerts.deliveries import Deliveries
from forebay_registry.alerts.facts import Facts
from forebay_registry.alerts.opening import open_webhook_session
from forebay_registry.alerts.rules import Severity, read_alerts
from forebay_registry.alerts.store import AlertStore, Stored
from forebay_registry.alerts.watch import AlertWatch
from forebay_registry.alerts.webhooks import Webhook, read_webhooks

FAST = {"for_s": 0, "clear_s": 0}
SETTINGS = read_alerts({"registry_without_nats": FAST, "registry_without_postgres": FAST})[0]
ALL = frozenset(Severity)


class Receiver:
    """Somebody's HTTP server."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.url = ""

    def kinds(self) -> list[str]:
        return [str(body["type"]) for body in self.got]

    async def take(self, request: web.Request) -> web.StreamResponse:
        if self.status == 200:
            self.got.append(orjson.loads(await request.read()))
            self.ids.append(request.headers["webhook-id"])
        return web.Response(status=self.status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


class FlakyStore(AlertStore):
    """One whose Postgres a test takes away."""

    is_away = False

    async def load(self) -> Stored:
        self._demand()
        return await super().load()

    async def keep(self, *args: Any) -> None:
        self._demand()
        await super().keep(*args)

    def _demand(self) -> None:
        if self.is_away:
            raise Unavailable("Postgres is away.")


class Place:
    """One registry's part, with facts of the test's own."""

    def __init__(self, database: Database, session: aiohttp.ClientSession, *urls: str, away: bool = False) -> None:
        clock = SystemClock()
        self.facts = Facts()
        self.bus = MemoryBus(clock.now)
        self.store = FlakyStore(database)
        self.store.is_away = away
        hooks = [(Webhook(f"hook-{n}", url, Path("none"), ALL), b"s" * 32) for n, url in enumerate(urls, start=1)]
        self.deliveries = Deliveries(hooks, session, clock, timeout_s=1.0)
        tables = asyncio.Event()
        tables.set()
        self.watch = AlertWatch(
            self.store,
            self.bus,
            clock,
            SETTINGS,
            self.deliveries,
            read=self.read,
            tables=tables,
            round_s=0.02,
            patience_s=0.2,
        )
        self.calls = AlertCalls(self.watch, self.store, self.deliveries, clock)

    async def read(self) -> Facts:
        return self.facts

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Place]:
        task = asyncio.create_task(self.watch.run())
        try:
            yield self
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def listed(self, *, closed: bool = False) -> wire.ListAlertsResponse:
        return await self.calls.ListAlerts(wire.ListAlertsRequest(closed=closed), None)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_webhook_session(allow_link_local=False) as session:
        yield session


async def test_an_alert_is_told_on_nats_to_webhooks_and_to_followers_and_is_kept(
    database: Database, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    async with (
        receiving() as receiver,
        Place(database, session, receiver.url).running() as place,
        place.bus.subscribe("forebay.events.alerts.*") as messages,
    ):
        followed: list[wire.WatchAlertsResponse] = []

        async def follow() -> None:
            async for news in place.calls.WatchAlerts(wire.WatchAlertsRequest(), None):
                followed.append(news)

        following = asyncio.create_task(follow())
        await eventually(lambda: followed)
        assert (followed[0].snapshot, len(followed[0].open)) == (True, 0)
        place.facts = Facts(has_nats=False)
        await eventually(lambda: receiver.kinds() == ["alert.opened"])
        place.facts = Facts()
        await eventually(lambda: receiver.kinds() == ["alert.opened", "alert.closed"])
        told = [await anext(messages) for _ in range(2)]
        events = [wire.AlertEvent.FromString(message.payload) for message in told]
        assert {message.subject for message in told} == {subjects.alerts("registry_without_nats")}
        assert [e.kind for e in events] == [wire.ALERT_EVENT_KIND_OPENED, wire.ALERT_EVENT_KIND_CLOSED]
        assert receiver.ids == [e.id for e in events]
        data = receiver.got[0]["data"]
        assert (data["subject"], data["severity"], data["closed_at"]) == ("registry", "warning", None)
        assert [e.id for news in followed for e in news.events] == receiver.ids
        async with asyncio.timeout(30):
            while not (await place.listed(closed=True)).alerts:
                await asyncio.sleep(0.01)
        (alert,) = (await place.listed(closed=True)).alerts
        assert alert.closed_because == "It does not hold any more."
        (hook,) = (await place.listed()).webhooks
        assert (hook.delivered, hook.waiting, hook.host) == (2, 0, receiver.url[7:].partition("/")[0])
        following.cancel()
        await asyncio.wait({following})


async def test_a_restart_opens_nothing_twice_and_tells_what_was_not_told(
    database: Database, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    async with receiving() as receiver:
        receiver.status = 500
        async with Place(database, session, receiver.url).running() as first:
            first.facts = Facts(has_nats=False)
            await eventually(lambda: first.deliveries.receivers["hook-1"].last_error)
            await eventually(lambda: not first.watch._unsaved)
            (opened,) = (await first.listed()).alerts
            (hook,) = (await first.listed()).webhooks
            assert (hook.waiting, hook.delivered, hook.HasField("failing_since_us")) == (1, 0, True)
        receiver.status = 200
        second = Place(database, session, receiver.url)
        second.facts = Facts(has_nats=False)
        async with second.running():
            await eventually(lambda: receiver.kinds() == ["alert.opened"])
            assert [a.id for a in (await second.listed()).alerts] == [opened.id]
            assert receiver.ids == [f"{opened.id}.1"]
            await eventually(lambda: second.deliveries.receivers["hook-1"].delivered)
            await eventually(lambda: not second.deliveries.over)
        assert (await second.store.load()).letters == {}, "what was delivered is kept no longer"


async def test_without_postgres_alerts_go_out_all_the_same_and_are_reconciled_afterwards(
    database: Database, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    async with receiving() as receiver:
        async with Place(database, session).running() as before:
            before.facts = Facts(has_postgres=False)
            await eventually(before.watch.alerts)
            await eventually(lambda: not before.watch._unsaved)
            (old,) = before.watch.alerts()
        place = Place(database, session, receiver.url, away=True)
        place.facts = Facts(has_postgres=False)
        async with place.running():
            await eventually(lambda: receiver.kinds() == ["alert.opened"])
            with pytest.raises(Unavailable):
                await place.watch.ack(place.watch.alerts()[0].id, "ada", "")
            place.store.is_away = False
            await eventually(lambda: receiver.kinds() == ["alert.opened", "alert.closed"])
            assert receiver.got[1]["data"]["id"] == old.id
            await eventually(lambda: not place.watch._unsaved)
            (stored,) = (await place.store.load()).open
            assert stored.id == receiver.got[0]["data"]["id"]


async def test_a_dead_receiver_delays_neither_another_nor_the_rules(
    database: Database, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    dead = "http://127.0.0.1:1/hook"
    async with receiving() as receiver, Place(database, session, dead, receiver.url).running() as place:
        place.facts = Facts(has_nats=False, has_postgres=False)
        await eventually(lambda: receiver.kinds() == ["alert.opened"] * 2)
        assert place.deliveries.receivers["hook-1"].delivered == 0
        test = (await place.calls.TestAlerts(wire.TestAlertsRequest(actor="ada"), None)).tests
        assert [(t.webhook, t.delivered) for t in test] == [("hook-1", False), ("hook-2", True)]
        assert receiver.kinds()[-1] == "alert.test"
        with pytest.raises(NotFound, match="there are: hook-1, hook-2"):
            await place.calls.TestAlerts(wire.TestAlertsRequest(webhook="hook-3"), None)


async def test_what_an_operator_says_is_kept_over_restarts(
    database: Database, session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    async with receiving() as receiver:
        async with Place(database, session, receiver.url).running() as place:
            await eventually(place.watch._recalled.is_set)
            request = wire.SilenceAlertsRequest(actor="ada", subject="reg*", for_s=3600, reason="moving racks")
            silenced = await place.calls.SilenceAlerts(request, None)
            assert not silenced.HasField("before")
            place.facts = Facts(has_nats=False)
            await eventually(place.watch.alerts)
            (alert,) = (await place.listed()).alerts
            assert alert.silenced_until_us == silenced.silence.ends_at_us
            acked = await place.calls.AckAlert(wire.AckAlertRequest(actor="ada", id=alert.id[:8], note="mine"), None)
            assert (acked.before.acked_by, acked.alert.acked_by, acked.alert.ack_note) == ("", "ada", "mine")
        again = Place(database, session, receiver.url)
        again.facts = Facts(has_nats=False)
        async with again.running():
            await eventually(again.watch._recalled.is_set)
            listed = await again.listed()
            assert [(a.id, a.acked_by) for a in listed.alerts] == [(alert.id, "ada")]
            assert [(s.subject, s.reason) for s in listed.silences] == [("reg*", "moving racks")]
            ended = await again.calls.UnsilenceAlerts(wire.UnsilenceAlertsRequest(subject="reg*"), None)
            assert [s.id for s in ended.before] == [silenced.silence.id]
            with pytest.raises(NotFound):
                await again.calls.UnsilenceAlerts(wire.UnsilenceAlertsRequest(subject="reg*"), None)
            with pytest.raises(NotFound):
                await again.calls.ShowAlert(wire.ShowAlertRequest(id="al-none"), None)
            shown = await again.calls.ShowAlert(wire.ShowAlertRequest(id=alert.id), None)
            assert shown.alert.subject == "registry"
            assert receiver.got == [], "nobody was told while it was silenced, and who has acknowledged it knows"
        await again.store.forget(2e9, [])
        assert (await again.store.load()).silences == ()


def test_webhooks_that_cannot_be_are_refused_with_all_that_is_wrong() -> None:
    good = {"name": "ops", "url": "https://hooks.example.org/x", "secret_file": "/etc/x", "severities": ["critical"]}
    hooks, problems = read_webhooks([good], allow_link_local=False)
    assert problems == []
    assert hooks[0].wants("gpu_hot", Severity.CRITICAL)
    assert not hooks[0].wants("gpu_hot", Severity.WARNING)
    wrong: list[dict[str, Any]] = [
        good | {"name": "metadata", "url": "http://169.254.169.254/latest"},
        good | {"name": "decimal", "url": "http://2852039166/"},
        good | {"name": "ftp", "url": "ftp://x"},
        good | {"name": "user", "url": "https://a:b@example.org"},
        good | {"name": "two words"},
        good | {"name": "rules", "rules": ["gpu_hott"]},
        {"name": "bare", "url": "https://example.org"},
        good | {"name": "more", "secret": "x"},
        good,
        good,
    ]
    hooks, problems = read_webhooks(wrong, allow_link_local=False)
    assert [h.name for h in hooks] == ["ops"]
    assert len(problems) == 9, problems


async def test_a_name_that_resolves_to_a_metadata_address_is_not_connected_to(
    database: Database, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "169.254.169.254", "port": port, "family": 2, "proto": 0, "flags": 4}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    place = Place(database, session, "http://innocent.example.org/hook")
    (test,) = (await place.calls.TestAlerts(wire.TestAlertsRequest(), None)).tests
    assert not test.delivered
    assert "metadata" in test.detail
