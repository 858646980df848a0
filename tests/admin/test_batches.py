"""Batches from their input to their files: each line once, whatever comes in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from forebay.errors import BadInput, NotFound, NotPossible
from forebay.local.postgres import Postgres
from forebay.wire.v1 import batches_pb2 as pb
from forebay_admin.batches.input_check import InputCheck
from tests.admin.batch_gateway import BatchGateway, line
from tests.admin.batch_house import FAST, BatchHouse, Someone, open_batch_house
from tests.admin.replica import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BatchHouse]:
    url = postgres_server.superuser_url.rpartition("/")[0] + "/batches"
    direct = await asyncpg.connect(postgres_server.superuser_url)
    try:
        await direct.execute("CREATE DATABASE batches")
        async with open_batch_house(url, tmp_path_factory.mktemp("batches") / "content") as opened:
            yield opened
        await direct.execute("DROP DATABASE batches WITH (FORCE)")
    finally:
        await direct.close()


@pytest_asyncio.fixture(loop_scope="module")
async def alice(house: BatchHouse) -> AsyncIterator[Someone]:
    yield await house.someone()
    await house.sql("DELETE FROM admin.batches")  # of whatever a test left running


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(house: BatchHouse) -> AsyncIterator[BatchGateway]:
    async with house.gateway() as opened:
        yield opened


async def counted_once(someone: Someone, batch: pb.Batch, lines: int) -> tuple[list[Any], list[Any]]:
    """The entries of both files, in which each line is once."""
    output, errors = await someone.entries(batch.output_file_id), await someone.entries(batch.error_file_id)
    assert Counter(entry["custom_id"] for entry in output + errors) == {f"r-{n}": 1 for n in range(lines)}
    assert (batch.total, batch.completed, batch.failed) == (lines, len(output), len(errors))
    assert len({entry["id"] for entry in output + errors}) == lines
    return output, errors


# --- the usual way ----------------------------------------------------------------------------------------------------


async def test_a_batch_goes_from_its_input_to_its_files(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    content = b"".join(line(n, f"wrong {n}" if n == 3 else None) for n in range(10))
    async with house.running(gateway.url):
        made = await alice.create(content, metadata={"for": "tests"})
        assert (made.status, made.total, dict(made.metadata)) == ("validating", 0, {"for": "tests"})
        batch = await alice.reaches(made.id)
    assert batch.status == "completed"
    assert set(batch.entered_at_us) == {"in_progress", "finalizing", "completed"}
    output, errors = await counted_once(alice, batch, 10)
    assert [entry["custom_id"] for entry in output] == [f"r-{n}" for n in range(10) if n != 3]
    first = output[0]
    assert first["response"]["status_code"] == 200
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "To request 0"
    assert first["id"].startswith("batch_req_")
    assert first["response"]["request_id"] in gateway.request_ids
    assert first["error"] is None
    (wrong,) = errors
    assert (wrong["custom_id"], wrong["response"]["status_code"], wrong["error"]) == ("r-3", 400, None)
    assert wrong["response"]["body"]["error"]["code"] == "bad_request"
    assert max(gateway.most_running.values()) <= FAST.lines_at_once
    assert await house.sql("SELECT 1 FROM admin.batch_lines WHERE batch_id = $1", batch.id) == []
    assert house.metrics.exposition().decode().count('forebay_admin_batch_lines_total{result="succeeded"} 9.0') == 1


async def test_answers_that_are_too_large_to_be_held_together_come_one_by_one(
    house: BatchHouse, alice: Someone, gateway: BatchGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay_admin.batches.line_store._MOST_AT_ONCE", 3)
    monkeypatch.setattr("forebay_admin.batches.line_store._MOST_AT_ONCE_BYTES", 100)
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(b"".join(line(n) for n in range(8)))).id)
    output, _ = await counted_once(alice, batch, 8)
    assert [entry["custom_id"] for entry in output] == [f"r-{n}" for n in range(8)]


async def test_what_is_paid_and_of_no_use_is_done_once_and_in_the_error_file(
    house: BatchHouse, alice: Someone, gateway: BatchGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay_admin.batches.gateways.MOST_ANSWER_BYTES", 4000)
    told = {1: "invalid output 1", 2: "long " * 1000}
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(b"".join(line(n, told.get(n)) for n in range(3)))).id)
    output, errors = await counted_once(alice, batch, 3)
    assert [entry["custom_id"] for entry in output] == ["r-0"]
    invalid, long = errors
    assert invalid["response"]["body"]["error"]["code"] == "output_invalid"
    assert (long["response"], long["error"]["code"]) == (None, "answer_too_long")
    assert [gateway.finished[prompt] for prompt in told.values()] == [1, 1]


async def test_inputs_are_read_through_one_at_a_time(
    house: BatchHouse, alice: Someone, gateway: BatchGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, most, feed = 0, 0, InputCheck.feed

    def counted(check: InputCheck, piece: bytes) -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        time.sleep(0.02)
        feed(check, piece)
        reading -= 1

    monkeypatch.setattr(InputCheck, "feed", counted)
    async with house.running(gateway.url):
        made = [await alice.create(line(0)) for _ in range(3)]
        assert [(await alice.reaches(one.id)).status for one in made] == ["completed"] * 3
    assert most == 1


async def test_an_input_that_is_wrong_fails_with_every_reason(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    content = line(1) + b"no json\n" + line(1) + line(4, method="GET") + line(5, url="/v1/embeddings")
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(content)).id)
    assert (batch.status, batch.total) == ("failed", 0)
    assert [(error.line, error.code) for error in batch.errors] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "invalid_method"),
        (5, "invalid_url"),
    ]
    assert gateway.ledger_ids == []


async def test_how_far_it_is_is_told_while_it_runs(house: BatchHouse, alice: Someone, gateway: BatchGateway) -> None:
    content = b"".join(line(n, f"for ever {n}" if n > 2 else None) for n in range(5))
    async with house.running(gateway.url):
        id = (await alice.create(content)).id
        async with asyncio.timeout(30):
            while (batch := await alice.get(id)).completed < 3:
                await asyncio.sleep(0.01)
        assert (batch.status, batch.total, batch.completed, batch.failed) == ("in_progress", 5, 3, 0)


# --- what is refused at once ------------------------------------------------------------------------------------------


async def test_only_ones_own_file_with_that_purpose_can_be_an_input(house: BatchHouse, alice: Someone) -> None:
    bob = await house.someone()
    file_id = await alice.file(line(1))
    with pytest.raises(NotFound, match=f"No such File object: {file_id}"):
        await bob.create_from(file_id)
    with pytest.raises(BadInput, match="has the purpose assistants"):
        await alice.create_from(await alice.file(line(1), purpose="assistants"))
    with pytest.raises(BadInput, match="There are no batches of '/v1/rerank'"):
        await alice.create_from(file_id, endpoint="/v1/rerank")
    with pytest.raises(BadInput, match="is not one of the user"):
        await alice.create_from(file_id, key_id=bob.key_id)


async def test_another_users_batch_is_not_there(house: BatchHouse, alice: Someone) -> None:
    bob, made = await house.someone(), await alice.create(line(1))
    for attempt in (bob.get, bob.cancel):
        with pytest.raises(NotFound):
            await attempt(made.id)


async def test_so_many_at_once(house: BatchHouse, alice: Someone) -> None:
    file_id = await alice.file(line(1))
    for _ in range(8):
        await alice.create_from(file_id)
    with pytest.raises(NotPossible, match="8 of your batches have not ended"):
        await alice.create_from(file_id)


async def test_batches_are_listed_the_newest_first_page_by_page(house: BatchHouse, alice: Someone) -> None:
    made = [(await alice.create(line(n))).id for n in range(5)]
    first = await house.desk.List(pb.ListBatchesRequest(user_id=alice.user_id, limit=3), None)
    assert ([batch.id for batch in first.batches], first.has_more) == (made[:1:-1], True)
    rest = await house.desk.List(
        pb.ListBatchesRequest(user_id=alice.user_id, limit=3, after=first.batches[-1].id), None
    )
    assert ([batch.id for batch in rest.batches], rest.has_more) == (made[1::-1], False)


# --- ends before the end ----------------------------------------------------------------------------------------------


async def test_cancelling_cuts_what_is_under_way_and_keeps_what_is_done(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    content = b"".join(line(n, f"for ever {n}" if n > 1 else None) for n in range(20))
    async with house.running(gateway.url):
        id = (await alice.create(content)).id
        await until(lambda: sum(gateway.finished.values()) == 2 and gateway.running[alice.key_id] == 4)
        assert (await alice.cancel(id)).status == "cancelling"
        batch = await alice.reaches(id, within_s=2)
        await until(lambda: gateway.running[alice.key_id] == 0)
    assert batch.status == "cancelled"
    output, errors = await counted_once(alice, batch, 20)
    assert [entry["custom_id"] for entry in output] == ["r-0", "r-1"]
    assert {entry["error"]["code"] for entry in errors} == {"batch_cancelled"}
    with pytest.raises(NotPossible, match="Cannot cancel a batch with status 'cancelled'"):
        await alice.cancel(id)


async def test_one_that_nobody_runs_yet_can_be_cancelled(house: BatchHouse, alice: Someone) -> None:
    id = (await alice.create(line(1))).id
    assert (await alice.cancel(id)).status == "cancelling"
    assert (await alice.cancel(id)).status == "cancelling"
    async with house.running("http://127.0.0.1:1"):
        batch = await alice.reaches(id)
    assert (batch.status, batch.total, batch.output_file_id) == ("cancelled", 0, "")


async def test_after_a_day_the_rest_expires(house: BatchHouse, alice: Someone, gateway: BatchGateway) -> None:
    content = b"".join(line(n, f"for ever {n}" if n else None) for n in range(6))
    async with house.running(gateway.url):
        id = (await alice.create(content)).id
        await until(lambda: sum(gateway.finished.values()) == 1)
        await house.sql("UPDATE admin.batches SET expires_at = now() WHERE id = $1", id)
        batch = await alice.reaches(id)
    assert batch.status == "expired"
    output, errors = await counted_once(alice, batch, 6)
    assert len(output) == 1
    assert {entry["error"]["code"] for entry in errors} == {"batch_expired"}


async def test_a_revoked_key_ends_its_batch_with_the_reason(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.takes_s = 0.05
    async with house.running(gateway.url):
        id = (await alice.create(b"".join(line(n) for n in range(200)))).id
        await until(lambda: sum(gateway.finished.values()) >= 3)
        await alice.revoke()
        batch = await alice.reaches(id)
    assert (batch.status, [error.code for error in batch.errors]) == ("failed", ["key_revoked"])
    output, errors = await counted_once(alice, batch, 200)
    assert output
    assert {entry["error"]["code"] for entry in errors} == {"batch_failed"}


async def test_a_gateway_that_knows_of_a_revocation_first_ends_it_too(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.key_word = "key_expired"
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(line(0))).id)
    assert (batch.status, [error.code for error in batch.errors]) == ("failed", ["key_expired"])
    await counted_once(alice, batch, 1)


async def test_an_input_that_is_deleted_while_it_runs_ends_it(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.takes_s = 0.02
    async with house.running(gateway.url):
        made = await alice.create(b"".join(line(n) for n in range(300)))
        await until(lambda: sum(gateway.finished.values()) >= 3)
        await house.sql("DELETE FROM admin.content WHERE id = $1", made.input_file_id)
        for blob in [path for path in house.blobs._directory.iterdir() if path.stat().st_size > 10_000]:
            blob.unlink()
        batch = await alice.reaches(made.id)
    assert (batch.status, batch.errors[0].code) == ("failed", "input_file_unavailable")
    await counted_once(alice, batch, 300)


# --- refusals and failures --------------------------------------------------------------------------------------------


async def test_what_is_refused_for_now_is_asked_again_when_it_says(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.refusals = [(429, {"retry-after-ms": "150"}), (503, {})]
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with house.running(gateway.url, terms=replace(FAST, lines_at_once=1)):
        batch = await alice.reaches((await alice.create(b"".join(line(n) for n in range(3)))).id)
    assert (batch.status, batch.completed) == ("completed", 3)
    assert loop.time() - began >= 0.5 + 0.5
    assert sorted(await house.outcomes(alice.key_id)) == ["finished"] * 3 + ["refused"] * 2
    assert len(set(gateway.ledger_ids)) == 5


async def test_an_engine_that_fails_on_a_line_is_asked_three_times(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(line(0, "engine fails"))).id)
    assert (batch.status, batch.failed) == ("completed", 1)
    _, (entry,) = await counted_once(alice, batch, 1)
    assert entry["response"]["status_code"] == 502
    assert await house.outcomes(alice.key_id) == ["failed"] * 3


async def test_a_gateway_that_is_away_is_waited_for_and_others_are_asked(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    other = house.gateway()
    async with other:
        pass  # it has an address and is away
    async with house.running(other.url):
        id = (await alice.create(line(0))).id
        await alice.reaches(id, "in_progress")
        async with other:
            assert (await alice.reaches(id)).completed == 1
    async with house.running(other.url, gateway.url):
        batch = await alice.reaches((await alice.create(b"".join(line(n) for n in range(4)))).id)
    assert batch.completed == 4
    assert len(gateway.ledger_ids) == 4


async def test_users_take_turns(house: BatchHouse, alice: Someone, gateway: BatchGateway) -> None:
    bob = await house.someone()
    gateway.takes_s = 1.0  # however busy the machine is, two of bob's meet
    async with house.running(gateway.url):
        long = await alice.create(b"".join(line(n) for n in range(200)))
        await until(lambda: gateway.running[alice.key_id] == 4)
        short = await bob.create(b"".join(line(n, f"of bob {n}") for n in range(10)))
        await until(lambda: gateway.running[bob.key_id] >= 2)  # half of them, and more while alice is between two lines
        gateway.takes_s = 0.2
        batch = await bob.reaches(short.id)
        assert batch.completed == 10
        assert (await alice.get(long.id)).status == "in_progress"


# --- never twice ------------------------------------------------------------------------------------------------------


async def test_a_line_that_was_done_and_whose_answer_was_lost_is_not_done_again(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    content = b"".join(line(n, f"lost {n}" if n == 1 else None) for n in range(4))
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(content)).id)
    _, (entry,) = await counted_once(alice, batch, 4)
    assert (entry["custom_id"], entry["error"]["code"], entry["response"]) == ("r-1", "answer_lost", None)
    assert gateway.finished["lost 1"] == 1
    assert await house.outcomes(alice.key_id) == ["finished"] * 4


async def test_a_line_that_broke_off_is_done_again_once_the_ledger_has_said_so(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    async with house.running(gateway.url):
        batch = await alice.reaches((await alice.create(line(0, "broken off"))).id)
    assert (batch.completed, gateway.finished["broken off"]) == (1, 1)
    assert await house.outcomes(alice.key_id) == ["cancelled", "finished"]
    assert len(set(gateway.ledger_ids)) == 2


async def test_a_row_that_comes_after_the_line_was_given_up_counts_for_nothing(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    """The line was done, its answer was lost, and its row comes too late: it is done again, and the first time never was."""
    gateway.holds_rows = True
    async with house.running(gateway.url):
        id = (await alice.create(line(0, "lost at first"))).id
        await until(lambda: gateway.finished["lost at first"] == 1)
        async with asyncio.timeout(30):
            while await house.outcomes(alice.key_id) != ["cancelled"]:  # ours, for want of another
                await asyncio.sleep(0.02)
        await gateway.let_rows_go()
        batch = await alice.reaches(id)
    _, (entry,) = await counted_once(alice, batch, 1)
    assert entry["error"]["code"] == "answer_lost"  # of the second try, which was lost as well
    assert await house.outcomes(alice.key_id) == ["cancelled", "finished"]


async def test_a_runner_that_stops_is_followed_by_one_that_does_the_rest(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.takes_s = 0.03
    dice = random.Random(7)
    id = (await alice.create(b"".join(line(n) for n in range(120)))).id
    for _ in range(6):
        async with house.running(gateway.url):
            await asyncio.sleep(0.1 + dice.random() * 0.15)
    async with house.running(gateway.url):
        batch = await alice.reaches(id)
    assert batch.status == "completed"
    await counted_once(alice, batch, 120)
    outcomes = await house.outcomes(alice.key_id)
    assert outcomes.count("finished") == 120
    assert all(times == 1 for times in gateway.finished.values())


async def test_one_runs_batches_and_another_stands_by(house: BatchHouse, alice: Someone, gateway: BatchGateway) -> None:
    gateway.takes_s = 0.02
    async with house.running(gateway.url):
        id = (await alice.create(b"".join(line(n) for n in range(60)))).id
        await alice.reaches(id, "in_progress")
        async with house.running(gateway.url) as standby:
            await until(lambda: sum(gateway.finished.values()) > 10)
            assert standby._runs == {}
            # The first one's lock is taken away, as when its connection breaks; one of the two gets it.
            await house.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'forebay-admin-batches' AND datname = current_database()"
            )
            batch = await alice.reaches(id)
    await counted_once(alice, batch, 60)
    assert all(times == 1 for times in gateway.finished.values())


async def test_a_database_that_goes_away_for_a_moment_costs_no_answer(
    house: BatchHouse, alice: Someone, gateway: BatchGateway
) -> None:
    gateway.takes_s = 0.05
    async with house.running(gateway.url):
        id = (await alice.create(b"".join(line(n) for n in range(60)))).id
        for _ in range(4):
            await asyncio.sleep(0.15)
            await house.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        batch = await alice.reaches(id)
    output, _ = await counted_once(alice, batch, 60)
    assert len(output) == 60
    assert all(times == 1 for times in gateway.finished.values())
