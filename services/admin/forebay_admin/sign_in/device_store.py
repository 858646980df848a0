"""Devices that wait to be confirmed, in Postgres. Each function works on the caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.errors import NotFound, NotPossible
from forebay_admin.sign_in.devices import MOST_WAITING, Device
from forebay_admin.sign_in.tables import device_codes


async def add_device(connection: AsyncConnection, device_hmac: bytes, device: Device, now: datetime) -> None:
    """Raises NotPossible when too many wait."""
    await connection.execute(delete(device_codes).where(device_codes.c.expires_at < now))
    waiting = await connection.scalar(select(func.count()).select_from(device_codes)) or 0
    if waiting >= MOST_WAITING:
        raise NotPossible("Too many devices wait to be confirmed: try again in a few minutes.", retry_after_s=60.0)
    await connection.execute(
        insert(device_codes).values(
            device_hmac=device_hmac,
            user_code=device.user_code,
            address=device.address,
            user_agent=device.user_agent,
            created_at=now,
            expires_at=device.expires_at,
            way="",
            refused=False,
        )
    )


async def device_asking(connection: AsyncConnection, device_hmac: bytes) -> Device | None:
    """Locked until the transaction ends: of two that ask at once one is answered first."""
    row = (
        await connection.execute(
            select(device_codes).where(device_codes.c.device_hmac == device_hmac).with_for_update()
        )
    ).first()
    return _device(row) if row is not None else None


async def note_asked(connection: AsyncConnection, device_hmac: bytes, now: datetime) -> None:
    await connection.execute(update(device_codes).where(device_codes.c.device_hmac == device_hmac).values(asked_at=now))


async def forget_device(connection: AsyncConnection, device_hmac: bytes) -> None:
    await connection.execute(delete(device_codes).where(device_codes.c.device_hmac == device_hmac))


async def device_with_code(connection: AsyncConnection, user_code: str, now: datetime) -> Device:
    """One that still waits. Raises NotFound."""
    row = (
        await connection.execute(
            select(device_codes).where(
                device_codes.c.user_code == user_code,
                device_codes.c.expires_at > now,
                device_codes.c.user_id.is_(None),
                device_codes.c.refused.is_(False),
            )
        )
    ).first()
    if row is None:
        raise NotFound("No device waits with this code: it was used, or has expired. Begin again on the device.")
    return _device(row)


async def decide_device(
    connection: AsyncConnection, user_code: str, *, user_id: str | None, way: str, now: datetime
) -> None:
    """Confirmed by `user_id`, or refused. Raises NotFound when it waits no more."""
    changed = await connection.execute(
        update(device_codes)
        .where(
            device_codes.c.user_code == user_code,
            device_codes.c.expires_at > now,
            device_codes.c.user_id.is_(None),
            device_codes.c.refused.is_(False),
        )
        .values(user_id=user_id, way=way, refused=user_id is None)
        .returning(device_codes.c.user_code)
    )
    if changed.first() is None:
        raise NotFound("This device waits no more: its code was used, or has expired.")


def _device(row: Any) -> Device:
    return Device(
        row.user_code,
        row.address,
        row.user_agent,
        row.expires_at,
        row.asked_at,
        row.user_id,
        row.way,
        row.refused,
    )
