"""The two files that a batch leaves: what its successful lines were answered, and what became of the others. Each line of
the input has one entry in one of them, in the order of the input."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from forebay.database import Database
from forebay_admin.batches.batch import OUTPUT_PURPOSE, USUAL_OUTPUT_S, Batch, Counts, Ending
from forebay_admin.batches.line import LONG_BYTES, MESSAGES, Answer, entry, fault_of, request_id_of
from forebay_admin.batches.line_store import LineEnd, line_ends
from forebay_admin.content.blob_store import BlobStore, BlobWriter
from forebay_admin.content.content import Blob, Kind, Thing

_BUFFERED_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Results:
    output: Thing | None
    """None when no line succeeded."""
    errors: Thing | None
    """None when all did."""
    counts: Counts


async def write_results(
    stack: AsyncExitStack, database: Database, blobs: BlobStore, batch: Batch, ending: Ending, now: datetime
) -> Results:
    """Blobs are whole when this returns. They go with `stack` unless they were kept, and stay without a row (which the sweep
    finds) if nothing is made of them. Raises Unavailable, NotPossible."""
    output = _File(stack, blobs, f"{batch.id}_output.jsonl")
    errors = _File(stack, blobs, f"{batch.id}_error.jsonl")
    after = 0
    while ends := await _next(database, batch.id, after):
        for end in ends:
            file = output if isinstance(end.outcome, Answer) and end.outcome.is_success else errors
            is_long = isinstance(end.outcome, Answer) and len(end.outcome.body) > LONG_BYTES
            await file.add(await asyncio.to_thread(_entry, end, ending) if is_long else _entry(end, ending))
        after = ends[-1].line
    return Results(
        await output.end(batch, now),
        await errors.end(batch, now),
        Counts(output.lines + errors.lines, output.lines, errors.lines),
    )


class _File:
    def __init__(self, stack: AsyncExitStack, blobs: BlobStore, filename: str) -> None:
        self._stack, self._blobs, self._filename = stack, blobs, filename
        self._writer: BlobWriter | None = None
        self._buffered = bytearray()
        self._size_bytes = 0
        self.lines = 0

    async def add(self, line: bytes) -> None:
        if self._writer is None:
            self._writer = await self._stack.enter_async_context(self._blobs.writing())
        self._buffered += line
        self.lines += 1
        if len(self._buffered) >= _BUFFERED_BYTES:
            await self._flush(self._writer)

    async def end(self, batch: Batch, now: datetime) -> Thing | None:
        if self._writer is None:
            return None
        await self._flush(self._writer)
        await self._writer.keep()
        keep_s = batch.order.output_expires_s or USUAL_OUTPUT_S
        return Thing(
            Kind.FILE,
            f"file-{secrets.token_hex(12)}",
            batch.order.user_id,
            None,
            now,
            now + timedelta(seconds=keep_s),
            orjson.dumps({"filename": self._filename, "purpose": OUTPUT_PURPOSE}),
            Blob(self._writer.name, self._size_bytes),
        )

    async def _flush(self, writer: BlobWriter) -> None:
        await writer.write(bytes(self._buffered))
        self._size_bytes += len(self._buffered)
        self._buffered.clear()


async def _next(database: Database, batch_id: str, after: int) -> list[LineEnd]:
    async with database.reading() as connection:
        return await line_ends(connection, batch_id, after)


def _entry(end: LineEnd, ending: Ending) -> bytes:
    id = request_id_of(end.ledger_id) if end.ledger_id is not None else f"batch_req_{secrets.token_hex(16)}"
    fault = fault_of(ending)
    return entry(id, end.custom_id, end.outcome or (fault.value, MESSAGES[fault]))
