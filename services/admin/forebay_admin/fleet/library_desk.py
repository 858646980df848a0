"""Operators' calls about models on the engines: authorised and audited here, done by the registry.

What is audited is the order. How it went stands in the job, which is the registry's to keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from forebay.clock import Clock
from forebay.database import Database
from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.audit.audit import Audit
from forebay_admin.fleet.library_client import LibraryClient
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.people.access import Actor

_USUAL_TAG = ":latest"
_NOT_AUDITED = "The registry has the order, but Postgres went away before it was audited; see: forebay model jobs"


class LibraryDesk:
    def __init__(self, database: Database, library: LibraryClient, registry: RegistryClient, clock: Clock) -> None:
        self._audit = Audit(database, clock)
        self._library = library
        self._registry = registry

    async def start(self, request: wire.StartModelJobRequest, actor: Actor) -> wire.StartModelJobResponse:
        await self._audit.demand()
        before = await self._having(request.model)
        request.actor = actor.name
        answer = await self._library.start(request)
        job = answer.job
        told: dict[str, str | list[str]] = {"job": job.id, "backends": [target.backend for target in job.targets]}
        more = {name: value for name in ("destination", "source", "keep_alive") if (value := getattr(request, name))}
        await self._audit.record(
            actor,
            f"model.{_word(job.action)}",
            job.model,
            before={"backends_with_it": sorted(before & {target.backend for target in job.targets})},
            after={**told, **more, **({"force": True} if request.force else {})},
            if_lost=_NOT_AUDITED,
        )
        return answer

    async def jobs(self, request: wire.ListModelJobsRequest) -> wire.ListModelJobsResponse:
        return await self._library.jobs(request)

    async def follow(self, request: wire.FollowModelJobRequest) -> AsyncGenerator[wire.ModelJob, None]:
        async with aclosing(self._library.follow(request)) as jobs:
            async for job in jobs:
                yield job

    async def cancel(self, request: wire.CancelModelJobRequest, actor: Actor) -> wire.CancelModelJobResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._library.cancel(request)
        states = [f"{target.backend}={_state(target.state)}" for target in answer.job.targets]
        await self._audit.record(
            actor, "model_job.cancel", answer.job.id, after={"backends": states}, if_lost=_NOT_AUDITED
        )
        return answer

    async def describe(self, request: wire.DescribeModelRequest) -> wire.DescribeModelResponse:
        return await self._library.describe(request)

    async def pin(self, request: wire.PinModelRequest, actor: Actor) -> wire.PinModelResponse:
        await self._audit.demand()
        request.actor = actor.name
        answer = await self._library.pin(request)
        await self._audit.record(
            actor,
            "model.unpin" if request.undo else "model.pin",
            request.model,
            before={"pinned_on": _names(answer.before)},
            after={"pinned_on": _names(answer.after)},
            if_lost=_NOT_AUDITED,
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


def _names(pins: Iterable[wire.ModelPin]) -> list[str]:
    return sorted(pin.backend for pin in pins)


def _word(action: wire.ModelAction.ValueType) -> str:
    return wire.ModelAction.Name(action).removeprefix("MODEL_ACTION_").lower()


def _state(state: wire.ModelJobState.ValueType) -> str:
    return wire.ModelJobState.Name(state).removeprefix("MODEL_JOB_STATE_").lower()
