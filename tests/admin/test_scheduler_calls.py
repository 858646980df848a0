"""What the scheduler is asked on behalf of operators: of whichever leads."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from forebay.config import read_settings
from forebay.errors import BadSettings
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import scheduler_pb2
from forebay_admin.config import AdminSettings
from forebay_admin.queue import scheduler_client
from tests.admin.replica import Running, Start
from tests.admin.test_operator import refused


def explanation(request_id: str, ledger_id: bytes = b"") -> scheduler_pb2.Explanation:
    return scheduler_pb2.Explanation(request_id=request_id, ledger_id=ledger_id or new_ledger_id(time.time()))


async def test_the_one_that_leads_is_found_and_asked_first_from_then_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as first:
        both = ",".join(first.site.scheduler_addresses)
        one, two = first.site.schedulers
        async with start(scheduler_address=f" {both} ,") as admin:
            operator = await admin.operator()
            one.leads = False
            two.queue.epoch.revision = 7
            assert (await operator.ViewQueue()).queue.epoch.revision == 7
            assert (one.asked, two.asked) == (1, 1)
            await operator.ViewQueue()
            assert (one.asked, two.asked) == (1, 2)
            two.leads = False
            asking = asyncio.ensure_future(operator.ViewQueue())
            await asyncio.sleep(0.5)
            one.leads = True
            one.queue.epoch.revision = 8
            assert (await asking).queue.epoch.revision == 8, "a new leader is waited for"
            one.leads = False
            monkeypatch.setattr(scheduler_client, "CALL_S", 2.0)
            told = await refused(operator.ViewQueue())
            assert told == ("UNAVAILABLE: No scheduler answers as the one that leads: This scheduler is a standby.")


async def test_a_scheduler_that_is_away_is_said_and_another_that_leads_is_asked(start: Start) -> None:
    async with start(scheduler_address="127.0.0.1:1") as admin:
        assert "No scheduler answers as the one that leads" in await refused((await admin.operator()).ViewQueue())
        found = admin.site.scheduler_addresses[0]
    async with start(scheduler_address=f"127.0.0.1:1,{found}") as admin:
        assert (await (await admin.operator()).ViewQueue()).HasField("queue")


async def test_ids_come_with_the_names_that_people_know_even_when_the_registry_is_away(start: Start) -> None:
    async with start() as admin:
        operator = await admin.operator()
        await operator.RegisterBackend(name="big-gpu", url="http://127.0.0.1:1")
        alice = (await operator.AddUser(name="alice", group="research")).user
        names = (await operator.ViewQueue()).names
        assert names.users[alice.id] == "alice"
        assert names.groups[alice.group_id] == "research"
        assert dict(names.backends) == {"backend-1": "big-gpu"}
    async with start(registry_address="127.0.0.1:1") as admin:
        names = (await (await admin.operator()).ViewQueue()).names
        assert (names.users[alice.id], dict(names.backends)) == ("alice", {})


async def test_a_request_is_found_by_its_id_and_by_its_ledger_id(admin: Running) -> None:
    operator = await admin.operator()
    ledger_id = new_ledger_id(time.time())
    uuid_like = "0190163d-8694-739b-aea5-966c26f8ad91"
    admin.site.scheduler.remembered = [explanation("mine", ledger_id), explanation(uuid_like)]
    for asked in ("mine", str(UUID(bytes=ledger_id)), ledger_id.hex()):
        found = (await operator.ViewExplanation(request_id=asked)).explanations
        assert [one.ledger_id for one in found] == [ledger_id]
    assert (await operator.ViewExplanation(request_id=uuid_like)).explanations[0].request_id == uuid_like
    told = await refused(operator.ViewExplanation(request_id="gone"))
    assert told.startswith("NOT_FOUND: The scheduler remembers no request gone")
    assert (await refused(operator.ViewExplanation())).startswith("INVALID_ARGUMENT: Give a request's id")


async def test_what_the_scheduler_knows_is_dumped_whole(admin: Running) -> None:
    admin.site.scheduler.remembered = [explanation("mine")]
    admin.site.scheduler.queue.epoch.revision = 3
    dump = (await (await admin.operator()).ViewDump()).dump
    assert (dump.queue.epoch.revision, dump.recent[0].request_id) == (3, "mine")


@pytest.mark.parametrize("address", ["", ",", "nonsense", "127.0.0.1:8093,http://x:1"])
def test_an_address_that_is_none_stops_admin_before_it_starts(address: str) -> None:
    needed = {"token_file": "t", "callers_file": "c", "pepper_file": "p", "seal_key_file": "s"}
    with pytest.raises(BadSettings, match="scheduler_address: "):
        read_settings(AdminSettings, "admin", file={"admin": {**needed, "scheduler_address": address}}, environ={})
