"""What the record of a request costs a gateway: written twice, journalled, published in batches and acknowledged."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

from benchmarks.hotpath.goals import RecordCost
from benchmarks.hotpath.loads import NotMeasured
from benchmarks.hotpath.ours import Ours
from forebay.nats_bus import open_nats_bus
from forebay_gateway.accounting import Entry, Outcome, Usage, UsageSource
from forebay_gateway.ledger.journal import Journal, open_journal
from forebay_gateway.ledger.records import RecordPublisher
from forebay_gateway.ledger.usage_record import RecordForm

_GATEWAY = "gateway-8"
"""Its NATS user has the right to publish records, and no gateway of that name runs."""
_RECORDS, _A_TURN = 20_000, 50


async def cost_of_records(ours: Ours, directory: Path) -> RecordCost:
    """Processor time of this process, from entries to acknowledgements."""
    nats = ours.wiring.nats
    assert nats is not None
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    journal = await asyncio.to_thread(open_journal, directory, 8 << 20, 64)
    try:
        writing_s = await _write(journal)
        async with open_nats_bus(nats.url, _GATEWAY, seed_file=nats.seed_file(_GATEWAY)) as bus:
            await bus.wait_connected()
            began = time.process_time()
            left = await RecordPublisher(journal, bus, _GATEWAY).flush(120)
            publishing_s = time.process_time() - began
    finally:
        await journal.leave()
    if left:
        raise NotMeasured(f"{left} records were not acknowledged in two minutes")
    return RecordCost(writing_s * 1e6 / _RECORDS, publishing_s * 1e6 / _RECORDS)


async def _write(journal: Journal) -> float:
    """Seconds of processor time."""
    form, spent_s = RecordForm(_GATEWAY, 1), 0.0
    for turn in range(_RECORDS // _A_TURN):
        entries = [_entry(f"bench-{turn}-{number}") for number in range(_A_TURN)]
        began = time.process_time()
        for entry in entries:
            journal.open(entry.ledger_id, form.write(entry))
            entry.outcome, entry.http_status = Outcome.FINISHED, 200
            entry.usage = Usage(24, 0, 64, UsageSource.ENGINE)
            journal.close(entry.ledger_id, form.write(entry))
        spent_s += time.process_time() - began
        await asyncio.sleep(0.002)  # for the journal's next segment
    return spent_s


def _entry(request_id: str) -> Entry:
    now = time.time()
    ledger_id = round(now * 1000).to_bytes(6) + uuid.uuid4().bytes[6:]
    return Entry(
        ledger_id=ledger_id,
        request_id=request_id,
        route="/v1/chat/completions",
        started_at=now,
        arrived=time.monotonic(),
        key_id="bench",
        user_id="bench",
        pool="default",
        model_requested="mock",
        model="mock",
        backend_id="bench",
        width=1,
        attempts=1,
    )
