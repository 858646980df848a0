"""Looking through the audit log and checking it: by gRPC, by REST and from the command line, on a real admin."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc.aio
import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput
from forebay.launch import cli
from forebay.rpc import peer_address
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.chain import Anchor
from forebay_admin.cli.overview.anchor_file import AnchorFile
from forebay_admin.cli.overview.audit import changed
from tests.admin.replica import Running
from tests.admin.test_operator import refused


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:54321", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:54321", "2001:db8::1"),
        ("ipv6:[::1]:54321", "::1"),
        ("unix:/run/forebay.sock", ""),
        ("", ""),
    ],
)
def test_where_a_call_came_from(peer: str, address: str) -> None:
    assert peer_address(peer) == address


def test_what_changed_is_told_and_the_rest_is_not() -> None:
    assert changed('{"slots": 4, "pool": "a"}', '{"slots": 8, "pool": "a", "note": "x"}') == "slots 4 → 8, note x"
    assert changed("", '{"name": "x"}') == "name x"
    assert changed('{"name": "x"}', "") == "name x → null"
    assert changed("", "") == ""


async def test_the_log_is_searched_page_by_page(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice", role=admin_pb2.ROLE_AUDITOR)
    auditor = await admin.operator((await operator.CreateKey(user="alice")).secret)
    for name in ("one", "two", "axb-c", "a_b-c"):
        await operator.AddGroup(name=name)
    await operator.ChangeGroup(name="two", weight_milli=3000)

    async def actions(**wanted: Any) -> list[tuple[str, str]]:
        return [(entry.action, entry.subject) for entry in (await auditor.ListAudit(**wanted)).entries]

    everything = (await auditor.ListAudit()).entries
    assert [(entry.action, entry.subject) for entry in everything[:2]] == [("group.set", "two"), ("group.add", "a_b-c")]
    assert {entry.address for entry in everything if entry.interface == "grpc"} == {"127.0.0.1"}
    assert [entry.seq for entry in everything] == list(range(len(everything), 0, -1))
    newest = everything[0]
    assert (json.loads(newest.before)["weight_milli"], json.loads(newest.after)["weight_milli"]) == (1000, 3000)
    assert await actions(action="group.set") == [("group.set", "two")]
    assert len(await actions(action="group")) == 5
    assert await actions(action="gro") == []
    assert await actions(subject="two", action="group.add") == [("group.add", "two")]
    assert await actions(text="A_B") == [("group.add", "a_b-c")]
    assert await actions(text="3000") == [("group.set", "two")]
    assert await actions(actor="nobody") == []
    assert await actions(interface="start") == [("user.bootstrap", "admin")]
    assert await actions(address="192.0.2.9") == []
    assert await actions(to_us=1) == []
    assert await actions(from_us=newest.at_us) == [("group.set", "two")]
    pages, page = [], ""
    while True:
        told = await auditor.ListAudit(limit=2, page=page)
        pages.append([entry.id for entry in told.entries])
        if not (page := told.next_page):
            break
    assert [id for some in pages for id in some] == [entry.id for entry in everything]
    assert "There is no interface" in await refused(auditor.ListAudit(interface="pigeon"))
    assert "At most 1000" in await refused(auditor.ListAudit(limit=1001))
    assert "no page" in await refused(auditor.ListAudit(page="x"))
    # Of a stream, the first answer tells.
    with pytest.raises(grpc.aio.AioRpcError, match="The log has links 1 to"):
        await auditor.VerifyAudit(from_seq=99)


def anchor(seq: int) -> Anchor:
    return Anchor(seq, bytes([seq]) * 32)


def test_a_file_of_anchors_grows_and_is_nobody_elses(tmp_path: Path) -> None:
    path, now = tmp_path / "anchors", datetime(2026, 11, 30, 11, tzinfo=UTC)
    file = AnchorFile(path)
    assert file.last is None
    assert file.keep(anchor(1), now)
    assert AnchorFile(path).keep(anchor(3), now)
    again = AnchorFile(path)
    assert again.last == anchor(3)
    assert not again.keep(anchor(3), now)
    assert path.read_text() == f"{anchor(1)} 2026-11-30T11:00:00Z\n{anchor(3)} 2026-11-30T11:00:00Z\n"
    assert (path.stat().st_mode & 0o777, [found.name for found in tmp_path.iterdir()]) == (0o600, ["anchors"])
    path.chmod(0o620)
    with pytest.raises(BadInput, match="may be written by others"):
        AnchorFile(path)
    path.chmod(0o600)
    path.write_text(f"{anchor(1)}\n2:ab\n")
    with pytest.raises(BadInput, match=r"Line 2 of .*anchors is no anchor"):
        AnchorFile(path)
    with pytest.raises(BadInput, match="Keep this by hand: 1:01"):
        AnchorFile(tmp_path / "absent" / "anchors").keep(anchor(1), now)


async def test_a_log_that_was_cut_at_its_end_is_found_by_the_file_of_anchors(admin: Running, tmp_path: Path) -> None:
    path = tmp_path / "anchors"

    async def verify(code: int = 0) -> str:
        words = ["audit", "verify", "--anchor-file", str(path)]
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)
        assert result.exit_code == code, (result.output, result.exception)
        return f"{result.output}{result.exception or ''}"

    operator = await admin.operator()
    await operator.AddUser(name="alice")
    assert "This is the first anchor" in await verify()
    assert "Nothing was added" in await verify()
    await operator.AddUser(name="bob")
    assert "It goes on from the last anchor" in await verify()
    kept = path.read_text()
    assert [line.partition(":")[0] for line in kept.splitlines()] == ["2", "3"]
    connection = await asyncpg.connect(admin.site.database_url)
    try:
        for table in ("audit_log", "audit_chain", "audit_head"):
            await connection.execute(f"ALTER TABLE admin.{table} DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM admin.audit_log WHERE subject = 'bob'")
        await connection.execute("DELETE FROM admin.audit_chain WHERE seq = 3")
        await connection.execute(
            "UPDATE admin.audit_head SET seq = 2, hash = (SELECT hash FROM admin.audit_chain WHERE seq = 2)"
        )
    finally:
        await connection.close()
    assert "damaged (removed at link 3): there is no link 3 any more" in await verify(1)
    assert path.read_text() == kept


async def test_a_check_ends_with_an_anchor_and_finds_what_was_changed(admin: Running) -> None:
    async def forebay(*words: str, code: int = 0) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)
        assert result.exit_code == code, (words, result.output, result.exception)
        return result

    operator = await admin.operator()
    for name in ("alice", "bob"):
        await operator.AddUser(name=name)
    said = (await forebay("audit", "verify")).output
    assert "The log is what was written: 3 entries, chained without a gap." in said
    anchor = said.split("Keep elsewhere: ")[1].strip()
    await operator.AddUser(name="carol")
    assert "4 entries" in (await forebay("audit", "verify", "--anchor", anchor)).output
    assert json.loads((await forebay("audit", "verify", "--from", "2", "--to", "3", "--json")).stdout)["checked"] == 2
    assert "The log has links 1 to 4" in str((await forebay("audit", "verify", "--to", "5", code=1)).exception)
    listed = (await forebay("audit", "list", "--action", "user", "--last", "1h")).output
    assert "carol" in listed
    assert "grpc 127.0.0.1" in listed
    told = json.loads((await forebay("audit", "list", "--limit", "1", "--json")).stdout)
    assert told["entries"][0]["after"]["name"] == "carol"
    assert told["next_page"] == str(told["entries"][0]["id"])
    connection = await asyncpg.connect(admin.site.database_url)
    try:
        await connection.execute("ALTER TABLE admin.audit_log DISABLE TRIGGER USER")
        await connection.execute("UPDATE admin.audit_log SET actor = 'nobody' WHERE subject = 'bob'")
    finally:
        await connection.close()
    wrong = str((await forebay("audit", "verify", code=1)).exception)
    assert wrong == "The audit log is damaged (changed at link 3, entry 3): the entry is not what was chained."
    assert json.loads((await forebay("audit", "verify", "--json", code=1)).stdout)["fault"]["seq"] == 3
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {admin.site.first_key}"}) as session:
        base = f"http://{admin.http_address}/api/v1"
        async with session.post(f"{base}/users", json={"name": "dave"}) as made:
            assert made.status == 201
        async with session.get(f"{base}/audit?subject=dave") as answer:
            entry = (await answer.json())["entries"][0]
            assert (entry["interface"], entry["address"]) == ("rest", "127.0.0.1")
        async with session.get(f"{base}/audit/verification") as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
            assert (lines[-1]["done"], lines[-1]["fault"]["damage"]) == (True, "changed")
