"""Postgres for the services that own a schema in it: a small pool of connections, the schema brought up to date before it is
used, and every way in which Postgres can be away told as Unavailable.

What the tables are and what the queries say is the service's own; so is what it does while the database is away."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy import exc as sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from forebay.config import read_secret
from forebay.errors import CannotStart, ForebayError, Unavailable
from forebay.metrics import Metrics

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 5
"""Of one service. Postgres on a laptop gives 50 to all."""

_CONNECT_S = 5.0
_COMMAND_S = 15.0
_RECYCLE_S = 3600.0
"""A connection that is older is replaced when it is next used: with TLS, by one with the certificate files of then."""
_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 2.0
_LOCK_WAIT = "30s"

_AWAY = (
    "08",  # the connection failed
    "57P",  # shut down, crashed, starting up, its database dropped
    "53100",  # its disk is full
    "53300",  # too many connections
    "53400",  # a configured limit
    "25006",  # read only: a standby was promoted elsewhere
    "55P03",  # somebody holds the lock for longer than we wait
)
_NOT_OURS_YET = (
    "28",  # this role or its password is not known (yet)
    "3D000",  # the database does not exist (yet)
)


def read_database_url(url: str | None, file: Path | None) -> str:
    """The address from the settings `database_url` and `database_url_file`, of which the file wins. Raises CannotStart when
    there is neither, or when it is not one of PostgreSQL."""
    chosen = read_secret(file).decode() if file is not None else url
    if not chosen:
        raise CannotStart(
            "There is no database: set DATABASE_URL (postgresql://user:password@host:port/name), "
            "or database_url_file to a file that holds it."
        )
    if urlsplit(chosen).scheme not in ("postgresql", "postgres"):
        raise CannotStart("The database's address must begin with postgresql://")
    return chosen


def measure_connections(metrics: Metrics, prefix: str, database: Database) -> None:
    """Of its pool, read when scraped. `prefix`: of the metric's name, `forebay_admin`."""
    metrics.gauge(
        f"{prefix}_database_connections",
        "Connections to Postgres: those in use, and the most there may be.",
        ("what",),
        lambda: [(("used",), float(database.used)), (("most",), float(MAX_CONNECTIONS))],
    )


class Database:
    """A pool of at most MAX_CONNECTIONS to one schema. `reading` and `writing` raise Unavailable while Postgres is away; the
    next use after its return connects anew."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self.schema = schema
        self.engine = self._open_engine(
            pool_size=MAX_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECT_S,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_S,
            command_timeout_s=_COMMAND_S,
        )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries; whatever it changes is rolled back. Raises Unavailable."""
        async with _connected(self.engine) as connection:
            with _translated():
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when left, rolled back when left by an exception. Raises Unavailable, also for a commit
        whose answer was lost: do again only what may be done twice."""
        async with _connected(self.engine) as connection:
            with _translated():
                async with connection.begin():
                    yield connection

    async def prepare(self, migrations: Path, tell: Callable[[str], None] = lambda why: None) -> None:
        """Waits for Postgres as long as it takes, and brings the schema up to date with `migrations` (a folder that holds
        `versions/`). `tell` hears in one sentence what is waited for, whenever that changes.

        Raises CannotStart when this role may not use the database that way, and whatever a faulty migration raises."""
        told, delay_s = "", _FIRST_RETRY_S
        while True:
            try:
                return await self.migrate(migrations)
            except Unavailable as error:
                if error.message != told:
                    told = error.message
                    tell(told)
                    log.warning(
                        "database not usable yet", extra={"action": "database_wait", "schema": self.schema, "why": told}
                    )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, _LAST_RETRY_S)

    async def migrate(self, migrations: Path) -> None:
        """Runs what is missing in one transaction, under a lock that makes a second replica wait. A schema that is newer
        than this code is left as it is: migrations only ever add. Raises Unavailable, CannotStart."""
        # Not from the pool: a migration may take longer than any statement of the service's own.
        engine = self._open_engine(poolclass=NullPool, command_timeout_s=None)
        try:
            async with _connected(engine) as connection:
                with _translated():
                    async with connection.begin():
                        await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
                        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._lock_key})
                        await self._ensure_schema(connection)
                        await connection.run_sync(self._upgrade, migrations)
        except sql.DBAPIError as error:
            if _sqlstate(error) == "42501":
                raise CannotStart(
                    f"The database's role may not make or change the schema {self.schema}; its owner must do once: "
                    f"CREATE SCHEMA {self.schema} AUTHORIZATION <role>. Postgres said: {_said(error)}"
                ) from error
            raise
        finally:
            await engine.dispose()

    async def close(self) -> None:
        await self.engine.dispose()

    @property
    def used(self) -> int:
        """Connections that somebody works with now."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, AsyncAdaptedQueuePool) else 0

    @property
    def _lock_key(self) -> int:
        digest = hashlib.sha256(f"forebay:migrate:{self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], signed=True)

    async def _ensure_schema(self, connection: AsyncConnection) -> None:
        # Asked first: CREATE SCHEMA IF NOT EXISTS wants the right to create even when there is nothing to do.
        exists = await connection.scalar(text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": self.schema})
        if not exists:
            await connection.execute(text(f'CREATE SCHEMA "{self.schema}"'))

    def _upgrade(self, connection: Connection, migrations: Path) -> None:
        script = ScriptDirectory(str(migrations), version_locations=[str(migrations / "versions")])
        known = {revision.revision for revision in script.walk_revisions()}

        def missing(applied: tuple[str, ...], _: MigrationContext) -> list[object]:
            newer = set(applied) - known
            if newer:
                log.warning(
                    "schema is newer than this version of Forebay, leaving it as it is",
                    extra={"action": "schema_newer", "schema": self.schema, "revisions": sorted(newer)},
                )
                return []
            return list(script._upgrade_revs("heads", applied))  # type: ignore[arg-type]  # as Alembic's own commands do

        with EnvironmentContext(Config(), script, fn=missing) as environment:
            environment.configure(
                connection=connection, version_table="schema_version", version_table_schema=self.schema
            )
            environment.run_migrations()

    def _open_engine(self, *, command_timeout_s: float | None, **options: object) -> AsyncEngine:
        async def connect() -> asyncpg.Connection:
            # The whole address goes to asyncpg, so that everything PostgreSQL's own tools take works (sslmode, several
            # hosts), and the password never reaches an engine's repr.
            return await asyncpg.connect(
                self._url,
                timeout=_CONNECT_S,
                command_timeout=command_timeout_s,
                server_settings={"application_name": f"forebay-{self.schema}"},
            )

        # What was to be written may be anybody's secret, and an error is logged.
        return create_async_engine("postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options)


@asynccontextmanager
async def open_database(url: str, schema: str) -> AsyncIterator[Database]:
    """Connects when first used; closes its connections when left."""
    database = Database(url, schema)
    try:
        yield database
    finally:
        await database.close()


# --- what "away" looks like -------------------------------------------------------------------------------------------

_DRIVERS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last is of no common family: it comes when a connection is killed in the middle of a word."""


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await engine.connect()
    except asyncpg.exceptions.ClientConfigurationError as error:
        raise CannotStart(f"The database's address is not valid: {error}") from error
    except (OSError, TimeoutError, sql.SQLAlchemyError, *_DRIVERS) as error:
        state = _sqlstate(error)
        if state is not None and not state.startswith((*_AWAY, *_NOT_OURS_YET)):
            raise
        raise Unavailable(f"Postgres cannot be reached: {_said(error)}") from error
    try:
        yield connection
    finally:
        try:
            await connection.close()
        except (OSError, sql.DBAPIError, *_DRIVERS) as error:
            # A connection that died in use has nothing left to give back; the pool drops it.
            log.debug("connection was dead", extra={"action": "database_close", "why": _said(error)})


class _translated:
    """Around the use of a connection: what means "away" becomes Unavailable, the rest rises as it is."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ForebayError) and _means_away(error):
            raise Unavailable(f"Postgres went away: {_said(error)}") from error


def _means_away(error: Exception) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | sql.TimeoutError | asyncpg.InternalClientError):
        return True
    if isinstance(error, sql.DBAPIError) and error.connection_invalidated:
        return True
    state = _sqlstate(error)
    if state is not None:
        return state.startswith(_AWAY)
    return isinstance(error, sql.DBAPIError | asyncpg.InterfaceError) and "connection is closed" in str(error)


def _sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's five letters for what happened, from whichever layer's exception holds them."""
    while error is not None:
        state = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
        if isinstance(state, str):
            return state
        error = error.__cause__
    return None


def _said(error: BaseException) -> str:
    """The driver's own words, without the statement and the class names that SQLAlchemy wraps around them."""
    origin: BaseException = error
    while origin.__cause__ is not None:
        origin = origin.__cause__
    return " ".join(str(origin).split()) or type(origin).__name__
