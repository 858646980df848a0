"""Looking at every backend, again and again: one task each, so that a hung engine delays nobody else's turn.

How a look is made is `probe`'s part, what it means `health`'s; what becomes of the news is the listener's."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from forebay.clock import Clock
from forebay.metrics import Number
from forebay_registry.backend import BackendId, Condition, EngineKind, Load, Observed, Seen
from forebay_registry.engines.probe import Answered, Failed, Target
from forebay_registry.health.conditions import Health, Outcome, Rhythm, Thresholds, next_look_s, step

log = logging.getLogger(__name__)


Tell = Callable[[BackendId, Observed], None]
"""Hears what a look found, on the loop, right after it."""


class Looks(Protocol):
    async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed: ...


@dataclass(frozen=True, slots=True)
class Beat:
    """How often to look, how sure to be, and how old a gauge may be."""

    rhythm: Rhythm = field(default_factory=Rhythm)
    rhythm_https: Rhythm = field(default_factory=lambda: Rhythm(healthy_s=10.0, doubt_s=2.0, dead_s=30.0))
    """An https address is usually somebody else's, who counts our calls."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    load_stale_s: float = 15.0
    """A load measured longer ago than this is not told any more."""

    def rhythm_of(self, target: Target) -> Rhythm:
        return self.rhythm_https if target.url.startswith("https:") else self.rhythm


@dataclass(slots=True)
class _Post:
    """One backend under watch."""

    target: Target
    seen: Seen
    tell: Tell
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Patrol:
    """Watches what `watch` was told to, until `forget`."""

    def __init__(
        self,
        looks: Looks,
        clock: Clock,
        beat: Beat,
        *,
        outcomes: Mapping[Outcome, Number] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._looks = looks
        self._clock = clock
        self._beat = beat
        self._jitter = jitter
        self._posts: dict[BackendId, _Post] = {}
        self._outcomes = outcomes or {outcome: Number() for outcome in Outcome}
        self._tasks: asyncio.TaskGroup | None = None

    def watch(self, backend_id: BackendId, target: Target, seen: Seen, tell: Tell) -> None:
        """From now on, beginning at once. Another address begins anew, with `seen` as what is known; the same one with
        another credential is looked at again at once."""
        post = self._posts.get(backend_id)
        if post is not None and (post.target.url, post.target.kind) == (target.url, target.kind):
            if post.target != target:
                post.target = target
                post.kick.set()
            return
        self.forget(backend_id)
        post = self._posts[backend_id] = _Post(target, seen, tell)
        self._start(backend_id, post)

    def forget(self, backend_id: BackendId) -> None:
        post = self._posts.pop(backend_id, None)
        if post is not None and post.task is not None:
            post.task.cancel()

    async def run(self) -> None:
        """Looks, until cancelled. What is to be watched may be told before."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for backend_id, post in self._posts.items():
                self._start(backend_id, post)
            try:
                await asyncio.get_running_loop().create_future()  # for ever: watches come and go
            finally:
                self._tasks = None  # a call that is still being answered starts nothing new

    def _start(self, backend_id: BackendId, post: _Post) -> None:
        if self._tasks is not None:
            post.task = self._tasks.create_task(self._keep_watch(backend_id, post), name=f"watch-{backend_id}")

    async def _keep_watch(self, backend_id: BackendId, post: _Post) -> None:
        health = Health(since=self._clock.monotonic())
        observed = Observed(seen=post.seen)
        found: EngineKind | None = None
        while True:
            post.kick.clear()
            target = post.target
            answer = await self._looks.look(target, found)
            before, outcome = health, _outcome(answer)
            self._outcomes[outcome].value += 1
            health = step(health, outcome, self._clock.monotonic(), self._beat.thresholds)
            observed = self._after(observed, answer, health)
            # An engine that comes back may be another one.
            found = observed.seen.kind if health.condition is not Condition.UNHEALTHY else None
            if health.condition is not before.condition:
                _log_change(backend_id, target, observed)
            post.tell(backend_id, observed)
            await self._rest(
                post, next_look_s(health, self._clock.monotonic(), self._jitter(), self._beat.rhythm_of(target))
            )

    def _after(self, observed: Observed, answer: Answered | Failed, health: Health) -> Observed:
        now = self._clock.now()
        load = observed.load
        if isinstance(answer, Answered):
            load = answer.load or load
            seen = _joined(observed.seen, answer.seen)
            reason = "" if health.condition is Condition.HEALTHY else observed.reason
        else:
            seen = observed.seen
            # While it is merely in doubt it still counts as healthy, and a healthy backend has nothing to explain.
            reason = "" if health.condition is Condition.HEALTHY else answer.reason
        if load is not None and (health.condition is Condition.UNHEALTHY or self._is_stale(load, now)):
            load = None
        return replace(observed, condition=health.condition, reason=reason, checked_at=now, seen=seen, load=load)

    def _is_stale(self, load: Load, now: float) -> bool:
        return now - load.measured_at > self._beat.load_stale_s

    async def _rest(self, post: _Post, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await post.kick.wait()
        except TimeoutError:
            return


def _outcome(answer: Answered | Failed) -> Outcome:
    return Outcome.SUCCESS if isinstance(answer, Answered) else answer.outcome


def _joined(before: Seen, now: Seen) -> Seen:
    """What the engine did not say this time stays as it said it last."""
    if now.kind is not None and before.kind is not None and now.kind is not before.kind:
        return now
    return Seen(now.kind or before.kind, now.slots or before.slots, now.models)


def _log_change(backend_id: BackendId, target: Target, observed: Observed) -> None:
    level = logging.INFO if observed.condition is Condition.HEALTHY else logging.WARNING
    fields = {"action": "health", "backend": backend_id, "url": target.url, "condition": str(observed.condition)}
    log.log(level, "backend is %s", observed.condition, extra={**fields, "why": observed.reason})
