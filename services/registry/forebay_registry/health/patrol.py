"""Looking at every backend, again and again: one task each, so that a hung engine delays nobody else's turn.

How a look is made is `probe`'s part, what it means `health`'s; what becomes of the news is the listener's."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from forebay.clock import Clock
from forebay.metrics import Number
from forebay_registry.backend import BackendId, Condition, EngineKind, Load, Observed, Seen
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Answered, Failed, Target
from forebay_registry.health.conditions import (
    Breaker,
    Health,
    Rhythm,
    Thresholds,
    damping,
    doubt,
    next_look_s,
    step,
)
from forebay_registry.health.pace import Pace
from forebay_registry.health.pulse import Pulse

log = logging.getLogger(__name__)

Tell = Callable[[BackendId, Observed], None]
"""Hears what a look found, on the loop, right after it."""


Recall = Callable[[BackendId, float], Health | None]
"""What is known of a backend from before this start, at a moment of the monotonic clock."""


class Looks(Protocol):
    async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed: ...


@dataclass(frozen=True, slots=True)
class Beat:
    """How often to look, how sure to be, and how old a gauge may be."""

    rhythm: Rhythm = field(default_factory=Rhythm)
    rhythm_https: Rhythm = field(default_factory=lambda: Rhythm(healthy_s=10.0, doubt_s=2.0, dead_s=30.0))
    """An https address is usually somebody else's, who counts our calls."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    load_stale_s: float = 45.0
    """Of a load measured longer ago than this only the time is told."""
    pace: Pace = field(default_factory=Pace)
    doubted_s: float = 0.25
    """Between two looks that gateways' failures alone ask for, at least."""

    def rhythm_of(self, target: Target) -> Rhythm:
        return self.rhythm_https if target.url.startswith("https:") else self.rhythm


@dataclass(slots=True)
class _Post:
    """One backend under watch."""

    target: Target
    seen: Seen
    tell: Tell
    health: Health = field(default_factory=Health)
    looked_at: float = float("-inf")
    """When the last look began, on the monotonic clock."""
    refused_since: bool | None = None
    """A gateway failed there since the last look began, and whether no connection could be made."""
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
        recall: Recall = lambda backend_id, now: None,
    ) -> None:
        self._looks = looks
        self._clock = clock
        self._beat = beat
        self._jitter = jitter
        self._recall = recall
        self._posts: dict[BackendId, _Post] = {}
        self._unlooked: set[BackendId] = set()
        """Those whose first look has not begun."""
        self._doubted: set[BackendId] = set()
        self._outcomes = outcomes or {outcome: Number() for outcome in Outcome}
        self._tasks: asyncio.TaskGroup | None = None
        self._turn_at = 0.0
        """When the next look may begin, by the loop's clock."""
        self.pulse = Pulse(clock)

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
        self._unlooked.discard(backend_id)
        self._doubted.discard(backend_id)
        if post is not None and post.task is not None:
            post.task.cancel()

    def doubt(self, backend_id: BackendId, *, is_refusal: bool) -> None:
        """A gateway failed there: it is looked at at once, or a moment after the last look, and that look decides."""
        post = self._posts.get(backend_id)
        if post is None:
            return
        post.health = doubt(post.health, is_refusal=is_refusal, thresholds=self._beat.thresholds)
        post.refused_since = is_refusal or bool(post.refused_since)
        post.kick.set()

    def breakers(self) -> Counter[Breaker]:
        """How many are in each state of a circuit breaker."""
        return Counter(post.health.breaker for post in self._posts.values())

    def look_now(self, backend_id: BackendId) -> None:
        """Something was done there that the next look shows."""
        post = self._posts.get(backend_id)
        if post is not None:
            post.kick.set()

    async def run(self) -> None:
        """Looks, until cancelled. What is to be watched may be told before."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.pulse.run(), name="pulse")
            for backend_id, post in self._posts.items():
                self._start(backend_id, post)
            try:
                await asyncio.get_running_loop().create_future()  # for ever: watches come and go
            finally:
                self._tasks = None  # a call that is still being answered starts nothing new

    def _start(self, backend_id: BackendId, post: _Post) -> None:
        if self._tasks is not None:
            self._unlooked.add(backend_id)
            post.task = self._tasks.create_task(self._keep_watch(backend_id, post), name=f"watch-{backend_id}")

    async def _keep_watch(self, backend_id: BackendId, post: _Post) -> None:
        now = self._clock.monotonic()
        recalled = self._recall(backend_id, now)
        post.health = recalled or Health(since=now)
        observed = Observed(seen=post.seen)
        found: EngineKind | None = None
        pause_s = self._beat.pace.first_look_s(len(self._unlooked), self._jitter(), is_recalled=recalled is not None)
        await self._rest(post, pause_s)
        self._unlooked.discard(backend_id)
        is_first = True
        while True:
            if post.kick.is_set():
                # However many gateways complain: an engine in trouble is not helped by being asked all the time.
                await asyncio.sleep(max(0.0, post.looked_at + self._beat.doubted_s - self._clock.monotonic()))
            else:
                await self._take_turn(post)
            post.kick.clear()
            post.refused_since = None
            post.looked_at = self._clock.monotonic()
            target = post.target
            answer = await self._look(target, found)
            before, outcome = post.health, _outcome(answer)
            self._outcomes[outcome].value += 1
            if outcome is Outcome.TIMEOUT and self.pulse.was_late_since(post.looked_at):
                await self._rest(post, self._beat.rhythm.doubt_s * (1 + self._jitter()))
                continue  # it may have answered, and nobody was here to hear it
            health = post.health = step(before, outcome, self._clock.monotonic(), self._beat.thresholds)
            if outcome is Outcome.SUCCESS and post.refused_since is not None:
                # It was asked before the gateway failed there, so its answer says nothing against that.
                is_refusal, thresholds = post.refused_since, self._beat.thresholds
                health = post.health = doubt(health, is_refusal=is_refusal, thresholds=thresholds)
            observed = self._after(observed, answer, health)
            # An engine that comes back may be another one.
            found = observed.seen.kind if health.condition is not Condition.UNHEALTHY else None
            post.tell(backend_id, observed)
            rest_s = self._until_next_s(backend_id, health, target)
            if is_first and recalled is None and health.breaker is Breaker.CLOSED:
                rest_s = self._beat.pace.second_look_s(rest_s, len(self._posts), self._jitter())
            is_first = False
            await self._rest(post, rest_s)

    async def _take_turn(self, post: _Post) -> None:
        """Else, after a moment in which this process stood still, all that became due in it would be asked at once."""
        now = asyncio.get_running_loop().time()
        self._turn_at = max(now, self._turn_at + self._beat.pace.gap_s)
        if self._turn_at > now:
            await self._rest(post, self._turn_at - now)

    async def _look(self, target: Target, found: EngineKind | None) -> Answered | Failed:
        try:
            return await self._looks.look(target, found)
        except Exception:  # one engine's answer must not end the looks at all others
            log.exception("a look failed as nobody foresaw", extra={"action": "look_fault", "url": target.url})
            return Failed(Outcome.BAD_ANSWER, "Its answer could not be read; the registry's log says why.")

    def _until_next_s(self, backend_id: BackendId, health: Health, target: Target) -> float:
        interval_s = next_look_s(health, self._clock.monotonic(), self._jitter(), self._beat.rhythm_of(target))
        # Those in doubt share looks of their own: when a switch fails, half the fleet is in doubt at once.
        is_settled = health.breaker is not Breaker.HALF_OPEN
        (self._doubted.discard if is_settled else self._doubted.add)(backend_id)
        crowd = len(self._posts) - len(self._doubted) if is_settled else len(self._doubted)
        return self._beat.pace.rest_s(interval_s, crowd, self._jitter())

    def _after(self, observed: Observed, answer: Answered | Failed, health: Health) -> Observed:
        now = self._clock.now()
        load = observed.load
        if isinstance(answer, Answered):
            load = answer.load or load
            seen, took_s = _joined(observed.seen, answer.seen), answer.took_s
        else:
            seen, took_s = observed.seen, None
        if health.condition is Condition.UNHEALTHY:
            load = None
        elif load is not None and self._is_stale(load, now):
            load = load.grown_stale()
        cause, reason = self._why(observed, answer, health)
        down_s = self._clock.monotonic() - health.since if health.condition is Condition.UNHEALTHY else 0.0
        return replace(
            observed,
            condition=health.condition,
            reason=reason,
            checked_at=now,
            seen=seen,
            load=load,
            cause=cause,
            took_s=took_s,
            down_s=down_s,
        )

    def _why(self, observed: Observed, answer: Answered | Failed, health: Health) -> tuple[str, str]:
        # While it is merely in doubt it still counts as healthy, and a healthy backend has nothing to explain.
        if health.condition is Condition.HEALTHY:
            return "answered", ""
        damped = damping(health, self._clock.monotonic(), self._beat.thresholds)
        if isinstance(answer, Answered):
            return ("flapping", damped) if damped else (observed.cause, observed.reason)
        return str(answer.outcome), f"{answer.reason} {damped}".strip()

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
    return replace(
        now,
        kind=now.kind or before.kind,
        slots=now.slots or before.slots,
        models_at_once=now.models_at_once or before.models_at_once,
        version=now.version or before.version,
    )
