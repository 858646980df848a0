"""What runs batches, on a real database and with a ledger that hears of requests as it does in earnest; gateways are
played."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from forebay.clock import SystemClock
from forebay.database import Database, open_database
from forebay.errors import Unavailable
from forebay.keys import new_key, seal_secret
from forebay.memory_bus import MemoryBus
from forebay.metrics import Metrics
from forebay.subjects import USAGE_STREAM, usage
from forebay.wire.v1 import batches_pb2 as pb
from forebay_admin.batches.desk import BatchesDesk
from forebay_admin.batches.gateways import open_gateways
from forebay_admin.batches.lock import RunnerLock
from forebay_admin.batches.means import Means, Terms, make_line_counter
from forebay_admin.batches.runner import Runner
from forebay_admin.batches.turns import Turns
from forebay_admin.changes import Changes
from forebay_admin.content.blob_store import DirectoryBlobs
from forebay_admin.content.content import Blob, ContentLimits, Kind, Place, Thing
from forebay_admin.content.content_store import put_thing, thing_at
from forebay_admin.keys.key_store import add_key, key_with_id, revoke_key
from forebay_admin.keys.keys import KeyOrder, Limits
from forebay_admin.ledger.ledger import Ledger
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.people.directory import Directory
from forebay_admin.people.people import EVERYONE, Role, UserOrder
from forebay_admin.people.people_store import add_user
from forebay_admin.service import MIGRATIONS
from forebay_admin.tables import SCHEMA
from tests.admin.batch_gateway import BatchGateway

PEPPER = b"p" * 64
ENDED = ("completed", "failed", "expired", "cancelled")
FAST = Terms(lines_at_once=4, settle_s=0.4, grace_s=0.1, look_s=0.02)
_numbers = itertools.count(1)
_LIMITS = ContentLimits(10_000, 2**40, 2**40)


@dataclass
class Someone:
    """A user with a key."""

    house: BatchHouse
    user_id: str
    key_id: str

    async def file(self, content: bytes, purpose: str = "batch") -> str:
        id = f"file-{next(_numbers):024x}"
        async with self.house.blobs.writing() as writer:
            await writer.write(content)
            await writer.keep()
        thing = Thing(
            Kind.FILE,
            id,
            self.user_id,
            None,
            self.house.now(),
            None,
            orjson.dumps({"filename": "in.jsonl", "purpose": purpose}),
            Blob(writer.name, len(content)),
        )
        async with self.house.database.writing() as connection:
            await put_thing(connection, thing, _LIMITS, self.house.now())
        return id

    async def create(self, content: bytes, **fields: Any) -> pb.Batch:
        return await self.create_from(await self.file(content), **fields)

    async def create_from(self, file_id: str, **fields: Any) -> pb.Batch:
        asked = {"endpoint": "/v1/chat/completions", "key_id": self.key_id, **fields}
        request = pb.CreateBatchRequest(user_id=self.user_id, input_file_id=file_id, **asked)
        return (await self.house.desk.Create(request, None)).batch

    async def get(self, id: str) -> pb.Batch:
        return (await self.house.desk.Get(pb.GetBatchRequest(user_id=self.user_id, id=id), None)).batch

    async def cancel(self, id: str) -> pb.Batch:
        return (await self.house.desk.Cancel(pb.CancelBatchRequest(user_id=self.user_id, id=id), None)).batch

    async def reaches(self, id: str, *statuses: str, within_s: float = 60.0) -> pb.Batch:
        async with asyncio.timeout(within_s):
            while (batch := await self.get(id)).status not in (statuses or ENDED):
                await asyncio.sleep(0.01)
        return batch

    async def entries(self, file_id: str) -> list[dict[str, Any]]:
        """Of an output or error file; none when there is no such file."""
        if not file_id:
            return []
        async with self.house.database.reading() as connection:
            thing = await thing_at(connection, Place(self.user_id, Kind.FILE, file_id), self.house.now())
        assert orjson.loads(thing.body)["purpose"] == "batch_output"
        assert thing.blob is not None
        content = b"".join([piece async for piece in self.house.blobs.read(thing.blob.name)])
        assert len(content) == thing.blob.size_bytes
        return [orjson.loads(entry) for entry in content.splitlines()]

    async def revoke(self) -> None:
        async with self.house.changes.make(self.house.database) as change:
            key = await key_with_id(change.connection, self.key_id)
            await revoke_key(change, key, self.house.now())


@dataclass
class BatchHouse:
    url: str
    database: Database
    changes: Changes
    directory: Directory
    blobs: DirectoryBlobs
    bus: MemoryBus
    ledger: LedgerStore
    desk: BatchesDesk
    clock: SystemClock = field(default_factory=SystemClock)
    runner: Runner | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def gateway(self) -> BatchGateway:
        async def publish(payload: bytes) -> None:
            while True:
                try:
                    return await self.bus.append(usage("gateway-1"), payload)
                except Unavailable:
                    await asyncio.sleep(0.01)

        return BatchGateway(PEPPER, publish)

    async def someone(self, expires_in_s: float | None = None) -> Someone:
        key = new_key()
        expires_at = self.now() + timedelta(seconds=expires_in_s) if expires_in_s is not None else None
        async with self.changes.make(self.database) as change:
            user = await add_user(change, UserOrder(f"user-{next(_numbers)}", EVERYONE, Role.MEMBER), self.now())
            await add_key(
                change,
                public_id=key.public_id,
                secret_hmac=seal_secret(PEPPER, key.secret),
                order=KeyOrder(user.name, "key", Limits(expires_at=expires_at)),
                owner=user,
                created_by="tests",
                now=self.now(),
            )
        await self.directory.caught_up(change.version)
        return Someone(self, user.id, key.public_id)

    @asynccontextmanager
    async def running(self, *urls: str, terms: Terms = FAST) -> AsyncIterator[Runner]:
        """A runner; left, it stops as admin does when it is told to."""
        self.metrics = Metrics()
        async with open_gateways(urls, None, None, PEPPER, self.clock) as gateways:
            means = Means(
                database=self.database,
                blobs=self.blobs,
                gateways=gateways,
                ledger=self.ledger,
                directory=self.directory,
                turns=Turns(terms.lines_at_once),
                terms=terms,
                clock=self.clock,
                lines=make_line_counter(self.metrics),
            )
            self.runner = Runner(means, RunnerLock(self.url), self.metrics)
            keeping = asyncio.create_task(self.runner.keep())
            try:
                yield self.runner
            finally:
                self.runner = None
                assert not keeping.done(), keeping
                keeping.cancel()
                await asyncio.wait([keeping])

    async def sql(self, query: str, *arguments: object) -> list[Any]:
        async with self.database.writing() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            return list(await driver.fetch(query, *arguments))

    async def outcomes(self, id: str) -> list[str]:
        """Of all tries of a key in the ledger, in the order in which they began."""
        rows = await self.sql("SELECT outcome FROM admin.usage_ledger WHERE key_id = $1 ORDER BY ledger_id", id)
        return [row["outcome"] for row in rows]


@asynccontextmanager
async def open_batch_house(url: str, directory: Path) -> AsyncIterator[BatchHouse]:
    clock, changes, known = SystemClock(), Changes(), Directory()
    bus = MemoryBus(clock.now)
    async with open_database(url, SCHEMA) as database, AsyncExitStack() as stack:
        await database.migrate(MIGRATIONS)
        await bus.ensure_stream(USAGE_STREAM)
        store = LedgerStore(database)
        ledger = Ledger(bus, store, clock, Metrics())
        directory.mkdir(exist_ok=True)

        def wake() -> None:
            if house.runner is not None:
                house.runner.wake()

        desk = BatchesDesk(database, known, clock, most_unfinished=8, on_change=wake)
        house = BatchHouse(url, database, changes, known, DirectoryBlobs(directory), bus, store, desk)
        tasks = [
            asyncio.create_task(work)
            for work in (ledger.keep(), known.follow(database, changes), changes.follow(url, lambda why: None))
        ]
        stack.callback(lambda: [task.cancel() for task in tasks])
        await known.loaded()
        yield house
