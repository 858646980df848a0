"""Counts what works: each official client library with each feature in front of each kind of engine, streamed and whole; and
how soon a client that goes is let go in each dialect (`cancelling`).

The same cells as the tests try (`tests/compatibility`), and docs/compatibility.md tells one by one; and those of the
JavaScript libraries (`tests/javascript`), where they are installed."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import cancelling
from benchmarks.targets import Target, tell
from tests.compatibility.matrix import CLIENTS, ENGINES, Outcome, cells, client_of, serving, tried
from tests.javascript.cells import ENGINES_TRIED, LIBRARIES, NoNode, cells_before

_WITHIN_S = 20.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="forebay-dialects-") as work:
        counted, failures = asyncio.run(_count(Path(work)))
        left = asyncio.run(cancelling.measure(Path(work) / "cancelling"))
        in_javascript, why_not = asyncio.run(_count_javascript(Path(work) / "javascript"))
    targets: list[Target] = []
    for made in CLIENTS:
        works, refused, absent, fails = (counted[made.name, outcome] for outcome in _ORDER)
        how = f"{works} work, {refused} are refused with a reason, {absent} are not in the dialect."
        targets.append(Target(f"{made.name}: cells that fail", fails, 0, "at most", "cells", how))
    refused = sum(counted[made.name, Outcome.REFUSED] for made in CLIENTS)
    works = sum(counted[made.name, Outcome.WORKS] for made in CLIENTS)
    share = works / (works + refused + len(failures))
    told = (
        f"Of {works + refused + len(failures)} that the dialects have words for, {refused} are refused with a reason."
    )
    targets.append(Target("cells that work", 100 * share, 95, "at least", "%", told))
    if not why_not:
        works, _, absent, fails = (
            in_javascript[outcome] for outcome in (Outcome.WORKS, Outcome.REFUSED, Outcome.ABSENT, Outcome.FAILS)
        )
        fails += in_javascript[Outcome.REFUSED]  # by an engine of one's own nothing is, that these ask for
        how = f"{', '.join(LIBRARIES)}: {works} work, {absent} are not in the dialect."
        targets.append(Target("in JavaScript: cells that fail", fails, 0, "at most", "cells", how))
    worst = max(left)
    how = f"Longest of {len(left)}, from a client's going to the freed slot or place: {worst.doing}, {worst.path}."
    targets.append(Target("cancelling, the worst dialect", 1000 * worst.took_s, 100, "at most", "ms", how))
    tell("dialects", targets)
    if why_not:
        sys.stdout.write(f"The JavaScript libraries are not counted: {why_not}.\n")
    for failure in failures:
        sys.stdout.write(f"{failure}\n")


_ORDER = (Outcome.WORKS, Outcome.REFUSED, Outcome.ABSENT, Outcome.FAILS)


async def _count(work: Path) -> tuple[Counter[tuple[str, Outcome]], list[str]]:
    counted: Counter[tuple[str, Outcome]] = Counter()
    failures: list[str] = []
    for engine in ENGINES:
        async with serving(work / engine.kind_name, engine) as (house, _):
            for made in CLIENTS:
                async with client_of(made, house.url, str(house.key)) as client:
                    for cell in cells():
                        if (cell.client, cell.engine) != (made, engine):
                            continue
                        seen = await asyncio.wait_for(tried(cell, client), _WITHIN_S)
                        counted[made.name, seen.outcome] += 1
                        if seen.outcome is Outcome.FAILS:
                            failures.append(f"{cell}: {seen.why}")
    return counted, failures


async def _count_javascript(work: Path) -> tuple[Counter[str], str]:
    """And why there are none."""
    counted: Counter[str] = Counter()
    work.mkdir()
    for engine in ENGINES_TRIED:
        try:
            counted.update(cell["outcome"] for cell in await cells_before(work / engine.kind_name, engine))
        except NoNode as reason:
            return counted, str(reason)
    return counted, ""


if __name__ == "__main__":
    main()
