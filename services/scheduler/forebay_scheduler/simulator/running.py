"""The loop: arrivals, steps of engines, outages and wake-ups, in order of time. Nothing here is random."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from forebay_scheduler.simulator.discipline import Discipline, Sent
from forebay_scheduler.simulator.engines import Engine
from forebay_scheduler.simulator.jobs import NEVER, Job, Workload
from forebay_scheduler.simulator.service_record import ServiceRecord


@dataclass(frozen=True, slots=True)
class Run:
    """What happened, for `measures` to read."""

    workload: Workload
    discipline: str
    jobs: list[Job]
    record: ServiceRecord | None
    engines: list[Engine]
    ended_at: float
    idle_while_waiting_s: float
    """Engine-seconds in which an engine had nothing to do, while something waited that it could have begun."""


def simulate(
    workload: Workload,
    discipline: Discipline,
    on_progress: Callable[[float], None] | None = None,
    *,
    until: float = NEVER,
) -> Run:
    """Runs until every job has ended, or `until`. `on_progress` is told the share of jobs that have ended, now and then."""
    return _Loop(workload, discipline, on_progress).run(until)


class _Loop:
    def __init__(self, workload: Workload, discipline: Discipline, on_progress: Callable[[float], None] | None) -> None:
        self._workload = workload
        self._discipline = discipline
        self._on_progress = on_progress
        self._jobs = [job.anew() for job in workload.jobs]
        self._engines = [Engine(index, model) for index, model in enumerate(workload.engines)]
        self._record = ServiceRecord(workload) if workload.is_about_fairness else None
        self._steps: list[tuple[float, int, int]] = []
        """When a step ends, of which engine, and in which of its lives."""
        self._lives = [0] * len(self._engines)
        self._violated_s = 0.0
        self._ended = 0
        self._now = 0.0

    def run(self, until: float) -> Run:
        discipline, jobs = self._discipline, self._jobs
        discipline.begin(self._workload, self._engines)
        outages = sorted(
            [(outage.begins_at, outage.engine, True) for outage in self._workload.outages]
            + [(outage.ends_at, outage.engine, False) for outage in self._workload.outages]
        )
        next_job = next_outage = 0
        told = 0
        while self._ended < len(jobs):
            arrival = jobs[next_job].arrives_at if next_job < len(jobs) else NEVER
            step = self._steps[0][0] if self._steps else NEVER
            outage = outages[next_outage][0] if next_outage < len(outages) else NEVER
            wake = discipline.wakes_at()
            now = min(arrival, step, outage, wake)
            if now == NEVER or now > until:
                break
            self._pass_time(now)
            if step <= now:
                self._end_step(now)
            elif outage <= now:
                _, engine, begins = outages[next_outage]
                next_outage += 1
                self._fail(self._engines[engine], now) if begins else self._restart(self._engines[engine], now)
            elif arrival <= now:
                job = jobs[next_job]
                next_job += 1
                if self._record is not None:
                    self._record.waits(job.user)
                self._send(discipline.arrive(job, now), now)
                self._start_idle(now)
            else:
                self._send(discipline.wake(now), now)
                self._start_idle(now)
            if self._on_progress is not None and self._ended * 50 // len(jobs) != told:
                told = self._ended * 50 // len(jobs)
                self._on_progress(self._ended / len(jobs))
        return Run(
            self._workload,
            discipline.name,
            jobs,
            self._record,
            self._engines,
            self._now,
            self._violated_s,
        )

    def _pass_time(self, now: float) -> None:
        if self._discipline.waiting():
            passed = now - self._now
            if passed > 0:
                idle = sum(not engine.is_stepping and not engine.is_down for engine in self._engines)
                self._violated_s += idle * passed
        self._now = now

    # -- what happens -------------------------------------------------------------------------------------------------

    def _end_step(self, now: float) -> None:
        _, index, life = heapq.heappop(self._steps)
        engine = self._engines[index]
        if life != self._lives[index]:
            return
        discipline, record = self._discipline, self._record
        tokens = dict(engine.running_of)
        firsts, ended = engine.end_step(now)
        if record is not None:
            record.step(now, tokens, firsts, engine.prefilled)
        if tokens:
            self._send(discipline.progress(tokens, engine, now), now)
        for job in firsts:
            self._send(discipline.first_token(job, now), now)
        for job in ended:
            self._ended += 1
            self._send(discipline.end(job, now), now)
        self._start(engine, now)
        if ended:
            self._start_idle(now)

    def _send(self, sent: Sent, now: float) -> None:
        for job, index in sent:
            job.granted_at = now
            job.engine = index
            job.attempts += 1
            engine = self._engines[index]
            if engine.is_down:
                self._lose(job, index, now)
            else:
                engine.send(job)

    def _start_idle(self, now: float) -> None:
        for engine in self._engines:
            if not engine.is_stepping and not engine.is_down:
                self._start(engine, now)

    def _start(self, engine: Engine, now: float) -> None:
        """Let in what fits, and begin a step."""
        self._admit(engine, now)
        while not engine.queue and (sent := self._discipline.offer(engine, now)):
            self._send(sent, now)
            self._admit(engine, now)
        while not engine.queue and (job := self._discipline.room(engine, now)) is not None:
            job.granted_at = now
            job.engine = engine.index
            job.attempts += 1
            engine.send(job)
            self._admit(engine, now)
        took = engine.begin_step(now)
        if took is not None:
            heapq.heappush(self._steps, (now + took, engine.index, self._lives[engine.index]))

    def _admit(self, engine: Engine, now: float) -> None:
        if engine.queue:
            for job in engine.admit(now):
                if self._record is not None:
                    self._record.starts(job)

    def _fail(self, engine: Engine, now: float) -> None:
        self._lives[engine.index] += 1
        for job in engine.fail():
            self._lose(job, engine.index, now)
        self._start_idle(now)

    def _lose(self, job: Job, index: int, now: float) -> None:
        if job.first_token_at < NEVER:
            job.ended_at, job.is_failed = now, True
            self._ended += 1
            self._send(self._discipline.end(job, now), now)
            return
        if job.started_at < NEVER and self._record is not None:
            self._record.waits(job.user)
        job.started_at = NEVER
        self._send(self._discipline.fail(job, index, now), now)

    def _restart(self, engine: Engine, now: float) -> None:
        engine.is_down = False
        self._send(self._discipline.up(engine.index, now), now)
        self._start(engine, now)
