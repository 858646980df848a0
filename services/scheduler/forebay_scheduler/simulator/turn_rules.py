"""Other schedulers' rules for whose turn it is, written anew from their descriptions. They hold one queue before all
engines, and an engine takes from it whatever fits, at each of its steps: nothing is decided earlier than it must be."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence

from forebay_scheduler.simulator.discipline import Quiet, Sent
from forebay_scheduler.simulator.engines import Engine
from forebay_scheduler.simulator.jobs import Job, Workload


class _Lines(Quiet):
    """One line for each user, first in, first out."""

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self._workload = workload
        self._lines: OrderedDict[int, deque[Job]] = OrderedDict()
        """Users without a backlog are not in it."""
        self._count = 0

    def arrive(self, job: Job, now: float) -> Sent:
        if job.user not in self._lines:
            self._lines[job.user] = deque()
            self._joins(job.user)
        self._lines[job.user].append(job)
        self._count += 1
        return ()

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        if job.user not in self._lines:
            self._lines[job.user] = deque()
            self._joins(job.user)
        self._lines[job.user].appendleft(job)
        self._count += 1
        return ()

    def waiting(self) -> int:
        return self._count

    def _joins(self, user: int) -> None:
        """This user has a backlog from now on, and is in `_lines` already."""

    def _take(self, user: int) -> Job:
        line = self._lines[user]
        job = line.popleft()
        if not line:
            del self._lines[user]
        self._count -= 1
        return job


class FirstCome(Quiet):
    """In order of arrival, whoever asks."""

    name = "fcfs"

    def __init__(self) -> None:
        self._line: deque[Job] = deque()

    def arrive(self, job: Job, now: float) -> Sent:
        self._line.append(job)
        return ()

    def room(self, engine: Engine, now: float) -> Job | None:
        if self._line and engine.fits(self._line[0]):
            return self._line.popleft()
        return None

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        self._line.appendleft(job)
        return ()

    def waiting(self) -> int:
        return len(self._line)


class FixedLimit(FirstCome):
    """First come, first served, and never more than so many in the engine, whatever it could take."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.name = f"fixed_{most}"
        self._most = most

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def arrive(self, job: Job, now: float) -> Sent:
        super().arrive(job, now)
        return self._next()

    def room(self, engine: Engine, now: float) -> Job | None:
        return None

    def end(self, job: Job, now: float) -> Sent:
        return self._next()

    def _next(self) -> Sent:
        least = min(self._engines, key=lambda engine: engine.in_flight)
        return ((self._line.popleft(), least.index),) if self._line and least.in_flight < self._most else ()


class Turns(_Lines):
    """Users in turn, a request each, however long. (The flow control of llm-d, with `round-robin` as its fairness.)"""

    name = "round_robin"

    def room(self, engine: Engine, now: float) -> Job | None:
        if not self._lines:
            return None
        user = next(iter(self._lines))
        if not engine.fits(self._lines[user][0]):
            return None
        job = self._take(user)
        if user in self._lines:
            self._lines.move_to_end(user)
        return job


class TokenCounters(_Lines):
    """A counter of tokens served for each user; the least goes next. (VTC, Sheng et al., OSDI'24.)

    The whole prompt is charged at the start, cached or not, output as it is written. Whoever gets a backlog has its counter
    lifted to the least among those who have one."""

    name = "vtc"

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        super().begin(workload, engines)
        self._served = [0.0] * workload.users
        self._scale = [1 / workload.weight(user) for user in range(workload.users)]

    def _joins(self, user: int) -> None:
        others = [self._served[other] for other in self._lines if other != user]
        if others:
            self._served[user] = max(self._served[user], min(others))

    def room(self, engine: Engine, now: float) -> Job | None:
        if not self._lines:
            return None
        user = min(self._lines, key=self._served.__getitem__)
        if not engine.fits(self._lines[user][0]):
            return None
        job = self._take(user)
        self._served[user] += self._workload.cost.prompt * job.prompt_tokens * self._scale[user]
        return job

    def first_token(self, job: Job, now: float) -> Sent:
        self._served[job.user] += self._workload.cost.output * self._scale[job.user]
        return ()

    def progress(self, tokens: Mapping[int, int], engine: Engine, now: float) -> Sent:
        output, served, scale = self._workload.cost.output, self._served, self._scale
        for user, count in tokens.items():
            served[user] += output * count * scale[user]
        return ()


class ChargedAtCompletion(_Lines):
    """A deficit rule charged at completion, as a campus gateway has it.

    priority = (deficit + burst) / weight × penalty + 0.1 × seconds waited. The deficit falls by a request's tokens when it
    completes, to −10,000 × weight at the least; every 30 s all deficits are shifted up when the least is below −1000.
    Whoever took more than half of the last 300 s has a penalty below 1. What arrives tries to start before anybody who
    waits; what waits tries again when something completes, best priority first."""

    name = "wdrr"
    _PERIOD_S = 30.0
    _WINDOW_S = 300.0

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        super().begin(workload, engines)
        self._deficit: dict[int, float] = {}
        self._burst: dict[int, float] = {}
        self._recent: deque[tuple[float, int, int]] = deque()
        self._recent_of: dict[int, int] = {}
        self._next_at = self._PERIOD_S
        self._new: list[Job] = []
        self._is_awake = [True] * len(engines)

    def arrive(self, job: Job, now: float) -> Sent:
        self._deficit.setdefault(job.user, 0.0)
        self._burst.setdefault(job.user, 0.0)
        self._new.append(job)
        return super().arrive(job, now)

    def room(self, engine: Engine, now: float) -> Job | None:
        for job in self._new:
            if engine.fits(job):
                self._new.remove(job)
                line = self._lines[job.user]
                line.remove(job)
                if not line:
                    del self._lines[job.user]
                self._count -= 1
                return job
        self._new.clear()
        if not self._is_awake[engine.index]:
            return None
        for user in sorted(self._lines, key=lambda user: -self._priority(user, now)):
            if engine.fits(self._lines[user][0]):
                return self._take(user)
        self._is_awake[engine.index] = False
        return None

    def end(self, job: Job, now: float) -> Sent:
        tokens = job.prompt_tokens + job.output_tokens
        user, weight = job.user, self._workload.weight(job.user)
        self._deficit[user] = max(self._deficit[user] - tokens, -10_000 * weight)
        self._recent.append((now, user, tokens))
        self._recent_of[user] = self._recent_of.get(user, 0) + tokens
        self._is_awake = [True] * len(self._is_awake)
        return ()

    def wakes_at(self) -> float:
        return self._next_at if self._lines else float("inf")

    def wake(self, now: float) -> Sent:
        self._next_at = now + self._PERIOD_S
        while self._recent and self._recent[0][0] < now - self._WINDOW_S:
            _, user, tokens = self._recent.popleft()
            self._recent_of[user] -= tokens
        least = min(self._deficit.values())
        if least < -1000:
            for user in self._deficit:
                self._deficit[user] += -least - 500
        for user in self._burst:
            self._burst[user] *= 0.5
        return ()

    def _priority(self, user: int, now: float) -> float:
        credit = (self._deficit[user] + self._burst[user]) / max(self._workload.weight(user), 0.1)
        return credit * self._penalty(user) + 0.1 * (now - self._lines[user][0].arrives_at)

    def _penalty(self, user: int) -> float:
        total = sum(self._recent_of.values())
        share = self._recent_of.get(user, 0) / total if total else 0.0
        return max(0.1, 1 - 2 * (share - 0.5)) if share > 0.5 else 1.0


class LongestPrefix(_Lines):
    """What the engine has most of in its cache goes next, then what came first. Nobody's share counts."""

    name = "prefix_only"

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self._waiting: dict[int, Job] = {}

    def arrive(self, job: Job, now: float) -> Sent:
        self._waiting[job.number] = job
        return ()

    def room(self, engine: Engine, now: float) -> Job | None:
        best: Job | None = None
        best_match = -1
        known: dict[int, int] = {}
        for job in self._candidates():
            first = job.blocks[0] if job.blocks else -1
            if known.get(first, 1) == 0:
                continue
            match = engine.cached_blocks(job)
            known.setdefault(first, match)
            if match > best_match:
                best, best_match = job, match
        if best is None:
            best = next(iter(self._waiting.values()), None)
        if best is None or not engine.fits(best):
            return None
        del self._waiting[best.number]
        return best

    def _candidates(self) -> Iterator[Job]:
        yield from self._waiting.values()

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        return self.arrive(job, now)

    def waiting(self) -> int:
        return len(self._waiting)
