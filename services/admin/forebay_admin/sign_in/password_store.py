"""Passwords, their resets, and wrong ones in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.client_addresses import neighbourhood
from forebay_admin.sign_in.lockout import (
    FORGOTTEN,
    FREE_OF_ACCOUNT,
    FREE_OF_ADDRESS,
    Failures,
    TooManyAttempts,
    one_less,
    one_more,
    wait_s,
)
from forebay_admin.sign_in.tables import password_resets, passwords, sign_in_failures


async def hash_of(connection: AsyncConnection, user_id: str) -> str | None:
    found: str | None = await connection.scalar(select(passwords.c.hash).where(passwords.c.user_id == user_id))
    return found


async def set_hash(connection: AsyncConnection, user_id: str, hashed: str, now: datetime) -> None:
    values = {"hash": hashed, "changed_at": now}
    await connection.execute(
        insert(passwords)
        .values(user_id=user_id, **values)
        .on_conflict_do_update(index_elements=[passwords.c.user_id], set_=values)
    )


async def set_reset(
    connection: AsyncConnection, *, token_hmac: bytes, user_id: str, created_by: str, expires_at: datetime
) -> None:
    """In place of the one before."""
    await forget_resets(connection, user_id)
    await connection.execute(
        insert(password_resets).values(
            token_hmac=token_hmac, user_id=user_id, created_by=created_by, expires_at=expires_at
        )
    )


async def forget_resets(connection: AsyncConnection, user_id: str) -> None:
    """Whoever holds one sets no password with it any more."""
    await connection.execute(delete(password_resets).where(password_resets.c.user_id == user_id))


async def reset_user(connection: AsyncConnection, token_hmac: bytes, now: datetime) -> str | None:
    """Whose reset it is, while it is good."""
    found: str | None = await connection.scalar(
        select(password_resets.c.user_id).where(
            password_resets.c.token_hmac == token_hmac, password_resets.c.expires_at > now
        )
    )
    return found


async def spend_reset(connection: AsyncConnection, token_hmac: bytes) -> bool:
    """Whether it was there: of two that come at once one spends it."""
    spent = await connection.execute(
        delete(password_resets)
        .where(password_resets.c.token_hmac == token_hmac)
        .returning(password_resets.c.token_hmac)
    )
    return spent.first() is not None


def account(user_name: str) -> str:
    return f"user:{user_name.lower()[:100]}"


def place(address: str) -> str:
    return f"address:{neighbourhood(address)[:100]}"


async def begin_attempt(connection: AsyncConnection, user_name: str, address: str, now: datetime) -> None:
    """Counts an attempt as failed, until `right` takes it back. Raises TooManyAttempts, and then it counts as nothing."""
    subjects = sorted(((account(user_name), FREE_OF_ACCOUNT), (place(address), FREE_OF_ADDRESS)))
    found: dict[str, Failures | None] = {}
    for subject, _ in subjects:
        # A lock of the name, not of a row: there may be none yet, and two at once must see one another.
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:of, 6))"), {"of": subject})
        found[subject] = await _failures(connection, subject)
    wait = max(wait_s(one, now) for one in found.values())
    if wait > 0:
        raise TooManyAttempts(
            f"Too many wrong passwords for this account or from this address: try again in {max(1, round(wait))} s.",
            retry_after_s=wait,
        )
    for subject, free in subjects:
        await _keep(connection, subject, one_more(found[subject], now, free))


async def right(connection: AsyncConnection, user_name: str, address: str) -> None:
    """The attempt that was counted was none."""
    await forgive(connection, user_name)
    found = await _failures(connection, place(address))
    if found is not None:
        await _keep(connection, place(address), one_less(found))


async def forgive(connection: AsyncConnection, user_name: str) -> None:
    await connection.execute(delete(sign_in_failures).where(sign_in_failures.c.subject == account(user_name)))


async def forget_old(connection: AsyncConnection, now: datetime) -> None:
    await connection.execute(delete(sign_in_failures).where(sign_in_failures.c.last_at < now - FORGOTTEN))
    await connection.execute(delete(password_resets).where(password_resets.c.expires_at < now))


async def _failures(connection: AsyncConnection, subject: str) -> Failures | None:
    query = select(sign_in_failures.c.failures, sign_in_failures.c.last_at, sign_in_failures.c.locked_until)
    row: Any = (await connection.execute(query.where(sign_in_failures.c.subject == subject))).first()
    return Failures(row.failures, row.last_at, row.locked_until) if row is not None else None


async def _keep(connection: AsyncConnection, subject: str, failures: Failures) -> None:
    values = {"failures": failures.number, "last_at": failures.last_at, "locked_until": failures.locked_until}
    await connection.execute(
        insert(sign_in_failures)
        .values(subject=subject, **values)
        .on_conflict_do_update(index_elements=[sign_in_failures.c.subject], set_=values)
    )
