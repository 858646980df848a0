"""Several keys for one backend: added, listed by their labels, removed; told to who watches, sealed, and audited."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from click.testing import CliRunner, Result

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay.launch import cli
from forebay_admin.fleet.credentials import MOST_HELD, Entry, find, label_for
from tests.admin.replica import Running
from tests.admin.test_operator import query

FIRST, SECOND, THIRD = "sk-first-1a2b", "sk-second-3c4d", "sk-third-5e6f"
URL = "https://api.example.com"
Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    async def invoke(*words: str, stdin: str | None = None) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    return invoke


async def update_of(stream: Any) -> Any:
    return await asyncio.wait_for(stream.read(), 30)


def held(update: Any) -> dict[str, dict[str, str]]:
    return {c.backend_id: {one.label: one.bearer for one in c.all} for c in update.credentials}


async def test_whoever_watches_hears_of_all_the_keys_of_a_backend_of_which_one_changed(admin: Running) -> None:
    operator = await admin.operator()
    one = (await operator.RegisterBackend(name="one", url=URL, bearer=FIRST)).backend.id
    await operator.RegisterBackend(name="two", url="https://two.example.com", bearer="other")
    stream = (await admin.watcher("gateway")).WatchCredentials()
    await update_of(stream)
    added = await operator.AddBackendCredential(backend="one", label="team-b", bearer=SECOND)
    assert (added.credential.label, added.held) == ("team-b", 2)
    update = await update_of(stream)
    assert held(update) == {one: {"default": FIRST, "team-b": SECOND}}
    assert update.credentials[0].bearer == FIRST, "who knows of one key only goes on with the first"
    removed = await operator.RemoveBackendCredential(backend="one", label="default")
    assert removed.held == 1
    assert held(await update_of(stream)) == {one: {"team-b": SECOND}}
    await operator.RemoveBackendCredential(backend="one", label="team-b")
    last = await update_of(stream)
    assert (held(last), list(last.removed_backend_ids)) == ({}, [one])
    assert [b.has_credential for b in (await operator.ShowBackends()).backends] == [False, True]
    stream.cancel()
    snapshot = (await admin.watcher("registry")).WatchCredentials()
    assert list(held(await update_of(snapshot)).values()) == [{"default": "other"}]
    snapshot.cancel()


async def test_no_key_is_ever_told_and_each_is_sealed_for_its_own_label(admin: Running) -> None:
    operator = await admin.operator()
    await operator.RegisterBackend(name="cloud", url=URL, bearer=FIRST)
    answers = [
        await operator.AddBackendCredential(backend="cloud", bearer=SECOND),
        await operator.AddBackendCredential(backend="cloud", bearer=THIRD),
        await operator.ListBackendCredentials(backend="cloud"),
    ]
    assert [c.label for c in answers[-1].credentials] == ["default", "key-2", "key-3"]
    assert all(abs(c.changed_at_us / 1e6 - time.time()) < 60 for c in answers[-1].credentials)
    for secret in (FIRST, SECOND, THIRD):
        assert all(secret.encode() not in answer.SerializeToString() for answer in answers)
        for (table,) in await query(admin, "SELECT tablename FROM pg_tables WHERE schemaname = 'admin'"):
            for row in await query(admin, f"SELECT t::text AS row FROM admin.{table} t"):
                assert secret not in row["row"]
                assert secret.encode().hex() not in row["row"]
    await query(
        admin,
        "UPDATE admin.backend_credentials SET sealed = (SELECT sealed FROM admin.backend_credentials "
        "WHERE label = 'key-2') WHERE label = 'key-3'",
    )
    stream = (await admin.watcher("gateway")).WatchCredentials()
    assert list(held(await update_of(stream)).values()) == [{"default": FIRST, "key-2": SECOND}]
    stream.cancel()


async def test_the_audit_says_who_did_what_to_which_label(admin: Running) -> None:
    operator = await admin.operator()
    await operator.RegisterBackend(name="cloud", url=URL, bearer=FIRST)
    await operator.AddBackendCredential(backend="cloud", label="b", bearer=SECOND)
    await operator.AddBackendCredential(backend="cloud", label="b", bearer=THIRD, replace=True)
    await operator.RemoveBackendCredential(backend="cloud", label="default")
    rows = await query(
        admin,
        "SELECT actor, action, subject, before, after FROM admin.audit_log WHERE action LIKE 'backend.credential%' "
        "ORDER BY id",
    )
    told = [tuple(row) for row in rows]
    assert [(row[0], row[1], row[2]) for row in told] == [
        ("admin", "backend.credential.add", "cloud"),
        ("admin", "backend.credential.replace", "cloud"),
        ("admin", "backend.credential.remove", "cloud"),
    ]
    assert [json.loads(row[3] or row[4])["label"] for row in told] == ["b", "b", "default"]


async def test_all_of_them_go_with_the_backend_or_when_it_moves_to_another_address(admin: Running) -> None:
    operator = await admin.operator()
    await operator.RegisterBackend(name="cloud", url=URL, bearer=FIRST)
    await operator.AddBackendCredential(backend="cloud", bearer=SECOND)
    with pytest.raises(grpc.aio.AioRpcError, match="moves to another address"):
        await operator.RegisterBackend(name="cloud", url="http://127.0.0.1:9", replace=True)
    await operator.RegisterBackend(name="cloud", url="http://127.0.0.1:9", bearer=THIRD, replace=True)
    assert [c.label for c in (await operator.ListBackendCredentials(backend="cloud")).credentials] == ["default"]
    await operator.UnregisterBackend(name="cloud")
    stream = (await admin.watcher("gateway")).WatchCredentials()
    assert held(await update_of(stream)) == {}
    stream.cancel()


async def test_keys_are_added_from_a_file_or_standard_input_listed_and_removed(forebay: Invoke, tmp_path: Path) -> None:
    (tmp_path / "first").write_text(f"{FIRST}\n")
    (tmp_path / "second").write_text(f"{SECOND}\n")
    await forebay("backend", "add", "cloud", URL, "--bearer-file", str(tmp_path / "first"))
    added = await forebay(
        "backend", "credential", "add", "cloud", "--label", "team-b", "--key-file", str(tmp_path / "second")
    )
    assert added.output == "Key team-b of cloud is kept. It has 2.\n"
    piped = await forebay("backend", "credential", "add", "cloud", "--json", stdin=f"{THIRD}\n")
    assert json.loads(piped.output)["credential"]["label"] == "key-2"
    listed = await forebay("backend", "credential", "list", "cloud")
    rows = [row.split()[0] for row in listed.output.splitlines() if " ago" in row]
    assert rows == ["default", "team-b", "key-2"]
    assert "s ago" in listed.output
    told = json.loads((await forebay("backend", "credential", "list", "cloud", "--json")).output)
    assert [set(one) for one in told] == [{"label", "changed_at"}] * 3
    again = await forebay("backend", "credential", "add", "cloud", "--label", "team-b", stdin=THIRD)
    assert again.exit_code != 0
    assert "say replace" in str(again.exception or again.output)
    replaced = await forebay("backend", "credential", "add", "cloud", "--label", "team-b", "--replace", stdin=THIRD)
    assert "is kept. It has 3." in replaced.output
    assert "It has 2." in (await forebay("backend", "credential", "remove", "cloud", "key-2")).output
    await forebay("backend", "credential", "remove", "cloud", "team-b")
    gone = await forebay("backend", "credential", "remove", "cloud", "default")
    assert gone.output == "Key default of cloud is forgotten. It has none any more, and is called without.\n"
    assert "is called without a key" in (await forebay("backend", "credential", "list", "cloud")).output
    for result in (added, piped, listed, again, replaced, gone):
        assert not any(secret in result.output for secret in (FIRST, SECOND, THIRD))


def entries(*labels: str) -> list[Entry]:
    return [Entry(label, datetime(2026, 1, 1, tzinfo=UTC)) for label in labels]


def test_labels() -> None:
    assert label_for("", [], replace=False) == "default"
    assert label_for("", entries("default", "key-3"), replace=False) == "key-2"
    assert label_for("a.b-c", entries("default"), replace=False) == "a.b-c"
    assert label_for("default", entries("default"), replace=True) == "default"
    with pytest.raises(AlreadyExists, match="say replace"):
        label_for("default", entries("default"), replace=False)
    with pytest.raises(NotFound, match="It has default"):
        label_for("b", entries("default"), replace=True)
    with pytest.raises(NotFound, match="It has none"):
        find("b", [])
    for wrong in ("two words", "-x", "x" * 64, "ü"):
        with pytest.raises(BadInput, match="cannot be a label"):
            label_for(wrong, [], replace=False)
    with pytest.raises(BadInput, match="by its label"):
        label_for("", entries("default"), replace=True)
    with pytest.raises(BadInput, match="are the most"):
        label_for("one-more", entries(*(f"k{n}" for n in range(MOST_HELD))), replace=False)
