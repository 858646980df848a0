"""What a request cost, or why nothing: anybody's call about a request of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput
from forebay.wire.v1 import prices_pb2
from forebay_admin.ledger.request_rows import rows_of_request
from forebay_admin.ledger.usage_rows import LedgerRow, record_from
from forebay_admin.money.balance_store import open_accounts, parents_of_groups
from forebay_admin.money.balances import Payers
from forebay_admin.money.costs import WHY, Unbilled
from forebay_admin.money.money_wire import price_to_wire
from forebay_admin.money.price_book import current_of
from forebay_admin.money.price_store import all_versions
from forebay_admin.people.access import Actor
from forebay_admin.people.roles import Reach
from forebay_admin.wire_forms import moment

_USUAL_SPAN = timedelta(days=7)
_MOST_ROWS = 100
_BEFORE = "It was entered before costs were kept with requests; what budgets count of it is by the prices of today."


class CostDesk:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def show(self, request: prices_pb2.ShowCostRequest, actor: Actor) -> prices_pb2.ShowCostResponse:
        if not request.request_id:
            raise BadInput("Say which request is meant, by its x-request-id or its ledger id.")
        sees_all = actor.reach("ShowCost") is Reach.ALL
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        since = moment(request.since_us) if request.since_us else now - _USUAL_SPAN
        user_id = None if sees_all else actor.user_id
        async with self._database.reading() as connection:
            rows = await rows_of_request(
                connection, request.request_id, _ledger_id(request.request_id), since, user_id, _MOST_ROWS
            )
            costs = await _costs(connection, rows, now)
        return prices_pb2.ShowCostResponse(costs=costs)


async def _costs(connection: AsyncConnection, rows: Iterable[LedgerRow], now: datetime) -> list[prices_pb2.RequestCost]:
    versions = await all_versions(connection)
    current = current_of(versions, now)
    known = {version.id: version for version in versions}
    payers = Payers(await open_accounts(connection), await parents_of_groups(connection))
    costs = []
    for row in rows:
        version = known.get(row.price_version or 0)
        payer = next(payers.around(row.user_id, row.group_id, row.started_at), None)
        costs.append(
            prices_pb2.RequestCost(
                record=record_from(row),
                price=price_to_wire(version, version.id in current) if version is not None else None,
                why=_why(row),
                balance_id=payer.id if payer is not None else "",
            )
        )
    return costs


def _ledger_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _why(row: LedgerRow) -> str:
    if row.cost_micros is not None:
        return ""
    if row.unbilled is None:
        return _BEFORE
    try:
        return WHY[Unbilled(row.unbilled)]
    except ValueError:
        return f"It was not charged: {row.unbilled}."
