"""Lines that were sent and whose answer is not there, since admin died or a connection broke: what became of them.

The ledger says it. A line whose row says `finished` was done and is not done again. Any other row ends that try for good,
and the line waits for another. Where no row comes, we write one ourselves: the first row of a ledger id is the one that
counts, so whatever a gateway may still say of that try is too late, and it can neither be charged nor count as done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from forebay.ledger_id import day_of, time_of
from forebay_admin.batches.batch import Order
from forebay_admin.batches.line import MESSAGES, Again, Fault, judged_by_ledger, request_id_of
from forebay_admin.batches.line_store import StartedLine, finish_line, ledger_words, let_line_go, started_lines
from forebay_admin.batches.means import Means
from forebay_admin.ledger.usage_rows import LedgerRow

log = logging.getLogger(__name__)

_BY = "admin"
"""In a row's place for the gateway."""


class Settling:
    """Of one batch's lines."""

    def __init__(self, means: Means, batch_id: str, order: Order, is_ours: Callable[[bytes], bool]) -> None:
        """`is_ours`: whether the try with this ledger id is under way here."""
        self._means = means
        self._batch_id = batch_id
        self._order = order
        self._is_ours = is_ours
        self._seen_at: dict[bytes, float] = {}
        """Ledger id → since when it is looked for, on the monotonic clock."""

    async def look(self) -> bool:
        """Settles what can be settled now; whether anything was. Raises Unavailable."""
        means = self._means
        async with means.database.reading() as connection:
            started = await started_lines(connection, self._batch_id)
            left = [line for line in started if not self._is_ours(line.ledger_id)]
            words = await ledger_words(connection, [line.ledger_id for line in left])
        now = means.clock.monotonic()
        self._seen_at = {line.ledger_id: self._seen_at.get(line.ledger_id, now) for line in left}
        settled = False
        for line in left:
            looked_s = now - self._seen_at[line.ledger_id]
            word = words.get(line.ledger_id)
            if word is not None:
                settled |= await self._judge(line, word.outcome, looked_s)
            elif looked_s >= means.terms.settle_s:
                await self._give_up(line)
        return settled

    async def _judge(self, line: StartedLine, outcome: str, looked_s: float) -> bool:
        verdict = judged_by_ledger(outcome)
        if not isinstance(verdict, Again) and looked_s < self._means.terms.grace_s:
            return False
        async with self._means.database.writing() as connection:
            if isinstance(verdict, Again):
                settled = await let_line_go(connection, line)
            else:
                settled = await finish_line(connection, line, (Fault.ANSWER_LOST.value, MESSAGES[Fault.ANSWER_LOST]))
        if settled:
            log.warning(
                "line of a batch settled by the ledger",
                extra={"action": "batch_settled", "batch": self._batch_id, "line": line.line, "outcome": outcome},
            )
        return settled

    async def _give_up(self, line: StartedLine) -> None:
        """The next look finds our row, or the gateway's that came before it."""
        order, id = self._order, line.ledger_id
        principal = self._means.directory.find(order.key_id)
        row = LedgerRow(
            day=day_of(id),
            ledger_id=UUID(bytes=id),
            request_id=request_id_of(id),
            gateway=_BY,
            generation=0,
            key_id=order.key_id,
            user_id=order.user_id,
            group_id=principal.group_id if principal is not None else "",
            pool="",
            model_requested="",
            model="",
            backend_id="",
            dialect="openai",
            route=order.endpoint,
            stream=False,
            width=0,
            outcome="cancelled",
            reason="",
            http_status=0,
            started_at=datetime.fromtimestamp(time_of(id), UTC),
            queue_ms=0,
            ttft_ms=None,
            duration_ms=0,
            prompt_tokens=0,
            cached_prompt_tokens=0,
            completion_tokens=0,
            usage_source="",
            attempts=0,
        )
        await self._means.ledger.write([row], ())
