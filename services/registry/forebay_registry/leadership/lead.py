"""Taking the lead and holding it: an advisory lock of Postgres on a connection of its own.

The lock says who may take the next epoch; the epoch, which `fence` checks in every transaction, is what makes it safe. So
the lock may be lost late, by one that was stopped or cut off, and nothing that it writes afterwards is kept."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from forebay.clock import Clock, micros
from forebay.registries import STANDS_BY
from forebay_registry.leadership.gate import Gate
from forebay_registry.leadership.standing import Adrift, Stance, Standing, StandsBy, after_loss

log = logging.getLogger(__name__)

LEASE_S = 5.0
"""Postgres ends a connection that says nothing for so long, and its lock with it: a leader that is cut off, stopped or stuck
is followed without anybody's help."""
RENEW_S = 1.0
ANSWER_S = 3.0
"""For a word of Postgres. With RENEW_S it is less than the lease: a leader that gets no answer knows so before another one
leads."""
ASK_S = 0.5
"""Between two tries of one that stands by."""
WAIT_S = 1.0
"""The next epoch waits so long for transactions of the one before; then it ends them."""
_RETRY_S = 0.25
PATIENCE_S = 1.0
"""How long a start waits for Postgres before it goes on from a snapshot."""

_LOCK = int.from_bytes(hashlib.sha256(b"forebay:lead:registry").digest()[:8], signed=True)
_TAKE = """
    UPDATE registry.leadership
    SET epoch = greatest(epoch + 1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
        holder = $1, taken_at = clock_timestamp()
    RETURNING epoch
"""
# Whoever checked its epoch (`fence`) in a transaction that is still open: it may belong to a process that stands still.
_END_OLDER = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_locks
    WHERE relation = 'registry.leadership'::regclass AND mode = 'RowShareLock' AND granted AND pid <> pg_backend_pid()
"""
_WHO = "SELECT epoch, holder FROM registry.leadership"
_AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Lead:
    """`async with lead.held():` around the work; `stance` says how things are, and `leading` and `acting` let work be done
    only then."""

    def __init__(self, url: str, clock: Clock, *, address: str) -> None:
        """`address` is where others reach this registry."""
        self._url = url
        self._clock = clock
        self._address = address
        self.stance = Stance()
        self.leading, self.acting = Gate(), Gate()
        self.tables = asyncio.Event()
        """To be set when the schema is there."""
        self._remembers = asyncio.Event()
        self._moved = asyncio.Event()
        self._turn = 0
        self._given_up = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self.is_fresh = True
        """Until this lead another registry acted, or nobody did: what is seen of the fleet is not our own."""

    def demand(self) -> int:
        """The epoch under which to write. Raises StandsBy, Adrift."""
        if self.stance.leads:
            return self.stance.epoch
        if self.stance.standing is Standing.STANDBY:
            raise StandsBy(f"{STANDS_BY}; {self.stance.leader or 'another one'} leads.", retry_after_s=1.0)
        raise Adrift(retry_after_s=2.0)

    def refuse_standby(self) -> None:
        """Raises StandsBy where another one has to be asked."""
        if self.stance.standing is Standing.STANDBY:
            self.demand()

    def remember(self, epoch: int) -> None:
        """The fleet is known from a snapshot of this epoch, so there is something to go on from without Postgres."""
        self._remembers.set()
        if epoch > self.stance.epoch and self.stance.standing is Standing.WAITING:
            self.stance = Stance(Standing.WAITING, epoch)

    def fenced(self, epoch: int) -> None:
        """A write found that `epoch` has begun: another one leads."""
        if self.stance.leads and epoch != self.stance.epoch:
            log.warning("another registry leads", extra={"action": "lead_fenced", "epoch": epoch})
            self._become(Stance(Standing.STANDBY, epoch))
            self._given_up.set()

    @property
    def turn(self) -> int:
        """Counts changes of the stance, for `beyond`."""
        return self._turn

    async def beyond(self, turn: int) -> None:
        """Returns when the stance has changed since `turn`."""
        while self._turn == turn:
            await self._moved.wait()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Takes the lead when it is free, until left; then it is free for the next. Inside, `fault` has to be awaited."""
        self._holding = asyncio.create_task(self._run(), name="lead")
        try:
            yield
        finally:
            self._holding.cancel()
            await asyncio.wait({self._holding})

    async def fault(self) -> None:
        """Until cancelled; raises what nobody foresaw while the lead was held."""
        assert self._holding is not None
        await asyncio.wait({self._holding})
        self._holding.result()

    async def asked(self, most_s: float) -> None:
        """Returns when it is known who leads, or after `most_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self.stance.standing is Standing.WAITING:
                    await self._moved.wait()

    async def _run(self) -> None:
        impatient = asyncio.create_task(self._lose_patience(), name="lead-patience")
        try:
            await self.tables.wait()
            while True:
                try:
                    await self._connect_and_serve()
                except _AWAY as error:
                    self._note_away(error)
                await asyncio.sleep(_RETRY_S)
        finally:
            impatient.cancel()
            self._become(Stance(Standing.STANDBY, self.stance.epoch))

    async def _lose_patience(self) -> None:
        await asyncio.sleep(PATIENCE_S)
        await self._remembers.wait()
        if self.stance.standing is Standing.WAITING:
            log.warning("Postgres does not say who leads: going on without writing", extra={"action": "lead_adrift"})
            # Without an epoch of before, this start is one: watchers take it for newer than any they know.
            self._become(Stance(Standing.ADRIFT, self.stance.epoch or micros(self._clock.now())))

    async def _connect_and_serve(self) -> None:
        connection = await asyncpg.connect(
            self._url,
            timeout=ANSWER_S,
            command_timeout=ANSWER_S,
            server_settings={
                "application_name": "forebay-registry-lead",
                "idle_session_timeout": f"{LEASE_S:g}s",
                "lock_timeout": f"{WAIT_S:g}s",
                # For a machine that is gone without a word; the idle timeout does not see one that waits for a lock.
                "tcp_keepalives_idle": "2",
                "tcp_keepalives_interval": "1",
                "tcp_keepalives_count": "3",
            },
        )
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        try:
            while not gone.is_set():
                if self.stance.leads:
                    await self._renew(connection)
                elif await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    await self._take(connection)
                else:
                    self._note_leader(await connection.fetchrow(_WHO))
                await self._rest(gone, RENEW_S if self.stance.leads else ASK_S)
            raise ConnectionResetError("the connection that holds the lead ended")
        finally:
            # Not close: nothing is left to be said, and the lock goes with the connection.
            connection.terminate()

    async def _take(self, connection: asyncpg.Connection) -> None:
        try:
            epoch = await connection.fetchval(_TAKE, self._address, self.stance.epoch + 1)
        except asyncpg.LockNotAvailableError:
            ended = await connection.fetchval(_END_OLDER)
            log.warning(
                "ended what an older leader was writing", extra={"action": "lead_end_older", "transactions": ended}
            )
            epoch = await connection.fetchval(_TAKE, self._address, self.stance.epoch + 1)
        self._given_up.clear()
        self.is_fresh = not self.stance.acts
        log.info("leading", extra={"action": "lead", "epoch": epoch})
        self._become(Stance(Standing.LEADING, epoch, self._address))

    async def _renew(self, connection: asyncpg.Connection) -> None:
        row = await connection.fetchrow(_WHO)
        if row["epoch"] != self.stance.epoch:
            # Only when somebody wrote into the row by hand, or the database was restored under us: begin anew.
            self.fenced(row["epoch"])
            raise ConnectionResetError("the epoch is another one's")

    async def _rest(self, gone: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (gone, self._given_up)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._given_up.is_set():
            self._given_up.clear()
            raise ConnectionResetError("another registry leads")

    def _note_leader(self, row: asyncpg.Record) -> None:
        stance = Stance(Standing.STANDBY, row["epoch"], row["holder"])
        if stance != self.stance:
            log.info("standing by", extra={"action": "lead_standby", "leader": stance.leader, "epoch": stance.epoch})
            self._become(stance)

    def _note_away(self, error: BaseException) -> None:
        after = after_loss(self.stance)
        if after != self.stance:
            why = " ".join(str(error).split()) or type(error).__name__
            log.warning("the lead is not proven any more", extra={"action": "lead_lost", "why": why})
            self._become(after)

    def _become(self, stance: Stance) -> None:
        self.stance = stance
        self.leading.set(stance.leads)
        self.acting.set(stance.acts)
        self._turn += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
