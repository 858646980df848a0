"""The gRPC methods of the library, for admin: parse, decide, reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.errors import BadInput, ForebayError, NotFound
from forebay.wire.v1 import library_pb2 as wire
from forebay.wire.v1.library_pb2_grpc import ModelLibraryServicer
from forebay_registry.backend import EngineKind
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import Choice, find, has, name_at
from forebay_registry.library.job import JobId
from forebay_registry.library.names import demand_model
from forebay_registry.library.ollama import Ollama
from forebay_registry.library.pins import Pins
from forebay_registry.library.runner import Fleet, JobRunner
from forebay_registry.library.wire import read_choice, read_order, to_description, to_job, to_passed, to_pin
from forebay_registry.library.work import Work

RIGHTS = {"/forebay.wire.v1.ModelLibrary/*": frozenset({"admin"})}

_USUAL_JOBS, _MOST_JOBS = 50, 1000
_ASK_S = 3.0
"""Less than admin waits for the whole answer."""


class LibraryCalls(ModelLibraryServicer):
    def __init__(self, fleet: Fleet, runner: JobRunner, pins: Pins, work: Work) -> None:
        self._fleet = fleet
        self._runner = runner
        self._pins = pins
        self._work = work

    async def StartModelJob(self, request: wire.StartModelJobRequest, context: Any) -> wire.StartModelJobResponse:
        job, passed = await self._runner.start(read_order(request))
        return wire.StartModelJobResponse(job=to_job(job), passed_over=[to_passed(p) for p in passed])

    async def ListModelJobs(self, request: wire.ListModelJobsRequest, context: Any) -> wire.ListModelJobsResponse:
        if request.limit > _MOST_JOBS:
            raise BadInput(f"At most {_MOST_JOBS} jobs are told at once.")
        jobs = await self._runner.newest(request.limit or _USUAL_JOBS, unfinished=request.unfinished)
        return wire.ListModelJobsResponse(jobs=[to_job(job) for job in jobs])

    async def FollowModelJob(self, request: wire.FollowModelJobRequest, context: Any) -> AsyncIterator[wire.ModelJob]:
        async with aclosing(self._runner.follow(JobId(request.id))) as jobs:
            async for job in jobs:
                yield to_job(job)

    async def CancelModelJob(self, request: wire.CancelModelJobRequest, context: Any) -> wire.CancelModelJobResponse:
        return wire.CancelModelJobResponse(job=to_job(await self._runner.cancel(JobId(request.id), request.actor)))

    async def DescribeModel(self, request: wire.DescribeModelRequest, context: Any) -> wire.DescribeModelResponse:
        demand_model(request.model)
        views = self._described(request.model, read_choice(request.on))
        return wire.DescribeModelResponse(
            models=await asyncio.gather(*(self._describe(view, request.model) for view in views))
        )

    async def PinModel(self, request: wire.PinModelRequest, context: Any) -> wire.PinModelResponse:
        act = self._pins.unpin if request.undo else self._pins.pin
        pinned = await act(request.model, read_choice(request.on), request.actor)
        by_id = {view.id: view for view in self._fleet.views()}
        return wire.PinModelResponse(
            before=[to_pin(pin, by_id.get(pin.backend_id)) for pin in pinned.before],
            after=[to_pin(pin, by_id.get(pin.backend_id)) for pin in pinned.after],
            passed_over=[to_passed(p) for p in pinned.passed],
        )

    async def ListModelPins(self, request: wire.ListModelPinsRequest, context: Any) -> wire.ListModelPinsResponse:
        by_id = {view.id: view for view in self._fleet.views()}
        pins = [to_pin(pin, by_id.get(pin.backend_id)) for pin in await self._pins.all()]
        return wire.ListModelPinsResponse(pins=pins)

    def _described(self, model: str, choice: Choice) -> list[View]:
        """Raises BadInput, NotFound."""
        everywhere = not choice.ways
        found = find(Choice(everywhere=True) if everywhere else choice, self._fleet.views(), self._fleet.node_ids)
        having = [view for view in found if choice.backends or has(view, model)]
        if not having:
            raise NotFound(f"None of these backends has the model {model}.")
        return having

    async def _describe(self, view: View, model: str) -> wire.ModelDescription:
        name, address = name_at(view, model), self._fleet.address_of(view.id)
        if view.kind is EngineKind.OLLAMA and address is not None:
            try:
                told = await Ollama(self._work.door(view, address)).describe(name, within_s=_ASK_S)
            except ForebayError as error:
                return wire.ModelDescription(backend=view.name, engine_name=name, error=error.message)
            return to_description(view.name, name, told)
        known = next((m for m in view.models if m.name == model), None)
        if known is None:
            return wire.ModelDescription(backend=view.name, engine_name=name, error=f"{view.name} does not have it.")
        # What other engines tell of a model stands in their list of models, which the last look has read.
        return wire.ModelDescription(
            backend=view.name,
            engine_name=name,
            context_length=known.context_length,
            capabilities=known.capabilities,
        )
