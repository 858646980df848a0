"""Requests that admin makes for a user's batch: they count as that user's key's, in the batch band, under the ledger id that
admin has written down; each works once, and nobody else can make one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from forebay.delegation import SCHEME, VALID_S, Delegations
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import types_pb2
from forebay_gateway.callers.delegates import Delegates
from tests.fakes.engine import FakeEngine
from tests.gateway.house import OUTCOME, PEPPER, House, ask, open_house

DELEGATIONS = Delegations(PEPPER)
NOW = 1_800_000_000.0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, FakeEngine()) as opened:
        yield opened


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"{SCHEME} {token}"}


async def test_a_delegated_request_is_its_keys_and_has_the_ledger_id_it_came_with(house: House) -> None:
    ledger_id = new_ledger_id(time.time())
    token = DELEGATIONS.issue(house.key.public_id, ledger_id, time.time())
    async with house.post(ask(), headers={**bearing(token), "x-forebay-priority": "interactive"}) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"]
    (row,) = await house.rows(1)
    assert (UUID(bytes=row.ledger_id), row.key_id, row.user_id) == (UUID(bytes=ledger_id), house.key.public_id, "u-1")
    assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
    (submit,) = house.scheduler.submits
    assert (submit.ledger_id, submit.band) == (ledger_id, types_pb2.BAND_BATCH)


async def test_it_works_once(house: House) -> None:
    token = DELEGATIONS.issue(house.key.public_id, new_ledger_id(time.time()), time.time())
    async with house.post(ask(), headers=bearing(token)) as answer:
        assert answer.status == 200
    async with house.post(ask(), headers=bearing(token)) as answer:
        assert (answer.status, answer.headers["x-forebay-reason"]) == (401, "invalid_key")
        assert "used before" in (await answer.json())["error"]["message"]
    rows = await house.rows(2)
    assert [OUTCOME(row.outcome) for row in rows] == ["OUTCOME_FINISHED", "OUTCOME_REFUSED"]
    assert rows[0].ledger_id != rows[1].ledger_id


async def test_a_revoked_key_is_refused_whoever_vouches_for_it(house: House) -> None:
    house.admin.revoke(house.key)
    other = house.admin.add_key()
    while True:  # until the gateway has heard of both
        token = DELEGATIONS.issue(other.public_id, new_ledger_id(time.time()), time.time())
        async with house.post(ask(), headers=bearing(token)) as answer:
            if answer.status == 200:
                break
    token = DELEGATIONS.issue(house.key.public_id, new_ledger_id(time.time()), time.time())
    async with house.post(ask(), headers=bearing(token)) as answer:
        assert (answer.status, answer.headers["x-forebay-reason"]) == (401, "key_revoked")


async def test_a_key_that_nobody_knows_is_refused(house: House) -> None:
    token = DELEGATIONS.issue("0" * 12, new_ledger_id(time.time()), time.time())
    async with house.post(ask(), headers=bearing(token)) as answer:
        assert (answer.status, answer.headers["x-forebay-reason"]) == (401, "invalid_key")


@pytest.mark.parametrize(("pepper", "age_s"), [(b"somebody else's pepper", 0.0), (PEPPER, VALID_S + 1)])
async def test_what_admin_did_not_just_make_is_refused(house: House, pepper: bytes, age_s: float) -> None:
    token = Delegations(pepper).issue(house.key.public_id, new_ledger_id(time.time()), time.time() - age_s)
    async with house.post(ask(), headers=bearing(token)) as answer:
        assert (answer.status, answer.headers["x-forebay-reason"]) == (401, "invalid_key")
    assert house.scheduler.submits == []


@pytest.mark.parametrize("path", ["/v1/models", "/v1/responses/resp_1", "/v1/conversations/conv_1"])
async def test_it_opens_nothing_but_requests_to_engines(house: House, path: str) -> None:
    token = DELEGATIONS.issue(house.key.public_id, new_ledger_id(time.time()), time.time())
    async with house.client.get(house.url + path, headers=bearing(token)) as answer:
        assert answer.status == 401


def test_what_was_taken_is_remembered_as_long_as_it_would_work() -> None:
    delegates = Delegates(DELEGATIONS)
    token = DELEGATIONS.issue("0" * 12, new_ledger_id(NOW), NOW)
    assert delegates.take(token, NOW) is not None
    assert delegates.take(token, NOW + VALID_S - 1) is None
    assert delegates.take(token, NOW + VALID_S) is None
    assert delegates.take(DELEGATIONS.issue("0" * 12, new_ledger_id(NOW), NOW + VALID_S), NOW + VALID_S) is not None
