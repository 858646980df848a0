"""Jobs: begun, tried again, told to whoever follows, cancelled, and gone on with after a restart.

A job belongs to nobody's connection: it lives here and in Postgres, and ends by its own end or by being cancelled. What is
done on an engine is `work`'s part, what is written down `saver`'s."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from forebay.clock import Clock
from forebay.errors import NotFound, NotPossible, Unavailable
from forebay_registry.backend import BackendId, NodeId
from forebay_registry.engines.probe import Target as Address
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Passed, choose
from forebay_registry.library.job import Job, JobId, State, Target, begun, ended, rest_s, resumed
from forebay_registry.library.order import Order, check
from forebay_registry.library.saver import JobSaver, Keeps
from forebay_registry.library.trouble import EngineTrouble
from forebay_registry.library.work import Step

log = logging.getLogger(__name__)

MOST_JOBS = 200
"""Under way at once; an order too many is refused, and nothing waits for it."""
_TELL_GAP_S = 0.1


class Fleet(Protocol):
    """As much of the roster as orders need."""

    node_ids: dict[str, NodeId]

    def views(self) -> tuple[View, ...]: ...
    def address_of(self, backend_id: BackendId) -> Address | None: ...
    def look_now(self, backend_id: BackendId) -> None: ...


class CarriesOut(Protocol):
    def carry_out(self, job: Job, view: View, address: Address) -> AsyncGenerator[Step, None]: ...


class Remembers(Keeps, Protocol):
    async def add(self, job: Job) -> None: ...
    async def newest(self, limit: int) -> tuple[Job, ...]: ...
    async def get(self, job_id: JobId) -> Job | None: ...


@dataclass(slots=True)
class _Live:
    job: Job
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    is_cancelled: bool = False
    is_left: bool = False
    """This registry acts no longer."""

    def tell(self, job: Job) -> None:
        self.job = job
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class JobRunner:
    def __init__(
        self,
        fleet: Fleet,
        work: CarriesOut,
        store: Remembers,
        clock: Clock,
        *,
        rest: Callable[[int], float | None] = rest_s,
    ) -> None:
        """`rest`: seconds until the next attempt after so many; None when there is none."""
        self._fleet = fleet
        self._work = work
        self._store = store
        self._clock = clock
        self._rest = rest
        self._live: dict[JobId, _Live] = {}
        self._saver = JobSaver(store, clock, job_of=self._job_of, let_go=self._let_go)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Goes on with what is unfinished, and does what is ordered, until cancelled. The tables and the fleet must be
        there. It may be run again afterwards."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for job in await self._saver.unfinished():
                    self._live[job.id] = _Live(replace(job, targets=tuple(map(resumed, job.targets))))
                self._tasks = tasks
                for live in list(self._live.values()):
                    self._begin(live)
                await self._saver.run()
        finally:
            self._tasks = None
            for live in self._live.values():
                live.is_left = True
                live.tell(live.job)
            self._live = {}
            self._saver.stop()

    # --- orders -----------------------------------------------------------------------------------------------------

    async def start(self, order: Order) -> tuple[Job, tuple[Passed, ...]]:
        """It is stored before it begins. Raises BadInput, NotFound, NotPossible, Unavailable."""
        check(order)
        chosen = choose(
            order.action,
            order.model,
            order.on,
            self._fleet.views(),
            self._fleet.node_ids,
            has_source=bool(order.source),
        )
        self._demand_acting()
        if len(self._live) >= MOST_JOBS:
            raise NotPossible(f"{MOST_JOBS} jobs are under way; cancel some, or wait: forebay model jobs")
        job = Job(
            id=JobId(f"mj-{secrets.token_hex(6)}"),
            action=order.action,
            model=order.model,
            actor=order.actor,
            created_at=self._clock.now(),
            targets=tuple(Target(view.id, view.name) for view in chosen.views),
            destination=order.destination,
            source=order.source,
            keep_alive=order.keep_alive,
            force=order.force,
        )
        try:
            await self._store.add(job)
        except BaseException:  # cancelled, too: it must not begin one day, after a restart
            self._saver.doubt(job.id)
            raise
        if self._tasks is not None and job.id not in self._live:
            live = self._live[job.id] = _Live(job)
            self._begin(live)
        # Else it stopped meanwhile; who acts next finds the job in the store.
        log.info("model job begun", extra=_fields(job) | {"action": "model_job_begin"})
        return job, chosen.passed

    async def cancel(self, job_id: JobId, actor: str) -> Job:
        """What is done stays done; a pull that is cut off goes on there when it is ordered again. Raises NotFound,
        Unavailable."""
        live = self._live.get(job_id)
        if live is None:
            job = await self._stored(job_id)
            if not job.state.is_over:
                raise Unavailable("This registry is not the one that does it; ask again.", retry_after_s=1.0)
            return job
        live.is_cancelled = True
        for task in live.tasks:
            task.cancel()
        if live.tasks:
            await asyncio.wait(live.tasks)
        for target in live.job.targets:
            if not target.state.is_over:  # cancelled before it had begun
                self._end(live, target.backend_id, State.CANCELLED)
        await self._store.save(live.job)  # before it is said: a restart would else go on with it
        log.info("model job cancelled", extra=_fields(live.job) | {"action": "model_job_cancel", "actor": actor})
        return live.job

    # --- reading ----------------------------------------------------------------------------------------------------

    def live(self) -> tuple[Job, ...]:
        return tuple(live.job for live in self._live.values())

    async def newest(self, limit: int, *, unfinished: bool) -> tuple[Job, ...]:
        """Newest first. Raises Unavailable."""
        if unfinished:
            jobs = self.live() if self._tasks is not None else await self._store.unfinished()
            return tuple(sorted(jobs, key=lambda job: -job.created_at))[:limit]
        now = {job.id: job for job in self.live()}
        return tuple(now.get(job.id, job) for job in await self._store.newest(limit))

    async def follow(self, job_id: JobId) -> AsyncGenerator[Job, None]:
        """As it is, and as it changes, until it is over; who is slow gets fewer of them. Raises NotFound, Unavailable."""
        live = self._live.get(job_id)
        if live is None:
            job = await self._stored(job_id)
            yield job
            if not job.state.is_over:
                raise Unavailable("This registry is not the one that does it; ask again.", retry_after_s=1.0)
            return
        while True:
            changed = live.changed
            yield live.job
            if live.job.state.is_over:
                return
            if live.is_left:
                raise Unavailable("The registry stops; the job goes on when it is back.", retry_after_s=1.0)
            await changed.wait()
            if not live.job.state.is_over:
                await asyncio.sleep(_TELL_GAP_S)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _job_of(self, job_id: JobId) -> Job | None:
        live = self._live.get(job_id)
        return live.job if live is not None else None

    def _let_go(self, job_id: JobId) -> None:
        self._live.pop(job_id, None)

    async def _stored(self, job_id: JobId) -> Job:
        job = await self._store.get(job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id}; see: forebay model jobs")
        return job

    def _demand_acting(self) -> None:
        if self._tasks is None:
            raise Unavailable(
                "This registry does not give orders to engines now; it usually does within seconds.", retry_after_s=1.0
            )

    def _begin(self, live: _Live) -> None:
        assert self._tasks is not None
        for target in live.job.targets:
            if not target.state.is_over:
                doing = self._see_to(live, target.backend_id)
                live.tasks.append(self._tasks.create_task(doing, name=f"{live.job.id}-{target.backend}"))

    async def _see_to(self, live: _Live, backend_id: BackendId) -> None:
        try:
            rest = await self._attempt(live, backend_id)
            while rest is not None:
                await asyncio.sleep(rest)
                rest = await self._attempt(live, backend_id)
        except asyncio.CancelledError:
            if live.is_cancelled:
                self._end(live, backend_id, State.CANCELLED)
            raise
        except Exception:
            # One order must not take the others, and the whole registry, with it.
            log.exception("model job failed inside the registry", extra={"action": "internal", "job": live.job.id})
            self._end(
                live, backend_id, State.FAILED, f"Forebay made a mistake; the registry's log has job {live.job.id}."
            )

    async def _attempt(self, live: _Live, backend_id: BackendId) -> float | None:
        """Seconds until the next one; None when it is over."""
        target = begun(live.job.target(backend_id), self._clock.now())
        view = next((v for v in self._fleet.views() if v.id == backend_id), None)
        address = self._fleet.address_of(backend_id)
        if view is None or address is None:
            self._end(live, backend_id, State.FAILED, f"The backend {target.backend} was removed.")
            return None
        self._tell(live, target, pressing=True)
        try:
            async with aclosing(self._work.carry_out(live.job, view, address)) as steps:
                async for step in steps:
                    target = _after(target, step)
                    self._tell(live, target, pressing=False)
        except EngineTrouble as error:
            rest = None if error.is_final else self._rest(target.attempts)
            if rest is None:
                self._end(live, backend_id, State.FAILED, error.message)
                return None
            fields = _fields(live.job) | {"action": "model_job_retry", "backend": target.backend, "why": error.message}
            log.info("model job is tried again", extra=fields)
            again = f"{error.message} It is tried again in {rest:g} s."
            self._tell(live, replace(target, state=State.WAITING, status="", error=again), pressing=True)
            return rest
        self._end(live, backend_id, State.DONE)
        return None

    def _tell(self, live: _Live, target: Target, *, pressing: bool) -> None:
        live.tell(live.job.with_target(target))
        self._saver.note(live.job.id, pressing=pressing)

    def _end(self, live: _Live, backend_id: BackendId, state: State, error: str = "") -> None:
        now = self._clock.now()
        job = live.job.with_target(ended(live.job.target(backend_id), state, now, error))
        if job.state.is_over:
            job = replace(job, ended_at=now)
        live.tell(job)
        self._saver.note(job.id, pressing=True)
        self._fleet.look_now(backend_id)
        target = job.target(backend_id)
        fields = _fields(job) | {"action": "model_job_end", "backend": target.backend, "outcome": str(state)}
        log.log(logging.WARNING if error else logging.INFO, "model job ended", extra=fields | {"why": error})


def _after(target: Target, step: Step) -> Target:
    told = {
        name: value
        for name in ("status", "completed_bytes", "total_bytes", "note", "load_ms", "warmup_ms")
        if (value := getattr(step, name)) not in (None, "")
    }
    return replace(target, **told)


def _fields(job: Job) -> dict[str, object]:
    return {"job": job.id, "deed": str(job.action), "model": job.model, "actor": job.actor}
