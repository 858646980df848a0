"""Batches, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.database import Database
from forebay.service import Ground
from forebay_admin.batches.gateways import open_gateways
from forebay_admin.batches.lock import RunnerLock
from forebay_admin.batches.means import Means, Terms, make_line_counter
from forebay_admin.batches.runner import Runner
from forebay_admin.batches.turns import Turns
from forebay_admin.config import AdminSettings
from forebay_admin.content.blob_store import BlobStore
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.people.directory import Directory


@asynccontextmanager
async def open_runner(
    settings: AdminSettings,
    database_url: str,
    database: Database,
    blobs: BlobStore,
    directory: Directory,
    pepper: bytes,
    ground: Ground,
) -> AsyncIterator[Runner]:
    """Raises CannotStart."""
    terms = Terms(lines_at_once=settings.batch_lines_at_once, settle_s=settings.batch_settle_s)
    async with open_gateways(
        settings.gateway_addresses, settings.gateway_ca_file, settings.gateway_cert_file, pepper, ground.clock
    ) as gateways:
        means = Means(
            database=database,
            blobs=blobs,
            gateways=gateways,
            ledger=LedgerStore(database),
            directory=directory,
            turns=Turns(terms.lines_at_once),
            terms=terms,
            clock=ground.clock,
            lines=make_line_counter(ground.ops.metrics),
        )
        yield Runner(means, RunnerLock(database_url), ground.ops.metrics)
