"""What gateways, the scheduler and the registry watch: at once, on every replica, each only its own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from forebay.keys import parse_key, seal_secret
from forebay.wire.v1 import admin_pb2
from tests.admin.replica import Running, Start, WatchCalls


async def next_of(stream: Any, within_s: float = 60.0) -> Any:
    return await asyncio.wait_for(stream.read(), within_s)


async def test_a_gateway_gets_everything_it_needs_to_decide_about_a_key(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice", group="research")
    made = await operator.CreateKey(
        user="alice", allowed_models=["llama*"], expires_in_s=3600, pool="night", band_cap="BAND_BATCH"
    )
    snapshot = await next_of((await admin.watcher("gateway")).WatchPrincipals())
    assert snapshot.snapshot
    principal = next(k for k in snapshot.keys if k.key_id == made.key.id)
    whole = parse_key(made.secret)
    assert whole is not None
    pepper = admin.site.settings.pepper_file.read_bytes()
    assert principal.secret_hmac == seal_secret(pepper, whole.secret)
    assert principal.user_name == "alice"
    assert list(principal.allowed_models) == ["llama*"]
    assert (principal.pool, principal.band_cap) == ("night", made.key.band_cap)
    assert principal.expires_at_us == made.key.expires_at_us
    assert principal.role == admin_pb2.ROLE_MEMBER


async def test_a_revocation_reaches_a_watcher_of_another_replica_in_under_a_second(start: Start) -> None:
    async with start() as here, start() as there:
        operator = await here.operator()
        made = await operator.CreateKey(name="soon revoked")
        stream = (await there.watcher("gateway")).WatchPrincipals()
        snapshot = await next_of(stream)
        assert made.key.id in {k.key_id for k in snapshot.keys}
        took_s = []
        for _ in range(5):
            another = await operator.CreateKey()
            assert [k.key_id for k in (await next_of(stream)).keys] == [another.key.id]
            began = time.monotonic()
            answered = await operator.RevokeKey(key_id=another.key.id)
            delta = await next_of(stream)
            took_s.append(time.monotonic() - began)
            assert [(k.key_id, k.state) for k in delta.keys] == [(another.key.id, admin_pb2.KEY_STATE_REVOKED)]
            assert delta.version == answered.version
            assert not delta.snapshot
        assert max(took_s) < 10, took_s  # a second, were the machine never busy
        stream.cancel()


async def test_that_running_requests_are_cut_is_told_kept_over_a_restart_and_never_taken_back(start: Start) -> None:
    async with start() as admin:
        operator = await admin.operator()
        key_id = (await operator.CreateKey()).key.id
        stream = (await admin.watcher("gateway")).WatchPrincipals()
        await next_of(stream)
        for now, cut in ((False, False), (True, True), (False, True)):
            revoked_at_us = (await operator.RevokeKey(key_id=key_id, now=now)).key.revoked_at_us
            (told,) = (await next_of(stream)).keys
            assert (told.key_id, told.state, told.cut_running) == (key_id, admin_pb2.KEY_STATE_REVOKED, cut)
        listed = {key.id: key for key in (await operator.ListKeys(include_revoked=True)).keys}
        assert listed[key_id].revoked_at_us == revoked_at_us, "the first moment stands"
        stream.cancel()
    async with start() as admin:
        stream = (await admin.watcher("gateway")).WatchPrincipals()
        told = {key.key_id: key.cut_running for key in (await next_of(stream)).keys}
        assert told.pop(key_id)
        assert not any(told.values())
        stream.cancel()


async def test_a_watcher_goes_on_from_the_version_it_knows(admin: Running) -> None:
    operator = await admin.operator()
    watcher = await admin.watcher("gateway")
    stream = watcher.WatchPrincipals()
    known = (await next_of(stream)).version
    stream.cancel()
    missed = [await operator.CreateKey(), await operator.CreateKey()]
    again = watcher.WatchPrincipals(known)
    delta = await next_of(again)
    assert not delta.snapshot
    assert {k.key_id for k in delta.keys} == {made.key.id for made in missed}
    again.cancel()
    ahead = watcher.WatchPrincipals(delta.version + 1000)
    assert (await next_of(ahead)).snapshot
    ahead.cancel()


async def test_a_watcher_that_is_up_to_date_hears_so_and_then_nothing_until_something_happens(admin: Running) -> None:
    operator = await admin.operator()
    watcher = await admin.watcher("gateway")
    first = watcher.WatchPrincipals()
    known = (await next_of(first)).version
    first.cancel()
    stream = watcher.WatchPrincipals(known)
    assert await next_of(stream) == admin_pb2.PrincipalsUpdate(version=known)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0.3)
    assert not reading.done()
    user = (await operator.AddUser(name="bob")).user
    delta = await asyncio.wait_for(reading, 30)
    assert (delta.version, list(delta.keys)) == (known + 1, [])
    assert user.name == "bob"
    stream.cancel()


async def test_the_scheduler_hears_of_users_and_their_weights(admin: Running) -> None:
    stream = (await admin.watcher("scheduler")).WatchPolicy()
    assert [u.weight_milli for u in (await next_of(stream)).users] == [1000]
    added = (await (await admin.operator()).AddUser(name="alice", group="research")).user
    delta = await next_of(stream)
    assert [(u.user_id, u.group_id, u.weight_milli) for u in delta.users] == [(added.id, added.group_id, 1000)]
    stream.cancel()


async def test_a_service_watches_only_what_is_meant_for_it(admin: Running) -> None:
    for service, stream in (
        ("scheduler", "WatchPrincipals"),
        ("registry", "WatchPrincipals"),
        ("gateway", "WatchPolicy"),
        ("scheduler", "WatchModelRules"),
        ("scheduler", "WatchCredentials"),
        ("up", "WatchCredentials"),
    ):
        watcher: WatchCalls = await admin.watcher(service)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await next_of(getattr(watcher, stream)())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, (service, stream)


async def test_an_operators_key_watches_nothing(admin: Running) -> None:
    peer = await admin.peer(admin.site.first_key)
    from forebay.wire.v1 import admin_pb2_grpc

    stub: Any = admin_pb2_grpc.AdminStub(peer.channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await next_of(stub.WatchPrincipals(admin_pb2.WatchRequest(), metadata=peer.metadata))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
