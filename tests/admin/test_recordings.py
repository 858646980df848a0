"""Recordings on a real admin: from the bus to those who may read them, whose looks are audited; and whose are made."""

from __future__ import annotations

import asyncio
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import grpc.aio
from click.testing import CliRunner
from sqlalchemy import text

from forebay import subjects
from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.errors import Unavailable
from forebay.launch import cli
from forebay.ledger_id import new_ledger_id
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.wire.v1 import admin_pb2, key_terms_pb2, recordings_pb2, types_pb2
from forebay_admin.ledger.partitions import make_partitions, partitions_of
from forebay_admin.people.people import Role
from forebay_admin.recordings.clerk import RecordingClerk
from forebay_admin.recordings.recording_store import RECORDINGS
from forebay_admin.tables import SCHEMA
from tests.admin.replica import OperatorCalls, Running
from tests.admin.test_operator import query, refused, somebody

FULL, SAMPLED, OFF = (
    key_terms_pb2.AUDIT_POLICY_FULL,
    key_terms_pb2.AUDIT_POLICY_SAMPLED,
    key_terms_pb2.AUDIT_POLICY_OFF,
)


def recording(request_id: str, asked: str, answered: str, **fields: Any) -> recordings_pb2.Recording:
    now = time.time()
    told: dict[str, Any] = {
        "ledger_id": new_ledger_id(now),
        "request_id": request_id,
        "gateway": "g1",
        "key_id": "k1",
        "model": "tiny",
        "route": "/v1/chat/completions",
        "policy": FULL,
        "outcome": types_pb2.OUTCOME_FINISHED,
        "http_status": 200,
        "started_at_us": int(now * 1e6),
        "request": zlib.compress(asked.encode()),
        "answer": zlib.compress(answered.encode()),
        **fields,
    }
    return recordings_pb2.Recording(**told)


async def append(admin: Running, *recordings: recordings_pb2.Recording) -> None:
    payload = recordings_pb2.RecordingBatch(recordings=recordings).SerializeToString()
    async with asyncio.timeout(60):
        while True:
            try:
                return await admin.bus.append(subjects.recordings("g1"), payload)
            except Unavailable:  # admin has not made the stream yet
                await asyncio.sleep(0.02)


async def kept(reader: OperatorCalls, count: int, **sought: Any) -> list[recordings_pb2.RecordedRequest]:
    """What is found, once there are so many."""
    async with asyncio.timeout(60):
        while len(found := list((await reader.SearchRecordings(**sought)).recordings)) != count:
            await asyncio.sleep(0.05)
    return found


async def test_what_was_said_is_found_read_and_deleted_and_every_look_is_audited(admin: Running) -> None:
    operator = await admin.operator()
    auditor, other = await somebody(admin, "ann", Role.AUDITOR), await somebody(admin, "olly", Role.OPERATOR)
    users = {user.name: user.id for user in (await operator.ListUsers()).users}
    first = recording(
        "req-1", '{"content": "where do zebras sleep, ask ann@example.org"}', "standing", user_id=users["ann"]
    )
    pieces = ("in the sav", "annah")
    stream = "".join(f'data: {{"choices":[{{"delta":{{"content":"{piece}"}}}}]}}\n\n' for piece in pieces)
    second = recording("req-2", '{"content": "and lions?"}', stream, user_id=users["olly"], stream=True)
    second.started_at_us = first.started_at_us + 1
    await append(admin, first, second, recordings_pb2.Recording(request_id="poison"))
    await append(admin, first)
    found = await kept(auditor, 2)
    assert [one.request_id for one in found] == ["req-2", "req-1"]
    assert (found[1].user_name, found[1].redacted, found[1].outcome) == ("ann", 1, "finished")

    async def ids(**sought: Any) -> list[str]:
        return [one.request_id for one in (await auditor.SearchRecordings(**sought)).recordings]

    assert await ids(text="ZEBRAS sleep") == ["req-1"]
    assert await ids(text="savannah") == ["req-2"]
    assert await ids(text="zebras savannah") == []
    assert await ids(text='"do zebras"') == ["req-1"]
    assert await ids(text="'); DROP TABLE admin.recordings; --") == []
    assert await ids(user="olly", model="tiny", key_id="k1") == ["req-2"]
    assert await ids(to_us=1) == []
    page = await auditor.SearchRecordings(limit=1)
    assert [one.request_id for one in page.recordings] == ["req-2"]
    assert await ids(limit=1, page=page.next_page) == ["req-1"]
    assert "no page" in await refused(auditor.SearchRecordings(page="x"))
    shown = await auditor.ShowRecording(id="req-1")
    assert shown.request == '{"content": "where do zebras sleep, ask [e-mail]"}'
    assert shown.answer == "standing"
    assert (await auditor.ShowRecording(id=found[0].id)).answer == '{"text": "in the savannah"}'
    assert "NOT_FOUND" in await refused(auditor.ShowRecording(id="req-9"))
    for call, fields in (("SearchRecordings", {}), ("ShowRecording", {"id": "req-1"})):
        assert "PERMISSION_DENIED" in await refused(getattr(other, call)(**fields))
    assert "PERMISSION_DENIED" in await refused(auditor.DeleteRecordings(user="ann"))
    environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}

    async def forebay(*words: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, cli, ("audit", *words), None, environment)
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result.output

    assert "req-2" in await forebay("search", "savannah", "--last", "1h")
    assert '"content": "where do zebras sleep, ask [e-mail]"' in await forebay("show", "req-1")
    assert "Nothing is kept of anybody" in await forebay("policy")
    assert "2.5 %" in await forebay("policy", "sampled", "--percent", "2.5")
    assert "deleted: 1" in await forebay("forget", "--user", "ann")
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {admin.site.first_key}"}) as session:
        base = f"http://{admin.http_address}/api/v1"
        async with session.get(f"{base}/recordings?text=lions") as answer:
            assert [one["request_id"] for one in (await answer.json())["recordings"]] == ["req-2"]
        async with session.delete(f"{base}/recordings/req-2") as answer:
            assert (await answer.json())["deleted"] == 1
    assert await ids() == []
    acts = await query(
        admin, "SELECT actor, action, subject, after FROM admin.audit_log WHERE action LIKE 'recording.%' ORDER BY id"
    )
    told = [(act["actor"], act["action"], act["subject"]) for act in acts]
    assert told.count(("ann", "recording.read", "req-1")) == 1
    assert ("ann", "recording.search", "savannah") in told
    assert [one for one in told if one[1] == "recording.delete"] == [
        ("admin", "recording.delete", "ann"),
        ("admin", "recording.delete", "req-2"),
    ]


async def test_gateways_are_told_whose_requests_are_kept(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddGroup(name="org")
    await operator.AddGroup(name="team", parent="org")
    await operator.AddUser(name="alice", group="team")
    own = (await operator.CreateKey(user="alice", name="own")).key.id
    plain = (await operator.CreateKey(user="alice", name="plain")).key.id
    await operator.SetKeyTerms(key_id=own, audit=SAMPLED)
    watcher = await admin.watcher("gateway")
    stream = watcher.WatchPrincipals()
    told: dict[str, admin_pb2.KeyPrincipal] = {}

    async def hears(expected: dict[str, tuple[int, int]]) -> None:
        async with asyncio.timeout(60):
            while {
                id: (told[id].terms.audit, told[id].terms.audit_permille) for id in told if id in expected
            } != expected:
                update = await stream.read()
                assert update is not grpc.aio.EOF
                told.update({key.key_id: key for key in update.keys})

    await hears({own: (SAMPLED, 100), plain: (0, 0)})
    await operator.SetRecordingPolicy(policy={"group": "org", "policy": FULL, "permille": 250})
    await hears({own: (SAMPLED, 250), plain: (FULL, 0)})
    await operator.SetRecordingPolicy(policy={"policy": SAMPLED})
    await operator.SetRecordingPolicy(policy={"group": "team", "policy": OFF})
    await hears({own: (SAMPLED, 100), plain: (OFF, 0)})
    after = await operator.SetRecordingPolicy(policy={"group": "team"})
    assert [(policy.group, policy.permille) for policy in after.policies] == [("", 100), ("org", 250)]
    await hears({own: (SAMPLED, 250), plain: (FULL, 0)})
    await operator.ChangeGroup(name="team", parent="")
    await hears({own: (SAMPLED, 100), plain: (SAMPLED, 100)})
    assert "NOT_FOUND" in await refused(operator.SetRecordingPolicy(policy={"group": "team"}))
    assert "INVALID_ARGUMENT" in await refused(
        operator.SetRecordingPolicy(policy={"policy": SAMPLED, "permille": 1001})
    )
    assert not (await operator.ListKeys(user="alice")).keys[0].terms.audit_permille


async def test_old_days_are_dropped_and_late_ones_are_not_made_again(admin_database_url: str) -> None:
    clock, bus = ManualClock(), MemoryBus(time.time)
    today = datetime.fromtimestamp(clock.now(), UTC).date()
    days = [today - timedelta(days=ago) for ago in (0, 7, 8, 9)]
    async with open_database(admin_database_url, SCHEMA) as database:
        async with database.writing() as connection:
            await make_partitions(connection, RECORDINGS, days)
        clerk = RecordingClerk(bus, database, clock, Metrics(), keep_days=7)
        await clerk.drop_old()
        async with database.reading() as connection:
            left = set(await partitions_of(connection, RECORDINGS))
            assert left & set(days) == set(days[:2])
            acts = await connection.scalars(text("SELECT subject FROM admin.audit_log WHERE action = 'recording.drop'"))
            assert set(acts) == {str(day) for day in days[2:]}
