"""Batches through the whole system: OpenAI's SDK, a real model; and parts that are killed while a batch runs."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, start_up

CHAT: Any = "/v1/chat/completions"
WINDOW: Any = "24h"
ENDED = ("completed", "failed", "expired", "cancelled")


def content_for(lines: int, model: str, **fields: Any) -> bytes:
    def line(number: int) -> bytes:
        body = {"model": model, "messages": [{"role": "user", "content": f"Number {number}?"}], **fields}
        return json.dumps({"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"

    return b"".join(line(number) for number in range(lines))


def create(sdk: openai.OpenAI, content: bytes) -> str:
    file = sdk.files.create(file=("in.jsonl", content), purpose="batch")
    return sdk.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window=WINDOW).id


def wait_ended(sdk: openai.OpenAI, id: str, within_s: float) -> Any:
    deadline = time.monotonic() + within_s
    while (batch := sdk.batches.retrieve(id)).status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def entries(sdk: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    assert sdk.files.retrieve(file_id).purpose == "batch_output"
    return [json.loads(entry) for entry in sdk.files.content(file_id).read().splitlines()]


def test_a_batch_is_answered_by_the_model(installation: Installation) -> None:
    with openai.OpenAI(base_url=f"{installation.gateway}/v1", api_key=installation.key) as sdk:
        id = create(
            sdk,
            content_for(6, "gemma-3-270m", max_tokens=4) + content_for(1, "gemma-3-270m", n=-1).replace(b"r-0", b"r-6"),
        )
        batch = wait_ended(sdk, id, 60)
        assert batch.status == "completed", batch
        assert batch.request_counts.to_dict() == {"total": 7, "completed": 6, "failed": 1}
        output, (wrong,) = entries(sdk, batch.output_file_id), entries(sdk, batch.error_file_id)
        assert [entry["custom_id"] for entry in output] == [f"r-{number}" for number in range(6)]
        for entry in output:
            assert entry["response"]["status_code"] == 200
            assert entry["response"]["body"]["choices"][0]["message"]["content"]
        assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("r-6", 400)
        rows = {row["request_id"]: row for row in installation.ledger_rows()}
        assert {rows[entry["id"]]["outcome"] for entry in output} == {"finished"}
        assert id in [listed.id for listed in sdk.batches.list()]


@pytest.fixture(scope="module")
def killable(fake_engine: FakeEngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two gateways before the fake engine, and an admin that soon gives up what nobody tells it of."""
    directory = tmp_path_factory.mktemp("killable")
    settings = directory / "forebay.toml"
    settings.write_text(
        f'[[registry.backends]]\nname = "fake"\nurl = "{fake_engine.url}"\nkind = "openai"\nslots = 4\n'
        "[admin]\nbatch_settle_s = 8\nbatch_lines_at_once = 6\n"
    )
    running = start_up(directory / "data", "--gateways", "2", "--no-engine", "--config", str(settings))
    yield running
    running.stop()


@pytest.mark.slow
async def test_whoever_is_killed_no_line_is_done_twice(killable: Installation) -> None:
    lines, dice = 90, random.Random(11)
    secret = await asyncio.to_thread(killable.make_key, "batcher")
    with openai.OpenAI(base_url=f"{killable.gateway_url(2)}/v1", api_key=secret, max_retries=10) as sdk:
        id = await asyncio.to_thread(create, sdk, content_for(lines, "fake-model", max_tokens=8))
        for part in ("admin", "gateway-1", "admin", "admin"):
            await asyncio.sleep(1.0 + dice.random())
            old = await asyncio.to_thread(killable.kill, part)
            await killable.wait_restarted(part, old)
        batch = await asyncio.to_thread(wait_ended, sdk, id, 120)
        assert batch.status == "completed", batch
        output = await asyncio.to_thread(entries, sdk, batch.output_file_id)
        errors = await asyncio.to_thread(entries, sdk, batch.error_file_id)
    assert Counter(entry["custom_id"] for entry in output + errors) == {f"r-{n}": 1 for n in range(lines)}
    assert {entry["error"]["code"] for entry in errors} <= {"answer_lost"}
    rows = await wait_rows(killable, {entry["id"] for entry in output + errors})
    # Every line has one request in the ledger that finished, its own, and no request finished that is no line's.
    assert {row["request_id"] for row in rows if row["outcome"] == "finished"} == {
        entry["id"] for entry in output + errors
    }
    assert len(rows) > lines


async def wait_rows(killable: Installation, finished: set[str]) -> list[dict[str, Any]]:
    """All rows of lines, once those are among the finished: what a killed admin had taken from the bus comes again later."""
    deadline = time.monotonic() + 60
    while True:
        rows = await asyncio.to_thread(killable.ledger_rows)
        rows = [row for row in rows if row["request_id"].startswith("batch_req_")]
        if finished <= {row["request_id"] for row in rows if row["outcome"] == "finished"}:
            return rows
        assert time.monotonic() < deadline, finished - {row["request_id"] for row in rows}
        await asyncio.sleep(0.2)
