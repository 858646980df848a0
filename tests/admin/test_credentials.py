"""The engines' own keys: sealed where they rest, told to gateways and the prober, and never to an operator."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

from tests.admin.replica import Running, Start
from tests.admin.test_operator import query

SECRET = "sk-of-the-cloud-7f3a"


async def credentials(admin: Running, service: str = "gateway") -> Any:
    stream = (await admin.watcher(service)).WatchCredentials()
    update = await asyncio.wait_for(stream.read(), 30)
    stream.cancel()
    return update


async def test_a_gateway_and_the_registry_are_told_in_the_clear(admin: Running) -> None:
    operator = await admin.operator()
    added = await operator.RegisterBackend(name="cloud", url="https://api.example.com", bearer=SECRET)
    for service in ("gateway", "registry"):
        told = await credentials(admin, service)
        assert [(c.backend_id, c.bearer) for c in told.credentials] == [(added.backend.id, SECRET)]


async def test_no_answer_to_an_operator_and_no_table_holds_it(admin: Running) -> None:
    operator = await admin.operator()
    added = await operator.RegisterBackend(name="cloud", url="https://api.example.com", bearer=SECRET)
    shown = (await operator.ShowBackends()).backends
    removed = await operator.UnregisterBackend(name="cloud")
    assert added.backend.has_credential
    assert [b.has_credential for b in shown] == [True]
    for answer in (added, *shown, removed):
        assert SECRET.encode() not in answer.SerializeToString()
    names = await query(admin, "SELECT tablename FROM pg_tables WHERE schemaname = 'admin'")
    for (table,) in names:
        for row in await query(admin, f"SELECT t::text AS row FROM admin.{table} t"):
            assert SECRET not in row["row"]
            assert SECRET.encode().hex() not in row["row"]


async def test_a_sealed_credential_is_worth_nothing_in_another_row(admin: Running, start: Start) -> None:
    operator = await admin.operator()
    for name in ("one", "two"):
        await operator.RegisterBackend(name=name, url=f"https://{name}.example.com", bearer=f"{SECRET}-{name}")
    await query(
        admin,
        "UPDATE admin.backend_credentials SET sealed = "
        "(SELECT sealed FROM admin.backend_credentials WHERE backend_id = 'backend-1') WHERE backend_id = 'backend-2'",
    )
    told = await credentials(admin)
    assert {c.backend_id: c.bearer for c in told.credentials} == {"backend-1": f"{SECRET}-one"}


async def test_another_seal_key_opens_none_of_them(admin: Running, start: Start) -> None:
    await (await admin.operator()).RegisterBackend(name="cloud", url="https://api.example.com", bearer=SECRET)
    other = admin.site.directory / "other-seal"
    other.write_text("o" * 64)
    async with start(seal_key_file=other) as stranger:
        assert not (await credentials(stranger)).credentials


async def test_removing_the_backend_takes_its_credential_from_those_who_watch(admin: Running) -> None:
    operator = await admin.operator()
    added = await operator.RegisterBackend(name="cloud", url="https://api.example.com", bearer=SECRET)
    stream = (await admin.watcher("gateway")).WatchCredentials()
    await asyncio.wait_for(stream.read(), 30)
    await operator.UnregisterBackend(name="cloud")
    delta = await asyncio.wait_for(stream.read(), 30)
    assert list(delta.removed_backend_ids) == [added.backend.id]
    stream.cancel()
    assert not (await credentials(admin)).credentials


async def test_a_kept_credential_is_not_sent_to_an_address_it_was_not_given_for(admin: Running) -> None:
    operator = await admin.operator()
    await operator.RegisterBackend(name="cloud", url="https://api.example.com", bearer=SECRET)
    with pytest.raises(grpc.aio.AioRpcError, match="moves to another address"):
        await operator.RegisterBackend(name="cloud", url="http://127.0.0.1:9", replace=True)
    assert admin.site.registry.known["cloud"].url == "https://api.example.com"
    await operator.RegisterBackend(name="cloud", url="https://api.example.com:443/v2", slots=9, replace=True)
    assert [c.bearer for c in (await credentials(admin)).credentials] == [SECRET]
    await operator.RegisterBackend(name="cloud", url="http://127.0.0.1:9", bearer="new", replace=True)
    assert [c.bearer for c in (await credentials(admin)).credentials] == ["new"]
