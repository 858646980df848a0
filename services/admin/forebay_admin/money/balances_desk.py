"""Operators' calls about balances, and anybody's about the one that pays for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import AlreadyExists, BadInput, NotAllowed, NotFound
from forebay.wire.v1 import prices_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.money.balance_store import (
    account_of,
    account_with_id,
    all_accounts,
    balances_of,
    close_account,
    groups_of_users,
    newest_charges,
    newest_postings,
    open_account,
    open_accounts,
    parents_of_groups,
    post,
    posting_with,
    touch,
)
from forebay_admin.money.balances import (
    Account,
    Balance,
    Payers,
    Posting,
    PostingKind,
    demand_alone,
    demand_paid,
    demand_posting,
    kind_named,
    new_account_id,
    new_reference,
)
from forebay_admin.money.money_wire import balance_to_wire, charge_to_wire, posting_to_wire
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import group_named
from forebay_admin.people.people_store import user_named
from forebay_admin.people.roles import Reach

_USUAL_LIMIT, _MOST_LIMIT = 50, 10_000


class BalancesDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def open(self, request: prices_pb2.OpenBalanceRequest, actor: Actor) -> prices_pb2.OpenBalanceResponse:
        if request.amount_micros:
            demand_posting(PostingKind.TOP_UP, request.amount_micros, request.reference, "")
        now = self._now()
        async with self._changes.make(self._database) as change:
            user_id, group_id, name = await _owner(change.connection, request.owner)
            account = Account(new_account_id(), user_id, group_id, name, actor.name, now)
            others = await open_accounts(change.connection)
            await open_account(change, account)
            parents = await parents_of_groups(change.connection)
            users = [one.user_id for one in (account, *others.values()) if one.user_id is not None]
            groups_of = await groups_of_users(change.connection, users)
            demand_alone(account, groups_of, Payers(others, parents), parents)
            await self._note(change, actor, "balance.open", account, after={"id": account.id})
            if request.amount_micros:
                posting = self._posting(
                    account, PostingKind.TOP_UP, request.amount_micros, request.reference, "", actor
                )
                await self._post(change, account, posting, actor)
            (balance,) = await balances_of(change.connection, [account])
        return prices_pb2.OpenBalanceResponse(balance=balance_to_wire(balance), version=change.version)

    async def close(self, request: prices_pb2.CloseBalanceRequest, actor: Actor) -> prices_pb2.CloseBalanceResponse:
        now = self._now()
        async with self._changes.make(self._database) as change:
            account = await _account(change.connection, request.owner)
            if account.closed_at is not None:
                raise BadInput(f"The balance {account.id} is closed already.")
            await close_account(change, account, now)
            closed = await account_with_id(change.connection, account.id)
            (balance,) = await balances_of(change.connection, [closed])
            await self._note(change, actor, "balance.close", account, before=_facts(balance))
        return prices_pb2.CloseBalanceResponse(balance=balance_to_wire(balance), version=change.version)

    async def post(self, request: prices_pb2.PostBalanceRequest, actor: Actor) -> prices_pb2.PostBalanceResponse:
        kind = kind_named(request.kind)
        demand_posting(kind, request.amount_micros, request.reference, request.note)
        async with self._changes.make(self._database) as change:
            account = await _account(change.connection, request.owner)
            posting = self._posting(account, kind, request.amount_micros, request.reference, request.note, actor)
            before = await posting_with(change.connection, account.id, posting.reference)
            if before is None:
                kept = replace(posting, id=await self._post(change, account, posting, actor))
            else:
                kept = _demand_same(before, posting)
            (balance,) = await balances_of(change.connection, [account])
        return prices_pb2.PostBalanceResponse(
            balance=balance_to_wire(balance),
            posting=posting_to_wire(kept),
            repeated=before is not None,
            version=change.version,
        )

    async def list_balances(self, request: prices_pb2.ListBalancesRequest) -> prices_pb2.ListBalancesResponse:
        async with self._database.reading() as connection:
            accounts = await all_accounts(connection, closed_too=request.closed_too)
            balances = await balances_of(connection, accounts)
        return prices_pb2.ListBalancesResponse(balances=[balance_to_wire(balance) for balance in balances])

    async def show(self, request: prices_pb2.ShowBalanceRequest, actor: Actor) -> prices_pb2.ShowBalanceResponse:
        if request.limit > _MOST_LIMIT:
            raise BadInput(f"At most {_MOST_LIMIT} postings and hours are told at once.")
        limit = request.limit or _USUAL_LIMIT
        async with self._database.reading() as connection:
            account = await self._shown(connection, request.owner, actor)
            (balance,) = await balances_of(connection, [account])
            postings = await newest_postings(connection, account.id, limit)
            charges = await newest_charges(connection, account.id, limit)
        return prices_pb2.ShowBalanceResponse(
            balance=balance_to_wire(balance),
            postings=[posting_to_wire(posting) for posting in postings],
            charges=[charge_to_wire(row.hour, row.requests, int(row.cost_micros)) for row in charges],
        )

    async def _shown(self, connection: AsyncConnection, owner: prices_pb2.BalanceOwner, actor: Actor) -> Account:
        """Nobody named is who pays for the caller. Raises NotAllowed for another's where only one's own may be seen."""
        mine = await _payer(connection, actor)
        if owner.WhichOneof("of") is None:
            if mine is None:
                raise NotFound("Nobody has paid in advance for what you use, so that no balance can be spent.")
            return mine
        if actor.reach("ShowBalance") is not Reach.ALL:
            if mine is not None and owner.id == mine.id:
                return mine
            raise NotAllowed(f"{actor.name} may see only the balance that pays for them: name none.")
        return await _account(connection, owner)

    async def _post(self, change: Change, account: Account, posting: Posting, actor: Actor) -> int:
        (balance,) = await balances_of(change.connection, [account])
        demand_paid(balance.paid_micros + posting.amount_micros)
        posting_id = await post(change, posting)
        await touch(change, account)
        facts: Facts = {
            "kind": posting.kind.value,
            "amount_micros": posting.amount_micros,
            "reference": posting.reference,
            "paid_micros": balance.paid_micros + posting.amount_micros,
        }
        await self._note(change, actor, "balance.post", account, before=_facts(balance), after=facts)
        return posting_id

    def _posting(
        self, account: Account, kind: PostingKind, amount: int, reference: str, note: str, actor: Actor
    ) -> Posting:
        return Posting(0, account.id, kind, amount, reference or new_reference(), note, actor.name, self._now())

    async def _note(
        self,
        change: Change,
        actor: Actor,
        action: str,
        account: Account,
        *,
        before: Facts | None = None,
        after: Facts | None = None,
    ) -> None:
        act = Act(actor.name, action, str(account), actor_key_id=actor.key_id, before=before, after=after)
        await record(change.connection, act, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _owner(connection: AsyncConnection, owner: prices_pb2.BalanceOwner) -> tuple[str | None, str | None, str]:
    """(user's id, group's id, name), one of the two ids. Raises BadInput, NotFound."""
    if owner.WhichOneof("of") == "user" and owner.user:
        user = await user_named(connection, owner.user)
        return user.id, None, user.name
    if owner.WhichOneof("of") == "group" and owner.group:
        group = await group_named(connection, owner.group)
        return None, group.id, group.name
    raise BadInput("Say whose balance is meant: a user's or a group's.")


async def _account(connection: AsyncConnection, owner: prices_pb2.BalanceOwner) -> Account:
    """Raises NotFound when nothing is paid there in advance."""
    if owner.WhichOneof("of") == "id" and owner.id:
        return await account_with_id(connection, owner.id)
    user_id, group_id, name = await _owner(connection, owner)
    account = await account_of(connection, user_id=user_id, group_id=group_id)
    if account is None:
        who = f"{'user' if user_id is not None else 'group'} {name}"
        raise NotFound(f"The {who} does not pay in advance; begin that with: forebay balance open")
    return account


async def _payer(connection: AsyncConnection, actor: Actor) -> Account | None:
    if not actor.user_id:
        return None
    payers = Payers(await open_accounts(connection), await parents_of_groups(connection))
    groups_of = await groups_of_users(connection, [actor.user_id])
    return next(payers.around(actor.user_id, groups_of.get(actor.user_id, "")), None)


def _demand_same(before: Posting, again: Posting) -> Posting:
    """Raises AlreadyExists when something else was posted under that reference."""
    if (before.kind, before.amount_micros) != (again.kind, again.amount_micros):
        raise AlreadyExists(
            f"{before.reference} was posted on {before.at:%Y-%m-%d} already, as a {before.kind.value} of "
            f"{before.amount_micros} millionths: give another reference."
        )
    return before


def _facts(balance: Balance) -> Facts:
    return {"id": balance.account.id, "paid_micros": balance.paid_micros, "charged_micros": balance.charged_micros}
