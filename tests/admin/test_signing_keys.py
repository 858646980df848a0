"""Public keys that sign calls: who may let which key trust them, what gateways hear of it, what the command line says."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from click.testing import CliRunner, Result

from forebay.errors import AlreadyExists, BadInput, NotAllowed, NotPossible
from forebay.launch import cli
from forebay.signing_keys import fingerprint, to_line
from forebay.wire.v1 import admin_pb2
from forebay_admin.keys.keys import Band, Key, Limits
from forebay_admin.keys.signing_keys import (
    MOST_PER_KEY,
    SigningKey,
    demand_free,
    demand_no_wider,
    demand_trusting,
    order_trust,
)
from tests.admin.replica import OperatorCalls, Running, Start

Invoke = Callable[..., Awaitable[Result]]
NOW = datetime(2027, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    """`await forebay("key", "trusted")`, as the first admin."""

    async def invoke(*words: str, token: str | None = None, stdin: str | None = None) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": token or admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    return invoke


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


async def refused(call: Any) -> str:
    """The words of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return f"{error.value.code().name}: {error.value.details()}"


async def somebody(admin: Running, name: str, **fields: Any) -> tuple[OperatorCalls, str]:
    """With a key of their own, whose id is given."""
    operator = await admin.operator()
    await operator.AddUser(name=name)
    made = await operator.CreateKey(user=name, name="laptop", **fields)
    return await admin.operator(made.secret), made.key.id


async def next_of(stream: Any) -> admin_pb2.PrincipalsUpdate:
    update: admin_pb2.PrincipalsUpdate = await asyncio.wait_for(stream.read(), 30)
    return update


def some_key() -> bytes:
    return os.urandom(32)


# --- the operator's calls -------------------------------------------------------------------------------------------


async def test_a_user_lets_their_key_trust_public_keys_sees_them_and_takes_it_back(admin: Running) -> None:
    alice, key_id = await somebody(admin, "alice")
    one, two = some_key(), some_key()
    added = (await alice.AddSigningKey(key_id=key_id, public_key=one, name=" laptop ")).signing_key
    assert (added.fingerprint, added.public_key, added.name) == (fingerprint(one), to_line(one), "laptop")
    assert (added.key_id, added.key_name, added.user_name, added.created_by) == (key_id, "laptop", "alice", "alice")
    await alice.AddSigningKey(key_id=key_id, public_key=two)
    listed = (await alice.ListSigningKeys()).signing_keys
    assert [known.fingerprint for known in listed] == [fingerprint(one), fingerprint(two)]
    assert listed[0] == added
    gone = (await alice.RemoveSigningKey(fingerprint=fingerprint(one))).signing_key
    assert gone == added
    assert [known.name for known in (await alice.ListSigningKeys()).signing_keys] == [""]
    again = await refused(alice.RemoveSigningKey(fingerprint=fingerprint(one)))
    assert again == f"NOT_FOUND: No key of yours trusts the public key {fingerprint(one)!r}."


async def test_gateways_hear_of_it_within_a_second_on_every_replica(start: Start) -> None:
    async with start() as here, start() as there:
        operator = await here.operator()
        key_id = (await operator.CreateKey()).key.id
        stream = (await there.watcher("gateway")).WatchPrincipals()
        assert {key.key_id: list(key.signing_keys) for key in (await next_of(stream)).keys}[key_id] == []
        one, two = sorted((some_key(), some_key()), key=fingerprint)
        took_s = []
        for call, fields, trusted in (
            (operator.AddSigningKey, {"key_id": key_id, "public_key": two}, [two]),
            (operator.AddSigningKey, {"key_id": key_id, "public_key": one}, [one, two]),
            (operator.RemoveSigningKey, {"fingerprint": fingerprint(two)}, [one]),
        ):
            began = time.monotonic()
            answered = await call(**fields)
            delta = await next_of(stream)
            took_s.append(time.monotonic() - began)
            assert [(key.key_id, list(key.signing_keys)) for key in delta.keys] == [(key_id, trusted)]
            assert (delta.version, delta.snapshot) == (answered.version, False)
        assert max(took_s) < 10, took_s  # a second, were the machine never busy
        stream.cancel()
        snapshot = (await here.watcher("gateway")).WatchPrincipals()
        assert {key.key_id: list(key.signing_keys) for key in (await next_of(snapshot)).keys}[key_id] == [one]
        await operator.RevokeKey(key_id=key_id)
        (told_revoked,) = (await next_of(snapshot)).keys
        assert (told_revoked.state, list(told_revoked.signing_keys)) == (admin_pb2.KEY_STATE_REVOKED, [one])
        snapshot.cancel()


async def test_a_public_key_is_trusted_once_and_others_do_not_learn_by_whom(admin: Running) -> None:
    operator = await admin.operator()
    alice, alices = await somebody(admin, "alice")
    bob, bobs = await somebody(admin, "bob")
    one = some_key()
    await alice.AddSigningKey(key_id=alices, public_key=one)
    for who, key_id in ((alice, alices), (operator, bobs)):
        words = await refused(who.AddSigningKey(key_id=key_id, public_key=one))
        assert words == (
            f"ALREADY_EXISTS: The key {alices} (laptop) of alice trusts this public key already. "
            f"To change that: `forebay key untrust {fingerprint(one)}`."
        )
    words = await refused(bob.AddSigningKey(key_id=bobs, public_key=one))
    assert words.startswith("ALREADY_EXISTS: Another key trusts this public key already, and it is none of yours.")
    assert "alice" not in words
    assert alices not in words
    assert "of yours" in await refused(bob.AddSigningKey(key_id=alices, public_key=some_key()))
    assert "NOT_FOUND" in await refused(bob.RemoveSigningKey(fingerprint=fingerprint(one)))
    assert "PERMISSION_DENIED" in await refused(bob.ListSigningKeys(user="alice"))
    assert list((await bob.ListSigningKeys()).signing_keys) == []
    assert [known.user_name for known in (await operator.ListSigningKeys()).signing_keys] == ["alice"]
    await operator.RemoveSigningKey(fingerprint=fingerprint(one))
    await bob.AddSigningKey(key_id=bobs, public_key=one)


async def test_after_a_revocation_another_key_of_the_same_user_takes_its_place(admin: Running) -> None:
    operator = await admin.operator()
    alice, first = await somebody(admin, "alice")
    one = some_key()
    await alice.AddSigningKey(key_id=first, public_key=one)
    second = await operator.CreateKey(user="alice", name="second")
    bob, bobs = await somebody(admin, "bob")
    await operator.RevokeKey(key_id=first)
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    await next_of(stream)
    assert "ALREADY_EXISTS" in await refused(bob.AddSigningKey(key_id=bobs, public_key=one))
    assert "was revoked" in await refused(operator.AddSigningKey(key_id=first, public_key=some_key()))
    await (await admin.operator(second.secret)).AddSigningKey(key_id=second.key.id, public_key=one)
    delta = {key.key_id: list(key.signing_keys) for key in (await next_of(stream)).keys}
    assert delta == {first: [], second.key.id: [one]}
    stream.cancel()


async def test_a_narrow_key_lets_no_wider_one_trust(admin: Running) -> None:
    operator = await admin.operator()
    alice, narrow = await somebody(admin, "alice", allowed_models=["llama*"], expires_in_s=3600)
    wide = (await operator.CreateKey(user="alice", name="wide")).key.id
    assert "PERMISSION_DENIED" in await refused(alice.AddSigningKey(key_id=wide, public_key=some_key()))
    await alice.AddSigningKey(key_id=narrow, public_key=some_key())
    await operator.AddSigningKey(key_id=wide, public_key=some_key())


async def test_both_acts_are_audited(admin: Running) -> None:
    alice, key_id = await somebody(admin, "alice")
    one = some_key()
    await alice.AddSigningKey(key_id=key_id, public_key=one, name="laptop")
    await alice.RemoveSigningKey(fingerprint=fingerprint(one))
    connection = await asyncpg.connect(admin.site.database_url)
    rows = await connection.fetch(
        "SELECT actor, actor_key_id, action, subject, before, after FROM admin.audit_log"
        " WHERE action LIKE '%trust' ORDER BY id"
    )
    await connection.close()
    facts = {"name": "laptop", "key": key_id, "key_name": "laptop", "user": "alice"}
    assert [(r["actor"], r["actor_key_id"], r["subject"]) for r in rows] == [("alice", key_id, fingerprint(one))] * 2
    assert [r["action"] for r in rows] == ["key.trust", "key.untrust"]
    assert (rows[0]["before"], rows[1]["after"]) == (None, None)
    assert json.loads(rows[0]["after"]) == json.loads(rows[1]["before"]) == facts


# --- the command line -----------------------------------------------------------------------------------------------


async def test_the_command_line_reads_the_file_that_ollama_wrote(forebay: Invoke, tmp_path: Path) -> None:
    key_id = told(await forebay("key", "create", "--name", "laptop", "--json"))["key"]["id"]
    one, two = some_key(), some_key()
    (tmp_path / "id_ed25519.pub").write_text(to_line(one) + "\n")
    done = await forebay("key", "trust", key_id, str(tmp_path / "id_ed25519.pub"), "--name", "mac")
    assert done.output == f"Key {key_id} (laptop) of admin trusts {fingerprint(one)}.\n"
    piped = told(await forebay("key", "trust", key_id, "-", "--json", stdin=f"{to_line(two)} alice@work\n"))
    assert (piped["signing_key"]["fingerprint"], piped["signing_key"]["name"]) == (fingerprint(two), "alice@work")

    listed = (await forebay("key", "trusted")).output
    row = next(line for line in listed.splitlines() if fingerprint(one) in line)
    assert [word for word in ("mac", key_id, "laptop", "admin", "active") if word not in row] == []
    plain = told(await forebay("key", "trusted", "--user", "admin", "--json"))
    assert [(p["fingerprint"], p["public_key"], p["key_id"]) for p in plain] == [
        (fingerprint(one), to_line(one), key_id),
        (fingerprint(two), to_line(two), key_id),
    ]

    gone = await forebay("key", "untrust", str(tmp_path / "id_ed25519.pub"))
    assert gone.output == f"Key {key_id} (laptop) of admin trusts {fingerprint(one)} no more.\n"
    assert told(await forebay("key", "untrust", fingerprint(two), "--json"))["signing_key"]["name"] == "alice@work"
    assert "No public keys are trusted." in (await forebay("key", "trusted")).output


async def test_what_is_no_public_key_never_leaves_the_machine(forebay: Invoke, tmp_path: Path) -> None:
    for text, words in (
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "This is a private key"),
        (b"ssh-rsa AAAAB3NzaC1yc2E= x\n", "'ssh-rsa' begins this one"),
        (b"", "this is empty"),
        (b"\xff\xfe\x00", "This is no text"),
    ):
        (tmp_path / "file").write_bytes(text)
        for command in (("trust", "000000000000"), ("untrust",)):
            result = await forebay("key", *command, str(tmp_path / "file"))
            assert isinstance(result.exception, BadInput), result.output
            assert words in str(result.exception)
    missing = await forebay("key", "untrust", str(tmp_path / "nothing"))
    assert isinstance(missing.exception, BadInput)


# --- the rules, without a database ----------------------------------------------------------------------------------

KEY = Key("5f0c2d9a41be", "laptop", "user_1", "alice", Limits(), "admin", NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"public_key": b""},
        {"public_key": bytes(33)},
        {"name": "x" * 101},
        {"name": "a\x1b[31m"},
        {"key_id": "../etc"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    order: dict[str, Any] = {"key_id": KEY.public_id, "public_key": bytes(32), "name": "laptop", **wrong}
    with pytest.raises(BadInput):
        order_trust(**order)


def test_a_key_that_is_good_for_nothing_trusts_nobody_and_none_trusts_too_many() -> None:
    demand_trusting(KEY, MOST_PER_KEY - 1, NOW)
    for key, trusts in (
        (Key("k", "", "u", "", Limits(), "", NOW, revoked_at=NOW), 0),
        (Key("k", "", "u", "", Limits(), "", NOW, user_disabled=True), 0),
        (Key("k", "", "u", "", Limits(expires_at=NOW), "", NOW), 0),
        (KEY, MOST_PER_KEY),
    ):
        with pytest.raises(NotPossible):
            demand_trusting(key, trusts, NOW)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(band_cap=Band.BATCH, pool="night", expires_at=NOW),
        Limits(("llama*", "qwen*"), Band.BATCH, "night", NOW),
        Limits(("llama*",), Band.INTERACTIVE, "night", NOW),
        Limits(("llama*",), Band.BATCH, "", NOW),
        Limits(("llama*",), Band.BATCH, "night"),
        Limits(("llama*",), Band.BATCH, "night", NOW + timedelta(seconds=1)),
    ],
)
def test_wider_is_wider_in_any_respect(limits: Limits) -> None:
    held = Limits(("llama*",), Band.BATCH, "night", NOW)
    demand_no_wider(held, held)
    demand_no_wider(Limits(("llama*",), Band.BATCH, "night", NOW - timedelta(seconds=1)), held)
    with pytest.raises(NotAllowed):
        demand_no_wider(limits, held)


def test_only_a_revoked_key_of_the_same_user_makes_room() -> None:
    def held_by(user_id: str, revoked_at: datetime | None) -> SigningKey:
        return SigningKey(bytes(32), "", Key("old", "", user_id, "x", Limits(), "", NOW, revoked_at), "x", NOW)

    demand_free(held_by("user_1", NOW), KEY, sees_all=False)
    for user_id, revoked_at in (("user_1", None), ("user_2", NOW), ("user_2", None)):
        for sees_all in (False, True):
            with pytest.raises(AlreadyExists):
                demand_free(held_by(user_id, revoked_at), KEY, sees_all=sees_all)
