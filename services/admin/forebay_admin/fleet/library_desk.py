"""Operators' calls about models on the engines: authorised and audited here, done by the registry.

What is audited is the order. How it went stands in the job, which is the registry's to keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import UTC, datetime

from sqlalchemy import text

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.access import Actor
from forebay_admin.audit_store import Act, Facts, record
from forebay_admin.fleet.library_client import LibraryClient
from forebay_admin.registry_client import RegistryClient

_USUAL_TAG = ":latest"


class LibraryDesk:
    def __init__(self, database: Database, library: LibraryClient, registry: RegistryClient, clock: Clock) -> None:
        self._database = database
        self._library = library
        self._registry = registry
        self._clock = clock

    async def start(self, request: wire.StartModelJobRequest, actor: Actor) -> wire.StartModelJobResponse:
        await self._demand_database()
        before = await self._having(request.model)
        request.actor = actor.name
        answer = await self._library.start(request)
        job = answer.job
        told: dict[str, str | list[str]] = {"job": job.id, "backends": [target.backend for target in job.targets]}
        more = {name: value for name in ("destination", "source", "keep_alive") if (value := getattr(request, name))}
        await self._record(
            actor,
            f"model.{_word(job.action)}",
            job.model,
            before={"backends_with_it": sorted(before & {target.backend for target in job.targets})},
            after={**told, **more, **({"force": True} if request.force else {})},
        )
        return answer

    async def jobs(self, request: wire.ListModelJobsRequest) -> wire.ListModelJobsResponse:
        return await self._library.jobs(request)

    async def follow(self, request: wire.FollowModelJobRequest) -> AsyncGenerator[wire.ModelJob, None]:
        async with aclosing(self._library.follow(request)) as jobs:
            async for job in jobs:
                yield job

    async def cancel(self, request: wire.CancelModelJobRequest, actor: Actor) -> wire.CancelModelJobResponse:
        await self._demand_database()
        request.actor = actor.name
        answer = await self._library.cancel(request)
        states = [f"{target.backend}={_state(target.state)}" for target in answer.job.targets]
        await self._record(actor, "model_job.cancel", answer.job.id, before=None, after={"backends": states})
        return answer

    async def describe(self, request: wire.DescribeModelRequest) -> wire.DescribeModelResponse:
        return await self._library.describe(request)

    async def pin(self, request: wire.PinModelRequest, actor: Actor) -> wire.PinModelResponse:
        await self._demand_database()
        request.actor = actor.name
        answer = await self._library.pin(request)
        await self._record(
            actor,
            "model.unpin" if request.undo else "model.pin",
            request.model,
            before={"pinned_on": _names(answer.before)},
            after={"pinned_on": _names(answer.after)},
        )
        return answer

    async def pins(self, request: wire.ListModelPinsRequest) -> wire.ListModelPinsResponse:
        return await self._library.pins(request)

    async def _having(self, model: str) -> set[str]:
        """Names of the backends that have it now."""
        name = model.removesuffix(_USUAL_TAG)
        return {
            backend.name
            for backend in await self._registry.backends()
            if any(held.name.removesuffix(_USUAL_TAG) == name for held in backend.models)
        }

    async def _record(self, actor: Actor, action: str, subject: str, *, before: Facts | None, after: Facts) -> None:
        act = Act(actor.name, action, subject, actor_key_id=actor.key_id, before=before, after=after)
        try:
            async with self._database.writing() as connection:
                await record(connection, act, datetime.fromtimestamp(self._clock.now(), UTC))
        except Unavailable as error:
            raise Unavailable(
                "The registry has the order, but Postgres went away before it was audited; see: forebay model jobs"
            ) from error

    async def _demand_database(self) -> None:
        """What cannot be audited is not begun. Raises Unavailable."""
        async with self._database.reading() as connection:
            await connection.execute(text("SELECT 1"))


def _names(pins: Iterable[wire.ModelPin]) -> list[str]:
    return sorted(pin.backend for pin in pins)


def _word(action: wire.ModelAction.ValueType) -> str:
    return wire.ModelAction.Name(action).removeprefix("MODEL_ACTION_").lower()


def _state(state: wire.ModelJobState.ValueType) -> str:
    return wire.ModelJobState.Name(state).removeprefix("MODEL_JOB_STATE_").lower()
