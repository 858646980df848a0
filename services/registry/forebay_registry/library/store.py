"""Jobs and pins in Postgres, so that a restart of the registry loses none. All methods raise Unavailable when it is away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from forebay.database import Database
from forebay.errors import NotFound
from forebay_registry.backend import BackendId
from forebay_registry.keeping.tables import model_job_targets, model_jobs, pinned_models
from forebay_registry.library.job import Action, Job, JobId, State, Target


@dataclass(frozen=True, slots=True)
class Pin:
    """A model that stays loaded on a backend."""

    backend_id: BackendId
    model: str
    """As the fleet calls it."""
    pinned_at: float
    pinned_by: str


class LibraryStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, job: Job) -> None:
        async with self._database.writing() as connection:
            await connection.execute(insert(model_jobs).values(_job_values(job)))
            await connection.execute(insert(model_job_targets), [_target_values(job.id, t) for t in job.targets])

    async def save(self, job: Job) -> None:
        """How it goes on each backend, and whether it is over."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(model_jobs).where(model_jobs.c.id == job.id).values(ended_at=_moment(job.ended_at))
            )
            for target in job.targets:
                values = _target_values(job.id, target)
                of_this = (model_job_targets.c.job_id == job.id) & (model_job_targets.c.backend_id == target.backend_id)
                await connection.execute(update(model_job_targets).where(of_this).values(values))

    async def remove(self, job_id: JobId) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(model_jobs).where(model_jobs.c.id == job_id))

    async def unfinished(self) -> tuple[Job, ...]:
        return await self._read(_JOBS.where(model_jobs.c.ended_at.is_(None)))

    async def newest(self, limit: int) -> tuple[Job, ...]:
        """Newest first."""
        return await self._read(_JOBS.order_by(model_jobs.c.created_at.desc(), model_jobs.c.id).limit(limit))

    async def get(self, job_id: JobId) -> Job | None:
        found = await self._read(_JOBS.where(model_jobs.c.id == job_id))
        return found[0] if found else None

    async def forget(self, before: float) -> int:
        """Removes jobs that ended before then; how many."""
        async with self._database.writing() as connection:
            gone = await connection.execute(delete(model_jobs).where(model_jobs.c.ended_at < _moment(before)))
            return gone.rowcount

    async def pins(self) -> tuple[Pin, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(_PINS)).all()
        return tuple(Pin(BackendId(r.backend_id), r.model, r.pinned_at.timestamp(), r.pinned_by) for r in rows)

    async def pin(self, pins: Sequence[Pin]) -> None:
        """One that is there already stays as it is. Raises NotFound when a backend is gone."""
        rows = [
            {
                "backend_id": pin.backend_id,
                "model": pin.model,
                "pinned_at": _moment(pin.pinned_at),
                "pinned_by": pin.pinned_by,
            }
            for pin in pins
        ]
        try:
            async with self._database.writing() as connection:
                await connection.execute(upsert(pinned_models).on_conflict_do_nothing(), rows)
        except IntegrityError as error:
            raise NotFound("One of these backends was removed meanwhile.") from error

    async def unpin(self, model: str, backend_ids: Iterable[BackendId]) -> None:
        async with self._database.writing() as connection:
            await connection.execute(
                delete(pinned_models).where(
                    pinned_models.c.model == model, pinned_models.c.backend_id.in_(list(backend_ids))
                )
            )

    async def _read(self, jobs: Select[Any]) -> tuple[Job, ...]:
        async with self._database.reading() as connection:
            rows = (await connection.execute(jobs)).all()
            ids = [row.id for row in rows]
            targets = (await connection.execute(_TARGETS.where(model_job_targets.c.job_id.in_(ids)))).all()
        # What a newer version alone can do is left to it.
        strange = {row.id for row in rows if row.action not in set(Action)}
        strange |= {target.job_id for target in targets if target.state not in set(State)}
        by_job: dict[str, list[Target]] = {}
        for target in targets:
            if target.job_id not in strange:
                by_job.setdefault(target.job_id, []).append(_target(target))
        return tuple(_job(row, by_job.get(row.id, [])) for row in rows if row.id not in strange)


_JOBS = select(
    model_jobs.c.id,
    model_jobs.c.action,
    model_jobs.c.model,
    model_jobs.c.destination,
    model_jobs.c.source,
    model_jobs.c.keep_alive,
    model_jobs.c.force,
    model_jobs.c.actor,
    model_jobs.c.created_at,
    model_jobs.c.ended_at,
)
_TARGETS = select(
    model_job_targets.c.job_id,
    model_job_targets.c.backend_id,
    model_job_targets.c.backend,
    model_job_targets.c.state,
    model_job_targets.c.attempts,
    model_job_targets.c.completed_bytes,
    model_job_targets.c.total_bytes,
    model_job_targets.c.status,
    model_job_targets.c.error,
    model_job_targets.c.note,
    model_job_targets.c.load_ms,
    model_job_targets.c.warmup_ms,
    model_job_targets.c.started_at,
    model_job_targets.c.ended_at,
).order_by(model_job_targets.c.backend)
_PINS = select(
    pinned_models.c.backend_id, pinned_models.c.model, pinned_models.c.pinned_at, pinned_models.c.pinned_by
).order_by(pinned_models.c.model, pinned_models.c.backend_id)


def _job_values(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "action": job.action.value,
        "model": job.model,
        "destination": job.destination,
        "source": job.source,
        "keep_alive": job.keep_alive,
        "force": job.force,
        "actor": job.actor,
        "created_at": _moment(job.created_at),
        "ended_at": _moment(job.ended_at),
    }


def _target_values(job_id: JobId, target: Target) -> dict[str, object]:
    return {
        "job_id": job_id,
        "backend_id": target.backend_id,
        "backend": target.backend,
        "state": target.state.value,
        "attempts": target.attempts,
        "completed_bytes": target.completed_bytes,
        "total_bytes": target.total_bytes,
        "status": target.status,
        "error": target.error,
        "note": target.note,
        "load_ms": target.load_ms,
        "warmup_ms": target.warmup_ms,
        "started_at": _moment(target.started_at),
        "ended_at": _moment(target.ended_at),
    }


def _job(row: Any, targets: list[Target]) -> Job:
    return Job(
        id=JobId(row.id),
        action=Action(row.action),
        model=row.model,
        actor=row.actor,
        created_at=row.created_at.timestamp(),
        targets=tuple(targets),
        destination=row.destination,
        source=row.source,
        keep_alive=row.keep_alive,
        force=row.force,
        ended_at=_seconds(row.ended_at),
    )


def _target(row: Any) -> Target:
    return Target(
        backend_id=BackendId(row.backend_id),
        backend=row.backend,
        state=State(row.state),
        status=row.status,
        completed_bytes=row.completed_bytes,
        total_bytes=row.total_bytes,
        attempts=row.attempts,
        error=row.error,
        note=row.note,
        load_ms=row.load_ms,
        warmup_ms=row.warmup_ms,
        started_at=_seconds(row.started_at),
        ended_at=_seconds(row.ended_at),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
