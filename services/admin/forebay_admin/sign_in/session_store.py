"""Sessions and narrow tokens in Postgres: never their secrets, only their HMACs. Each function works on the caller's
transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound
from forebay_admin.changes import Change
from forebay_admin.people.people import Role, User
from forebay_admin.people.permissions import Permission, known_permissions
from forebay_admin.sign_in.bearers import BearerKind
from forebay_admin.sign_in.sessions import MOST_SESSIONS, Badge, Lives, Session, SessionKind, Token, Visitor
from forebay_admin.sign_in.tables import admin_tokens, device_codes, sessions
from forebay_admin.tables import users

_SESSION = select(
    sessions.c.id,
    sessions.c.user_id,
    users.c.name.label("user_name"),
    sessions.c.kind,
    sessions.c.way,
    sessions.c.created_at,
    sessions.c.last_seen_at,
    sessions.c.expires_at,
    sessions.c.address,
    sessions.c.user_agent,
).join_from(sessions, users, sessions.c.user_id == users.c.id)
_TOKEN = select(
    admin_tokens.c.id,
    admin_tokens.c.name,
    admin_tokens.c.user_id,
    users.c.name.label("user_name"),
    admin_tokens.c.permissions,
    admin_tokens.c.created_by,
    admin_tokens.c.created_at,
    admin_tokens.c.expires_at,
    admin_tokens.c.revoked_at,
    admin_tokens.c.last_used_at,
).join_from(admin_tokens, users, admin_tokens.c.user_id == users.c.id)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def add_session(
    change: Change,
    *,
    session_id: str,
    secret_hmac: bytes,
    user: User,
    visitor: Visitor,
    way: str,
    expires_at: datetime,
    now: datetime,
) -> Session:
    """The user's session, in place of the one that was not used for the longest when they have too many."""
    held = list(
        await change.connection.scalars(
            select(sessions.c.id)
            .where(sessions.c.user_id == user.id, sessions.c.ended_at.is_(None), sessions.c.expires_at > now)
            .order_by(sessions.c.last_seen_at.desc(), sessions.c.id)
        )
    )
    await _end(change, held[MOST_SESSIONS - 1 :], now)
    await change.connection.execute(
        insert(sessions).values(
            id=session_id,
            user_id=user.id,
            secret_hmac=secret_hmac,
            kind=visitor.kind.value,
            way=way,
            address=visitor.address,
            user_agent=visitor.told_agent,
            created_at=now,
            last_seen_at=now,
            expires_at=expires_at,
            version=change.version,
        )
    )
    return Session(
        session_id,
        user.id,
        user.name,
        visitor.kind,
        way,
        now,
        now,
        expires_at,
        visitor.address,
        visitor.told_agent,
    )


async def list_sessions(
    connection: AsyncConnection, lives: Lives, now: datetime, *, user_id: str | None
) -> list[Session]:
    """Those that still let somebody in, the last used first; of one user, or of all."""
    query = _SESSION.where(sessions.c.ended_at.is_(None), sessions.c.expires_at > now)
    if user_id is not None:
        query = query.where(sessions.c.user_id == user_id)
    found = [_session(row) for row in await connection.execute(query.order_by(sessions.c.last_seen_at.desc()))]
    return [one for one in found if now - one.last_seen_at < lives.idle(one.kind)]


async def session_with_id(connection: AsyncConnection, session_id: str, *, user_id: str | None) -> Session:
    """Raises NotFound, also for one that has ended, and for one of another user than `user_id`."""
    query = _SESSION.where(sessions.c.id == session_id, sessions.c.ended_at.is_(None))
    if user_id is not None:
        query = query.where(sessions.c.user_id == user_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound(f"There is no session {session_id}.")
    return _session(row)


async def end_session(change: Change, session: Session, now: datetime) -> None:
    await _end(change, [session.id], now)


async def end_sessions(change: Change, user_id: str, now: datetime, *, but: str = "") -> int:
    """How many of the user's ended now. `but`: the id of one that goes on."""
    open_now = await change.connection.scalars(
        select(sessions.c.id).where(
            sessions.c.user_id == user_id,
            sessions.c.ended_at.is_(None),
            sessions.c.expires_at > now,
            sessions.c.id != but,
        )
    )
    found = list(open_now)
    await _end(change, found, now)
    # A device that was confirmed and has not asked since would come in afterwards.
    await change.connection.execute(delete(device_codes).where(device_codes.c.user_id == user_id))
    return len(found)


async def note_seen(change: Change, seen: Mapping[str, datetime]) -> None:
    """Session id → when it was last used."""
    await change.connection.execute(
        update(sessions)
        .where(sessions.c.id == bindparam("of"), sessions.c.last_seen_at < bindparam("at"))
        .values(last_seen_at=bindparam("at"), version=change.version),
        [{"of": session_id, "at": at} for session_id, at in seen.items()],
    )


async def forget_sessions(connection: AsyncConnection, before: datetime) -> None:
    """Those that expired, or ended, before then."""
    await connection.execute(delete(sessions).where(or_(sessions.c.expires_at < before, sessions.c.ended_at < before)))


async def _end(change: Change, ids: Iterable[str], now: datetime) -> None:
    await change.connection.execute(
        update(sessions)
        .where(sessions.c.id.in_(list(ids)), sessions.c.ended_at.is_(None))
        .values(ended_at=now, version=change.version)
    )


# --- tokens -----------------------------------------------------------------------------------------------------------


async def add_token(
    change: Change,
    *,
    token_id: str,
    secret_hmac: bytes,
    name: str,
    owner: User,
    permissions: tuple[Permission, ...],
    expires_at: datetime,
    created_by: str,
    now: datetime,
) -> Token:
    texts = tuple(str(one) for one in permissions)
    await change.connection.execute(
        insert(admin_tokens).values(
            id=token_id,
            name=name,
            user_id=owner.id,
            secret_hmac=secret_hmac,
            permissions=list(texts),
            created_by=created_by,
            created_at=now,
            expires_at=expires_at,
            version=change.version,
        )
    )
    return Token(token_id, name, owner.id, owner.name, texts, created_by, now, expires_at)


async def list_tokens(connection: AsyncConnection, *, user_id: str | None, include_revoked: bool) -> list[Token]:
    """Oldest first; of one user, or of all."""
    query = _TOKEN.order_by(admin_tokens.c.created_at, admin_tokens.c.id)
    if user_id is not None:
        query = query.where(admin_tokens.c.user_id == user_id)
    if not include_revoked:
        query = query.where(admin_tokens.c.revoked_at.is_(None))
    return [_token(row) for row in await connection.execute(query)]


async def token_with_id(connection: AsyncConnection, token_id: str, *, user_id: str | None) -> Token:
    """Raises NotFound, also for one of another user than `user_id`."""
    query = _TOKEN.where(admin_tokens.c.id == token_id)
    if user_id is not None:
        query = query.where(admin_tokens.c.user_id == user_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFound(f"There is no token {token_id}.")
    return _token(row)


async def revoke_token(change: Change, token: Token, now: datetime) -> Token:
    """The token as it is afterwards; the moment of its first revocation stands."""
    await change.connection.execute(
        update(admin_tokens)
        .where(admin_tokens.c.id == token.id, admin_tokens.c.revoked_at.is_(None))
        .values(revoked_at=now, version=change.version)
    )
    return await token_with_id(change.connection, token.id, user_id=None)


async def note_used(connection: AsyncConnection, used: Mapping[str, datetime]) -> None:
    """Token id → when it was last used."""
    await connection.execute(
        update(admin_tokens).where(admin_tokens.c.id == bindparam("of")).values(last_used_at=bindparam("at")),
        [{"of": token_id, "at": at} for token_id, at in used.items()],
    )


# --- both, as they are decided by -------------------------------------------------------------------------------------


async def badges_since(connection: AsyncConnection, after: int, lives: Lives) -> list[Badge]:
    """Of sessions and tokens that changed, or whose users did, at a version above `after`."""
    found = await connection.execute(
        _badge_columns(sessions, sessions.c.kind, sessions.c.last_seen_at, sessions.c.ended_at).where(
            or_(sessions.c.version > after, users.c.version > after)
        )
    )
    badges = [_badge(row, BearerKind.SESSION, lives.idle(SessionKind(row.kind)), None) for row in found]
    found = await connection.execute(
        _badge_columns(
            admin_tokens,
            admin_tokens.c.permissions,
            admin_tokens.c.last_used_at.label("last_seen_at"),
            admin_tokens.c.revoked_at.label("ended_at"),
        ).where(or_(admin_tokens.c.version > after, users.c.version > after))
    )
    badges += [_badge(row, BearerKind.TOKEN, None, known_permissions(row.permissions)) for row in found]
    return badges


def _badge_columns(table: Any, *more: Any) -> Select[Any]:
    return select(
        table.c.id,
        table.c.secret_hmac,
        table.c.user_id,
        users.c.name.label("user_name"),
        users.c.role,
        users.c.disabled,
        table.c.expires_at,
        *more,
    ).join_from(table, users, table.c.user_id == users.c.id)


def _badge(row: Any, kind: BearerKind, idle: Any, within: tuple[Permission, ...] | None) -> Badge:
    return Badge(
        kind,
        row.id,
        row.secret_hmac,
        row.user_id,
        row.user_name,
        Role(row.role),
        row.disabled,
        row.ended_at is not None,
        row.expires_at,
        row.last_seen_at,
        idle,
        within,
    )


def _session(row: Any) -> Session:
    return Session(
        row.id,
        row.user_id,
        row.user_name,
        SessionKind(row.kind),
        row.way,
        row.created_at,
        row.last_seen_at,
        row.expires_at,
        row.address,
        row.user_agent,
    )


def _token(row: Any) -> Token:
    return Token(
        row.id,
        row.name,
        row.user_id,
        row.user_name,
        tuple(row.permissions),
        row.created_by,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
    )
