"""What groups and models use, as counters for dashboards. Each replica counts the rows that it entered itself; the ledger is
what bills are made of, and no scrape asks the database for anything."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import select

from forebay.database import Database
from forebay.errors import Unavailable
from forebay.metrics import Metrics
from forebay_admin.ledger.usage_rows import LedgerRow
from forebay_admin.tables import groups

log = logging.getLogger(__name__)

NO_GROUP = "(none)"

ReadNames = Callable[[], Awaitable[Mapping[str, str]]]


class Spending:
    def __init__(self, metrics: Metrics, names: ReadNames) -> None:
        """`names`: group id → name, read when an id is met that is not known; may raise Unavailable."""
        self._read_names = names
        self._names: dict[str, str] = {"": NO_GROUP}
        self._requests = metrics.counter(
            "forebay_admin_group_requests",
            "Ledger rows of a group's requests, by how they ended.",
            ("group", "outcome"),
        )
        self._tokens = metrics.counter("forebay_admin_group_tokens", "Tokens that a group used.", ("group", "kind"))
        self._cost = metrics.counter(
            "forebay_admin_group_cost_micros",
            "What a group's requests cost, in millionths of the currency.",
            ("group",),
        )
        self._of_model = metrics.counter(
            "forebay_admin_model_cost_micros",
            "What a model's requests cost, in millionths of the currency.",
            ("model",),
        )
        self._unpriced = metrics.counter(
            "forebay_admin_unpriced_rows", "Rows of requests that ran and have no price, by why.", ("why",)
        )

    async def note(self, rows: Sequence[LedgerRow]) -> None:
        """These rows are new."""
        await self._learn({row.group_id for row in rows})
        for row in rows:
            group = self._names.get(row.group_id, row.group_id)
            self._requests.child(group, row.outcome).value += 1
            if not row.attempts:
                continue  # the model of one that never ran is whatever its client wrote
            self._tokens.child(group, "prompt").value += row.prompt_tokens
            self._tokens.child(group, "completion").value += row.completion_tokens
            if row.cost_micros is not None:
                self._cost.child(group).value += row.cost_micros
                self._of_model.child(row.model).value += row.cost_micros
            else:
                self._unpriced.child(row.unbilled or "unknown").value += 1

    async def _learn(self, ids: set[str]) -> None:
        if ids <= self._names.keys():
            return
        try:
            self._names.update(await self._read_names())
        except Unavailable as error:  # then they go by their ids for now
            log.debug("groups' names not read", extra={"action": "group_names", "why": error.message})
            return
        for group in ids - self._names.keys():
            self._names[group] = group  # of a group that is no more: it is not looked for again


def names_in(database: Database) -> ReadNames:
    async def read() -> Mapping[str, str]:
        async with database.reading() as connection:
            found = await connection.execute(select(groups.c.id, groups.c.name))
            return {row.id: row.name for row in found}

    return read
