"""The registry's library as admin meets it: jobs that go as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from forebay.errors import NotFound, Unavailable
from forebay.wire.v1 import library_pb2 as wire
from forebay.wire.v1.library_pb2_grpc import ModelLibraryServicer
from forebay.wire.v1.registry_pb2 import Backend

RUNNING, DONE = wire.MODEL_JOB_STATE_RUNNING, wire.MODEL_JOB_STATE_DONE


class FakeLibrary(ModelLibraryServicer):
    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self.jobs: dict[str, wire.ModelJob] = {}
        self.pins: dict[tuple[str, str], wire.ModelPin] = {}
        self.orders: list[wire.StartModelJobRequest] = []
        self.actors: list[str] = []
        self.error = ""
        """Of jobs that begin from now on: how they fail."""
        self.never_ends = False
        self.following = 0
        """So many follow a job that does not end."""
        self.restarts = 0
        """How often a job that is followed is left in the middle."""

    async def StartModelJob(self, request: wire.StartModelJobRequest, context: Any) -> wire.StartModelJobResponse:
        self.orders.append(request)
        targets = [
            wire.ModelJobTarget(backend_id=f"be-{name}", backend=name, state=RUNNING, status="pulling", total_bytes=100)
            for name in self._chosen(request.on)
        ]
        job = wire.ModelJob(
            id=f"mj-{len(self.jobs) + 1}",
            action=request.action,
            model=request.model,
            destination=request.destination,
            source=request.source,
            actor=request.actor,
            state=RUNNING,
            created_at_us=1_700_000_000_000_000,
            targets=targets,
        )
        self.jobs[job.id] = job
        passed = [wire.PassedOver(backend="vllm", why="is vLLM, which cannot pull models")] if request.on.all else []
        return wire.StartModelJobResponse(job=job, passed_over=passed)

    async def ListModelJobs(self, request: wire.ListModelJobsRequest, context: Any) -> wire.ListModelJobsResponse:
        jobs = [job for job in self.jobs.values() if job.state == RUNNING or not request.unfinished]
        return wire.ListModelJobsResponse(jobs=jobs)

    async def FollowModelJob(self, request: wire.FollowModelJobRequest, context: Any) -> AsyncIterator[wire.ModelJob]:
        job = self._job(request.id)
        yield job
        if self.restarts:
            self.restarts -= 1
            raise Unavailable("The registry stops; the job goes on when it is back.")
        if self.never_ends:
            self.following += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.following -= 1
        for target in job.targets:
            target.state = wire.MODEL_JOB_STATE_FAILED if self.error else DONE
            target.error, target.completed_bytes = self.error, 100
        job.state, job.ended_at_us = job.targets[0].state, 1_700_000_001_000_000
        yield job

    async def CancelModelJob(self, request: wire.CancelModelJobRequest, context: Any) -> wire.CancelModelJobResponse:
        self.actors.append(request.actor)
        job = self._job(request.id)
        job.state = wire.MODEL_JOB_STATE_CANCELLED
        for target in job.targets:
            target.state = job.state
        return wire.CancelModelJobResponse(job=job)

    async def DescribeModel(self, request: wire.DescribeModelRequest, context: Any) -> wire.DescribeModelResponse:
        models = [
            wire.ModelDescription(backend=name, engine_name=request.model, family="llama", quantization="Q4_K_M")
            for name in self._backends
        ]
        return wire.DescribeModelResponse(models=models)

    async def PinModel(self, request: wire.PinModelRequest, context: Any) -> wire.PinModelResponse:
        self.actors.append(request.actor)
        names = self._chosen(request.on)
        before = [pin for (model, name), pin in self.pins.items() if model == request.model and name in names]
        for name in names:
            key = request.model, name
            if request.undo:
                self.pins.pop(key, None)
            else:
                pin = wire.ModelPin(backend=name, model=request.model, pinned_by=request.actor, loaded=True)
                self.pins.setdefault(key, pin)
        after = [pin for (model, name), pin in self.pins.items() if model == request.model and name in names]
        return wire.PinModelResponse(before=before, after=after)

    async def ListModelPins(self, request: wire.ListModelPinsRequest, context: Any) -> wire.ListModelPinsResponse:
        return wire.ListModelPinsResponse(pins=self.pins.values())

    def _chosen(self, on: wire.BackendChoice) -> list[str]:
        for name in on.backends:
            if name not in self._backends:
                raise NotFound(f"There is no backend {name!r}.")
        return list(on.backends) or list(self._backends)

    def _job(self, job_id: str) -> wire.ModelJob:
        if job_id not in self.jobs:
            raise NotFound(f"There is no job {job_id}; see: forebay model jobs")
        return self.jobs[job_id]
