"""Who may do what in the database: a role and a schema each for admin and registry, closed to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from forebay.local.secret_files import keep_secret

DATABASE = "forebay"
OWNERS = ("admin", "registry")


@dataclass(frozen=True, slots=True)
class RoleUrls:
    """One DATABASE_URL for each service that has tables."""

    admin: str
    registry: str


async def ensure_roles(superuser_url: str, secrets: Path) -> RoleUrls:
    """Makes what is missing: database `forebay`, roles `forebay_admin` and `forebay_registry`, schemas `admin` and
    `registry`. Their passwords lie in `secrets` and hold after this call, whatever they were before."""
    passwords = {owner: keep_secret(secrets / "postgres" / f"{owner}.password") for owner in OWNERS}
    connection = await asyncpg.connect(superuser_url)
    try:
        for owner, password in passwords.items():
            await _ensure_role(connection, f"forebay_{owner}", password)
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()

    connection = await asyncpg.connect(_of_database(superuser_url))
    try:
        async with connection.transaction():
            for statement in closing_statements():
                await connection.execute(statement)
    finally:
        await connection.close()
    return RoleUrls(**{owner: _of_database(superuser_url, f"forebay_{owner}", passwords[owner]) for owner in OWNERS})


def closing_statements() -> Iterator[str]:
    """SQL for a superuser in the database: what each role may do there, and that others may nothing. May be run again."""
    yield f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC"
    yield "REVOKE ALL ON SCHEMA public FROM PUBLIC"
    for owner in OWNERS:
        role = f"forebay_{owner}"
        yield f"GRANT CONNECT, TEMPORARY ON DATABASE {DATABASE} TO {role}"
        yield f"CREATE SCHEMA IF NOT EXISTS {owner} AUTHORIZATION {role}"
        yield f"ALTER ROLE {role} IN DATABASE {DATABASE} SET search_path = {owner}"


async def _ensure_role(connection: asyncpg.Connection, role: str, password: str) -> None:
    verb = "ALTER" if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) else "CREATE"
    # No parameters in such statements; the password is hexadecimal.
    await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{password}'")


def _of_database(superuser_url: str, role: str | None = None, password: str | None = None) -> str:
    parts = urlsplit(superuser_url)
    place = f"{parts.hostname}:{parts.port}"
    who = f"{role}:{password}" if role else f"{parts.username}:{parts.password}"
    return urlunsplit((parts.scheme, f"{who}@{place}", f"/{DATABASE}", "", ""))
