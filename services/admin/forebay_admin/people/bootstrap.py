"""The first admin: where there are no users yet, one is made, and the key is left in a file for whoever may read it."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime
from pathlib import Path

from forebay.database import Database
from forebay.errors import CannotStart
from forebay.keys import new_key, seal_secret
from forebay_admin.audit.audit_store import Act, Interface, record
from forebay_admin.changes import Change, Changes
from forebay_admin.keys.key_store import add_key
from forebay_admin.keys.keys import KeyOrder, Limits
from forebay_admin.people.people import EVERYONE, Role, UserOrder
from forebay_admin.people.people_store import add_user, has_users

log = logging.getLogger(__name__)

FIRST_ADMIN = "admin"


async def ensure_first_admin(
    database: Database, changes: Changes, key_file: Path | None, pepper: bytes, now: datetime
) -> bool:
    """Whether one was made now. Of replicas that start together one makes it. Raises Unavailable, CannotStart."""
    async with database.reading() as connection:
        if await has_users(connection):
            return False
    if key_file is None:
        log.warning(
            "there are no users, so nobody can sign in: set bootstrap_key_file (FOREBAY_ADMIN_BOOTSTRAP_KEY_FILE) and "
            "start admin again to get a first admin's key there",
            extra={"action": "bootstrap_missing"},
        )
        return False
    async with changes.make(database) as change:
        # The counter is locked: a replica that waited for it looks again.
        if await has_users(change.connection):
            return False
        await _make(change, key_file, pepper, now)
    log.info("first admin made", extra={"action": "bootstrap", "user": FIRST_ADMIN, "key_file": str(key_file)})
    return True


async def _make(change: Change, key_file: Path, pepper: bytes, now: datetime) -> None:
    user = await add_user(change, UserOrder(FIRST_ADMIN, EVERYONE, Role.ADMIN), now)
    made = new_key()
    key = await add_key(
        change,
        public_id=made.public_id,
        secret_hmac=seal_secret(pepper, made.secret),
        order=KeyOrder(user.name, "first key", Limits()),
        owner=user,
        created_by=FIRST_ADMIN,
        now=now,
    )
    act = Act("admin service", "user.bootstrap", user.name, Interface.START, after={"key": key.public_id})
    await record(change.connection, act, now)
    # Before the commit: a key in a file that opens nothing is put right by the next start, but a key in the database that
    # nobody was told would lock everybody out.
    await asyncio.to_thread(_write, key_file, str(made))


def _write(path: Path, key: str) -> None:
    """Mode 600 from the first byte on, and whole or not there. Raises CannotStart."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise CannotStart(f"The first admin's key cannot be written to {path}: {error.strerror}.") from error
