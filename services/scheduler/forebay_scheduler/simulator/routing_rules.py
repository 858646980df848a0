"""Other routers' rules for where a request goes, written anew from their descriptions. They decide at once, when it arrives,
and the engines' own queues hold what waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from random import Random

from forebay_scheduler.simulator.discipline import Quiet, Sent
from forebay_scheduler.simulator.engines import Engine
from forebay_scheduler.simulator.jobs import Job, Workload


class _Router(Quiet, ABC):
    name = ""

    def __init__(self, random: Random) -> None:
        self._random = random

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        self._workload = workload
        self._engines = engines

    def arrive(self, job: Job, now: float) -> Sent:
        up = [engine for engine in self._engines if not engine.is_down and job.model in engine.model.models]
        if not up:  # nowhere to go: to the first that may come back, which hands it on
            up = [engine for engine in self._engines if job.model in engine.model.models]
        chosen = self._choose(job, up)
        self._note(job, chosen)
        return ((job, chosen.index),)

    def fail(self, job: Job, engine: int, now: float) -> Sent:
        return self.arrive(job, now)

    @abstractmethod
    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        """One of those that are up."""

    def _note(self, job: Job, engine: Engine) -> None:
        pass

    def _least(self, scores: Sequence[tuple[float, Engine]]) -> Engine:
        """Any of those with the least score."""
        least = min(score for score, _ in scores)
        return self._random.choice([engine for score, engine in scores if score == least])


class AnyEngine(_Router):
    name = "random"

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        return self._random.choice(engines)


class EnginesInTurn(_Router):
    name = "round_robin"
    _next = -1

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        self._next += 1
        return engines[self._next % len(engines)]


class LeastLoaded(_Router):
    """The fewest requests in flight."""

    name = "least_loaded"

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        return self._least([(engine.in_flight, engine) for engine in engines])


class _Indexing(_Router):
    """Remembers which prefix it sent where, least recently used out first, with the size of the engine's own cache."""

    def begin(self, workload: Workload, engines: Sequence[Engine]) -> None:
        super().begin(workload, engines)
        self._sent: list[OrderedDict[int, None]] = [OrderedDict() for _ in engines]

    def _matched(self, job: Job, engine: Engine) -> int:
        sent = self._sent[engine.index]
        matched = 0
        for block in job.blocks:
            if block not in sent:
                break
            matched += 1
        return matched

    def _note(self, job: Job, engine: Engine) -> None:
        sent = self._sent[engine.index]
        for block in reversed(job.blocks):
            sent[block] = None
            sent.move_to_end(block)
        while len(sent) > engine.model.cache_blocks:
            sent.popitem(last=False)


class PrefixOnly(_Indexing):
    """Wherever most of the prompt is cached; load does not count. (The prefix-aware router of vLLM's production stack.)"""

    name = "prefix_only"

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        return self._least([(-self._matched(job, engine), engine) for engine in engines])


class WeightedScores(_Indexing):
    """Scores from 0 to 1 with weights, the highest sum wins: prefix 3, queue 2, use of the KV pool 2. (The defaults of
    llm-d's endpoint picker.)"""

    name = "llm_d"

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        total = max(1, len(job.blocks))
        queues = [len(engine.queue) + engine.to_be_read for engine in engines]
        shortest, longest = min(queues), max(queues)
        scores = []
        for engine, queue in zip(engines, queues, strict=True):
            prefix = self._matched(job, engine) / total
            calm = (longest - queue) / (longest - shortest) if longest > shortest else 1.0
            space = max(0.0, 1 - engine.tokens_in_use / self._pool(engine))
            scores.append((-(3 * prefix + 2 * calm + 2 * space), engine))
        return self._least(scores)

    def _pool(self, engine: Engine) -> int:
        return engine.model.kv_tokens or max(1, engine.model.cache_blocks * engine.model.block_tokens)


class BlockCost(_Indexing):
    """The least blocks to be read (its own uncached ones too) plus blocks in use. (The cost rule of Dynamo's KV router.)"""

    name = "dynamo"

    def _choose(self, job: Job, engines: Sequence[Engine]) -> Engine:
        size = self._workload.block_tokens
        needed = job.prompt_tokens / size
        scores = []
        for engine in engines:
            uncached = needed - self._matched(job, engine)
            to_read = engine.queued_prefill / size + uncached
            in_use = engine.tokens_in_use / size + needed
            scores.append((to_read + in_use, engine))
        return self._least(scores)
