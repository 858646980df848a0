"""What every batch is run with: admin's parts, handed on together; and patience with a database that is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.metrics import Counter, Metrics
from forebay_admin.batches.gateways import Gateways
from forebay_admin.batches.turns import Turns
from forebay_admin.content.blob_store import BlobStore
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.people.directory import Directory
from forebay_admin.unbroken import to_its_end

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How batches are run."""

    lines_at_once: int = 16
    """Of all batches together."""
    settle_s: float = 300.0
    """How long the ledger is waited for that tells what became of a line."""
    grace_s: float = 5.0
    """How long whoever ran a line before may still bring its answer."""
    look_s: float = 1.0
    """How often it is looked what has changed."""


@dataclass(frozen=True, slots=True)
class Means:
    database: Database
    blobs: BlobStore
    gateways: Gateways
    ledger: LedgerStore
    directory: Directory
    turns: Turns
    terms: Terms
    clock: Clock
    lines: Counter
    """By what became of a try."""
    checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Held while an input is read through: one of all batches' at a time, since each keeps a processor busy."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


def make_line_counter(metrics: Metrics) -> Counter:
    return metrics.counter(
        "forebay_admin_batch_lines", "Lines of batches that were sent, by what came of it.", ("result",)
    )


async def patiently(step: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What `step` gives, when Postgres is there again. It may have been done before, unheard. Cancelled, it lets a step that
    has begun come to its end."""
    delay_s = _FIRST_RETRY_S
    while True:
        try:
            return await to_its_end(step())
        except Unavailable as error:
            log.debug("batch waits for the database", extra={"action": "batch_wait", "why": error.message})
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, _LAST_RETRY_S)
