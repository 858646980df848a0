"""One fault after another while clients stream: what they saw of each, and what came of all their requests."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.chaos.figures import Figure
from tests.system.chaos import Load, what_does_not_add_up
from tests.system.cluster import Cluster
from tests.system.installation import Streamed

SLOTS = 4
ENGINES = {
    "counted": ("--slots", str(SLOTS), "--tokens-per-s", "30", "--flavour", "llama.cpp"),
    "silent": ("--slots", str(SLOTS), "--tokens-per-s", "30"),
}
CLIENTS = 7
"""At each of two gateways; on eight slots, so that somebody always waits."""
_LOOK_S = 0.02
_CALM_S = 1.0
_AGAIN_WITHIN_S = 15.0
"""From when all that was killed runs again: schedulers elect, gateways find their fleet, an answer takes its time."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Episode:
    name: str
    took_s: float
    served: int
    pause_s: float
    """The longest time in which nobody's answer came to its end."""
    harmed: tuple[Streamed, ...]
    """Those that were refused or broke."""
    unpromised: tuple[Streamed, ...]
    """Those of them that should not have been."""


@dataclass
class Story:
    """What happened, episode by episode."""

    cluster: Cluster
    loads: Sequence[Load]
    """One for each gateway, in their order: clients of one gateway do not wait for another."""
    episodes: list[Episode] = field(default_factory=list)
    _pause_s: float = 0.0

    @asynccontextmanager
    async def episode(
        self, name: str, *, gateways_hit: Collection[int] = (), refusals: Collection[str] = (), calm_s: float = _CALM_S
    ) -> AsyncIterator[None]:
        """`gateways_hit`: the numbers of those whose own requests may break; `refusals`: the codes with which any may be
        refused. Left when what happened inside is over, and a moment later."""
        began, before = time.monotonic(), [len(load.results) for load in self.loads]
        watching = asyncio.create_task(self._longest_pause(), name="pauses")
        try:
            yield
            await asyncio.sleep(calm_s)
            await self._whole_answer_since(before)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        seen = [load.results[count:] for load, count in zip(self.loads, before, strict=True)]
        harmed = [[result for result in results if not _is_whole(result)] for results in seen]
        unpromised = [
            result
            for number, results in enumerate(harmed)
            if number not in gateways_hit
            for result in results
            if (result.error or {}).get("code") not in refusals
        ]
        served = sum(map(len, seen)) - sum(map(len, harmed))
        self.episodes.append(
            Episode(
                name,
                time.monotonic() - began,
                served,
                self._pause_s,
                tuple(itertools.chain(*harmed)),
                tuple(unpromised),
            )
        )

    async def _whole_answer_since(self, counts: Sequence[int]) -> None:
        """Or for a while: what was not served by then is told with the figures."""
        until = time.monotonic() + _AGAIN_WITHIN_S
        while time.monotonic() < until:
            if any(
                _is_whole(one) for load, count in zip(self.loads, counts, strict=True) for one in load.results[count:]
            ):
                return
            await asyncio.sleep(_LOOK_S)

    async def _longest_pause(self) -> None:
        self._pause_s, seen, since = 0.0, self._finished, time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            now, count = time.monotonic(), self._finished
            self._pause_s = max(self._pause_s, now - since)
            if count > seen:
                seen, since = count, now

    @property
    def _finished(self) -> int:
        return sum(load.finished for load in self.loads)

    def told(self) -> str:
        """For whoever reads why a run failed."""
        lines = [
            f"{one.name}: {one.took_s:.1f} s, {one.served} answers, longest pause {one.pause_s:.1f} s, "
            f"{len(one.harmed)} harmed{''.join(f'; NOT PROMISED: {result}' for result in one.unpromised[:5])}"
            for one in self.episodes
        ]
        return "\n".join([*lines, *self.cluster.said])


@dataclass(frozen=True, slots=True)
class Sums:
    """After it all: whether rows, tokens and slots add up."""

    problems: list[str]
    peak: int
    """The most slots of one engine that were in use at once."""

    @property
    def lost(self) -> int:
        return sum("no row" in problem for problem in self.problems)

    @property
    def doubled(self) -> int:
        return sum(problem.endswith(" rows") for problem in self.problems)

    @property
    def leaked(self) -> int:
        return sum(problem.startswith(("with nobody asking", "engine")) for problem in self.problems)


async def add_up(cluster: Cluster, *loads: Load, is_overlap_allowed: bool = False) -> Sums:
    problems = await what_does_not_add_up(cluster, SLOTS, *loads, is_overlap_allowed=is_overlap_allowed)
    return Sums(problems, max([(await engine.seen())["peak_width"] for engine in cluster.engines.values()]))


def figures_of(story: Story, sums: Sums) -> dict[str, Figure]:
    harmed = list(itertools.chain(*(one.harmed for one in story.episodes)))
    unreached = sum("ClientConnectorError" in result.broke for result in harmed)
    longest = max(story.episodes, key=lambda one: one.pause_s)
    return {
        "faults": len(story.episodes) - 1,
        "requests": sum(len(load.results) + len(load.left) for load in story.loads),
        "whole answers": sum(load.finished for load in story.loads),
        "found no gateway": unreached,
        "broke or were refused": len(harmed) - unreached,
        "not as promised": sum(len(one.unpromised) for one in story.episodes),
        "longest pause s": round(longest.pause_s, 2),
        "at": longest.name,
        "rows lost": sums.lost,
        "rows doubled": sums.doubled,
        "slots leaked": sums.leaked,
        "most slots at once": sums.peak,
        "of": SLOTS,
    }


def holds_of(story: Story, sums: Sums) -> dict[str, bool]:
    return {
        "only what was promised to break broke": not any(one.unpromised for one in story.episodes),
        "answers came during or right after every fault": all(one.served for one in story.episodes),
        "zero lost or doubled rows": not (sums.lost or sums.doubled),
        "zero leaked slots": not sums.leaked,
        "all tokens are counted": len(sums.problems) == sums.lost + sums.doubled + sums.leaked,
        "engines never had more than their slots": sums.peak <= SLOTS,
    }


def why(story: Story, sums: Sums) -> str:
    return "\n".join([*sums.problems[:40], story.told()])


@asynccontextmanager
async def under_load(cluster: Cluster, name: str, chance: random.Random) -> AsyncIterator[Story]:
    """Entered: all is served. Left: every request has come to its end."""
    async with AsyncExitStack() as stack:
        loads = [
            await stack.enter_async_context(Load(cluster, CLIENTS, chance, name=f"{name}{number}", gateways=(number,)))
            for number in range(len(cluster.layout.gateways))
        ]
        story = Story(cluster, loads)
        stack.callback(lambda: log.info("%s:\n%s", name, story.told()))
        async with story.episode("nothing", calm_s=3.0):
            pass
        yield story


async def kill_and_wait(cluster: Cluster, *parts: str, within_s: float = 100.0) -> None:
    """-9 for all of them at once, until others run in their place and are ready."""
    before = {part: cluster.parts[part].restarts for part in parts}
    for part in parts:
        cluster.kill(part)
    async with asyncio.timeout(within_s):
        while any(cluster.parts[part].restarts == before[part] for part in parts):
            await asyncio.sleep(_LOOK_S)


def _is_whole(result: Streamed) -> bool:
    return result.status == 200 and not result.broke and result.error is None and result.is_done
