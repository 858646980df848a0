"""Events: told when and only when what they tell of has happened, at least once, and thresholds exactly once."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import text

from forebay import subjects
from forebay.clock import ManualClock
from forebay.database import Database, open_database
from forebay.local.certificates import open_authority, server_certificate
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.sealed import Seal
from forebay.webhook import Posted, headers
from forebay.wire.v1 import notifications_pb2
from forebay_admin.money.balance_store import newest_top_ups
from forebay_admin.notify.deliverer import Deliverer
from forebay_admin.notify.delivery_rules import PATIENCE, after
from forebay_admin.notify.delivery_store import TAKEN_FOR, DeliveryStore
from forebay_admin.notify.event_store import retry_dead
from forebay_admin.notify.kinds import SUMMARY, Kind
from forebay_admin.notify.mail import Mailer, MailServer
from forebay_admin.notify.outbox import Outbox
from forebay_admin.notify.subscription_store import add_subscription, seal_order
from forebay_admin.notify.subscriptions import key_of, order_subscription
from forebay_admin.notify.threshold_store import thresholds_of
from tests.admin.replica import until
from tests.admin.smtp_server import SmtpServer, open_smtp

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="


def today(clock: ManualClock) -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)


@dataclass
class Hook:
    """A webhook's receiver."""

    answers: list[int] = field(default_factory=list)
    """What it answers, one after the other; then 204."""
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Message id and body, of all that it was sent."""
    unsigned: int = 0
    url: str = ""
    on_told: Callable[[], None] | None = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = request.headers
        expected = headers(key_of(SECRET), told["webhook-id"], body, float(told["webhook-timestamp"]))
        self.unsigned += told["webhook-signature"] != expected["webhook-signature"]
        self.got.append((told["webhook-id"], json.loads(body)))
        if self.on_told is not None:
            self.on_told()
            await asyncio.sleep(0.1)  # so that the other replica may look
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@asynccontextmanager
async def open_hook() -> AsyncIterator[Hook]:
    hook = Hook()
    application = web.Application()
    application.router.add_post("/deep/path", hook.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/deep/path"
    try:
        yield hook
    finally:
        await runner.cleanup()


@dataclass
class House:
    database: Database
    clock: ManualClock
    bus: MemoryBus
    mailer: Mailer = field(default_factory=lambda: Mailer(None))
    seal: Seal = field(default_factory=lambda: Seal(b"s" * 32, "test"))

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.clock, mails=True)

    @property
    def store(self) -> DeliveryStore:
        return DeliveryStore(self.database, self.seal)

    async def put(self, kind: Kind = Kind.QUOTA_ASKED, user_id: str = "", **body: Any) -> str:
        async with self.database.writing() as connection:
            return await self.outbox.put(connection, kind, "user alice", {SUMMARY: "More!", **body}, user_id=user_id)

    async def subscribe(self, channel: str, address: str, *kinds: str, user_id: str = "") -> str:
        order = order_subscription(
            channel=channel,
            address=address,
            secret=SECRET if channel == "webhook" else "",
            kinds=kinds,
            own_name=None,
            has_mail=True,
        )
        async with self.database.writing() as connection:
            await add_subscription(
                connection,
                order,
                seal_order(self.seal, order),
                user_id=user_id,
                created_by="admin",
                now=today(self.clock),
            )
        return order.id

    async def states(self, subscription_id: str) -> list[str]:
        return [row.state for row in await self.rows(subscription_id)]

    async def rows(self, subscription_id: str) -> list[Any]:
        async with self.database.reading() as connection:
            query = "SELECT * FROM admin.event_deliveries WHERE subscription_id = :id ORDER BY id"
            return list(await connection.execute(text(query), {"id": subscription_id}))

    async def subscription(self, subscription_id: str) -> Any:
        async with self.database.reading() as connection:
            query = "SELECT * FROM admin.event_subscriptions WHERE id = :id"
            return (await connection.execute(text(query), {"id": subscription_id})).one()

    @asynccontextmanager
    async def delivering(self, *, replicas: int = 1) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            works = [
                asyncio.create_task(
                    Deliverer(
                        self.store, session, self.mailer, self.bus, self.clock, Metrics(), keep_days=30, look_s=0.02
                    ).keep()
                )
                for _ in range(replicas)
            ]
            try:
                yield
            finally:
                for work in works:
                    work.cancel()
                await asyncio.gather(*works, return_exceptions=True)


@pytest.fixture
async def house(admin_database_url: str) -> AsyncIterator[House]:
    clock = ManualClock()
    async with open_database(admin_database_url, "admin") as database:
        yield House(database, clock, MemoryBus(clock.now))


async def wait_for(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


async def test_an_event_is_told_when_what_it_tells_of_is_committed_and_never_else(house: House) -> None:
    async with open_hook() as hook:
        told = await house.subscribe("webhook", hook.url, "quota.*")
        other = await house.subscribe("webhook", hook.url, "budget.threshold")
        with pytest.raises(RuntimeError):
            await _undone(house)
        ids = [await house.put(n=n, odd="\0\ud800", huge=2**70) for n in range(3)]
        async with house.bus.subscribe(subjects.notice("quota.*")) as messages, house.delivering(replicas=2):
            await until(lambda: len(hook.got) >= 3)
            await wait_for(lambda: _all(house, told, "delivered"))
            heard = [notifications_pb2.Event.FromString((await anext(messages)).payload) for _ in range(3)]
        assert sorted(one for one, _ in hook.got) == sorted(ids)
        assert hook.unsigned == 0
        assert {body["data"]["n"] for _, body in hook.got} == {0, 1, 2}
        assert {(body["data"]["odd"], body["data"]["huge"]) for _, body in hook.got} == {("?", str(2**70))}
        assert await house.states(other) == []
        assert sorted(event.id for event in heard) == sorted(ids)
        assert [(event.kind, event.summary) for event in heard] == [("quota.asked", "More!")] * 3
        kept = await house.subscription(told)
        assert (kept.delivered, kept.failures, kept.address) == (3, 0, hook.url.split("/")[2])
        assert b"deep" not in kept.sealed


async def test_what_a_receiver_does_not_take_is_sent_again_under_its_id_and_what_follows_waits_for_it(
    house: House,
) -> None:
    async with open_hook() as hook:
        hook.answers = [500, 503]
        told = await house.subscribe("webhook", hook.url)
        first, second = await house.put(n=1), await house.put(n=2)
        async with house.delivering():
            await until(lambda: len(hook.got) == 1)
            await wait_for(lambda: _failing(house, told, 1))
            waiting = await house.subscription(told)
            assert waiting.last_error.endswith("answered 500.")
            assert waiting.failing_since is not None
            house.clock.advance(5.0)
            await until(lambda: len(hook.got) == 2)
            await wait_for(lambda: _failing(house, told, 2))
            house.clock.advance(20.0)
            await wait_for(lambda: _all(house, told, "delivered"))
        assert [one for one, _ in hook.got] == [first, first, first, second]
        rows = await house.rows(told)
        assert [row.attempts for row in rows] == [3, 1]
        kept = await house.subscription(told)
        assert (kept.failures, kept.failing_since, kept.last_error, kept.delivered) == (0, None, "", 2)


async def test_what_a_replica_took_that_died_is_told_by_another_and_nothing_is_taken_twice_meanwhile(
    house: House,
) -> None:
    told = await house.subscribe("webhook", "http://127.0.0.1:9/")
    ids = [await house.put(n=n) for n in range(25)]
    now = today(house.clock)
    takes = await asyncio.gather(*(house.store.take(now, ["nats"]) for _ in range(3)))
    taken = [one for take in takes for one in take.get(told, [])]
    assert len({one.id for one in taken}) == len(taken)
    taken += (await house.store.take(now, ["nats"])).get(told, [])
    assert sorted(one.event.id for one in taken) == sorted(ids)
    assert await house.store.take(now, ["nats"]) == {}
    later = now + TAKEN_FOR
    again = (await house.store.take(later, ["nats"]))[told]
    assert [one.event.id for one in again] == ids[:10]
    assert {one.attempts for one in again} == {2}
    # Who was slow and not dead says nothing any more about what another has taken.
    outcome = after(Posted(False, "", 0.0), attempts=1, since=now, failures=0, now=later, jitter=0.5)
    await house.store.note(next(one for one in taken if one.id == again[0].id), outcome, "no", later)
    assert (await house.rows(told))[0].due_at == later + TAKEN_FOR
    assert "Taken(" in repr(again[0])
    assert SECRET not in repr(again[0])


async def test_what_is_never_taken_is_dead_after_three_days_and_can_be_tried_anew(house: House) -> None:
    async with open_hook() as hook:
        hook.answers = [410, 500]
        told = await house.subscribe("webhook", hook.url)
        gone, late = await house.put(n=1), await house.put(n=2)
        async with house.delivering():
            await wait_for(lambda: _failing(house, told, 1))
            assert await house.states(told) == ["dead", "waiting"]
            hook.answers = [500]
            house.clock.advance(PATIENCE.total_seconds())
            await wait_for(lambda: _all(house, told, "dead"))
            async with house.database.writing() as connection:
                now = today(house.clock)
                assert await retry_dead(connection, event_id=gone, subscription_id="", now=now) == 1
                assert await retry_dead(connection, event_id=gone, subscription_id="", now=now) == 0
                assert await retry_dead(connection, event_id="", subscription_id=told, now=now) == 1
            await wait_for(lambda: _all(house, told, "delivered"))
        assert [one for one, _ in hook.got].count(late) == 3
        assert await house.store.numbers() == {}
        assert await house.store.forget(today(house.clock) - timedelta(days=2)) == 2
        assert await house.rows(told) == []


async def test_what_a_slow_receiver_is_not_told_in_time_is_left_to_whoever_comes_next(house: House) -> None:
    async with open_hook() as hook:
        told = await house.subscribe("webhook", hook.url)
        events = [await house.put() for _ in range(5)]
        hook.on_told = lambda: house.clock.advance(TAKEN_FOR.total_seconds() / 2)
        async with house.delivering(replicas=2):
            await wait_for(lambda: _all(house, told, "delivered"))
        # Two replicas that take turns at one receiver may overtake each other; none tells what the other told.
        assert sorted(one for one, _ in hook.got) == sorted(events)
        assert [row.attempts for row in await house.rows(told)] == [1] * 5


async def test_thresholds_are_found_of_more_budgets_and_balances_than_a_query_has_parameters(house: House) -> None:
    many = [f"budget_{number}" for number in range(40_000)]
    async with house.database.reading() as connection:
        assert await thresholds_of(connection, many) == {}
        assert await newest_top_ups(connection, many) == {}


async def test_mail_goes_over_tls_to_who_subscribed_and_to_whom_it_is_about(house: House, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = open_authority(tmp_path, now)
    served = server_certificate(authority, tmp_path, "smtp", ["localhost"], now)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(served.certificate_file, served.key_file)
    async with open_smtp(tls, ("forebay", "pass word")) as smtp:
        house.mailer = Mailer(_server(smtp, password="pass word", ca_file=authority.certificate_file))
        smtp.farewell = "421 going down"  # what was taken is taken, and not sent again
        smtp.refused = {"gone@example.com": "550 no such user", "full@example.com": "452 full"}
        ops = await house.subscribe("mail", "ops@example.com", "budget.*")
        gone = await house.subscribe("mail", "gone@example.com", "budget.*")
        full = await house.subscribe("mail", "full@example.com", "budget.*")
        async with house.database.writing() as connection:
            made = "INSERT INTO admin.groups (id, name, created_at, version) VALUES ('g', 'g', now(), 1)"
            await connection.execute(text(made))
            for number, name in enumerate(("alice@example.com", "bob")):
                await connection.execute(
                    text(
                        "INSERT INTO admin.users (id, name, group_id, role, created_at, version) "
                        "VALUES (:id, :name, 'g', 'member', now(), 1)"
                    ),
                    {"id": f"u{number}", "name": name},
                )
            await connection.execute(
                text(
                    "INSERT INTO admin.users (id, name, group_id, role, created_at, version, disabled) "
                    "VALUES ('u2', 'carol@example.com', 'g', 'member', now(), 1, true)"
                )
            )
        await house.subscribe("mail", "carol@elsewhere.example.com", user_id="u2")
        for user_id in ("u0", "u1", ""):
            await house.put(Kind.BUDGET_THRESHOLD, user_id, text="Grüße " * 300)
        await house.put(Kind.BALANCE_LOW, "u2")
        async with house.delivering():
            await wait_for(lambda: _all(house, ops, "delivered"))
            await wait_for(lambda: _all(house, "owners", "delivered"))
            await wait_for(lambda: _all(house, gone, "dead"))
            await wait_for(lambda: _failing(house, full, 1))
        assert sorted(to for to, _ in smtp.mails) == ["alice@example.com", *["ops@example.com"] * 3]
        assert smtp.broken == []
        message = smtp.mails[0][1]
        assert message["Subject"] == "[Forebay] More!"
        assert message["From"] == "forebay@example.com"
        assert "Grüße" in message.get_content()
        said = (await house.rows(gone))[0].said
        assert said == "localhost does not take mail for it: 550 no such user"

        wrong = Mailer(_server(smtp, password="wrong", ca_file=authority.certificate_file))
        taken = (await house.store.take(today(house.clock) + timedelta(days=1), ["nats"]))[full][0]
        refused = await wrong.send("ops@example.com", taken.event)
        assert (refused.is_delivered, refused.is_gone) == (False, False)
        assert refused.said == "localhost does not let us in as forebay: 535"
        unknown = await Mailer(_server(smtp, password="pass word", ca_file=None)).send("ops@example.com", taken.event)
        assert "certificate verify failed" in unknown.said
        assert len(smtp.mails) == 4


async def _undone(house: House) -> None:
    async with house.database.writing() as connection:
        await house.outbox.put(connection, Kind.QUOTA_ASKED, "user alice", {})
        raise RuntimeError("it did not happen")


async def _all(house: House, subscription_id: str, state: str) -> bool:
    states = await house.states(subscription_id)
    return bool(states) and set(states) == {state}


async def _failing(house: House, subscription_id: str, failures: int) -> bool:
    return bool((await house.subscription(subscription_id)).failures == failures)


def _server(smtp: SmtpServer, *, password: str, ca_file: Path | None) -> MailServer:
    return MailServer("localhost", smtp.port, "starttls", "forebay@example.com", "forebay", password, ca_file)
