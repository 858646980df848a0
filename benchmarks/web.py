"""Looks at every page as everybody who may see it, in both themes and two widths: what a browser finds wrong with it, how
soon it is painted, how much script it loads; what a page that is left open comes to; and what many open pages cost admin.

`--short` leaves a page open for three minutes rather than an hour, and has those who see part of what an admin sees look in
one way each. Pictures of all pages are in build/web/screens."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiohttp
from playwright.sync_api import Page, sync_playwright

from benchmarks.targets import Target, tell
from tests.browser.tour import ONE_LOOK_EACH, STOPS, furnish, stops_for
from tests.browser.visiting import CHROMIUM, FLAGS, NOBODY, PASSWORD, PHONE, ROLES, THEMES, WIDE, House, Visitor
from tests.system.installation import start_up

_OPEN_PAGES = 500
_WATCHED_S = 30.0
_TOPICS = "overview,nodes,backends"
_HOUR_S, _SHORT_S = 3600.0, 180.0
_WINDOWS = 8
"""That one session may have open."""
_WATCHERS = ("some-admin", "some-operator", "some-auditor")
"""Who see the whole of it, each with other rights."""
_SETTLE_S = 20.0
"""A page that was just opened is still making what it needs."""


Look = tuple[str, int]
"""A theme and a width in pixels."""
_LOOKS = {role: [(theme, width) for theme in THEMES for width in (WIDE, PHONE)] for role in (NOBODY, *ROLES)}


@dataclass
class Seen:
    looks: int = 0
    violations: int = 0
    mishaps: list[str] = field(default_factory=list)
    paints_ms: list[float] = field(default_factory=list)
    slowest: str = ""
    heaviest: str = ""
    script_bytes: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="measures less of each")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-web-") as work:
        Path(work).chmod(0o755)  # PostgreSQL's user passes through
        running = start_up(Path(work) / "data", "--engine-slots", "2")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=[*FLAGS, "--enable-precise-memory-info", "--js-flags=--expose-gc"]
                )
                house = House(running, browser)
                furnish(house)
                looks = _LOOKS if not args.short else {**ONE_LOOK_EACH, "admin": _LOOKS["admin"]}
                seen = _tour(house, looks)
                watched_s = _SHORT_S if args.short else _HOUR_S
                drift_mb, heap_mb = _left_open(house, watched_s)
                browser.close()
            share, pieces = asyncio.run(_many(house))
        finally:
            running.stop()
    expected = sum(len(stops_for(role)) * len(ways) for role, ways in looks.items())
    tell(
        "web",
        [
            Target(
                "pages x roles x themes x widths",
                seen.looks,
                expected,
                "at least",
                "looks",
                f"{len(STOPS)} pages, nobody and {len(ROLES)} roles, light and dark, {WIDE} and {PHONE} px.",
            ),
            Target(
                "axe violations", seen.violations, 0, "at most", "", "WCAG 2.2 AA and good practice, on all of them."
            ),
            Target("mishaps", len(seen.mishaps), 0, "at most", "", "Script errors, foreign hosts, too wide pages."),
            Target(
                "first contentful paint",
                max(seen.paints_ms, default=None),
                1000,
                "at most",
                "ms",
                f"The slowest page ({seen.slowest}); median {_median(seen.paints_ms):.0f} ms.",
            ),
            Target(
                "script of a page",
                seen.script_bytes / 1000,
                150,
                "at most",
                "kB",
                f"The heaviest page ({seen.heaviest}), not compressed.",
            ),
            Target(
                "growth of a page left open",
                drift_mb,
                2,
                "at most",
                "MB/h",
                f"/console, {watched_s:.0f} s, of {heap_mb:.1f} MB that are in use once unused memory was collected.",
            ),
            Target(
                f"{_OPEN_PAGES} pages left open",
                100 * share,
                20,
                "at most",
                "% of a core",
                f"Admin's CPU time over {_WATCHED_S:.0f} s, with {pieces} pieces of {_TOPICS} sent.",
            ),
        ],
    )
    for mishap in seen.mishaps:
        sys.stdout.write(f"{mishap}\n")


def _tour(house: House, looks: Mapping[str, Sequence[Look]]) -> Seen:
    seen = Seen()
    for role, ways in looks.items():
        for theme, width in ways:
            with house.visitor(role, theme=theme, width=width) as visitor:
                visitor.may_fail = True
                for stop in stops_for(role):
                    _look(visitor, stop.name, stop.address(house), seen)
    return seen


def _look(visitor: Visitor, name: str, path: str, seen: Seen) -> None:
    where = f"{path} as {visitor.label}"
    try:
        visitor.go(path, status=404 if name == "not-found" else 200)
    except AssertionError as error:
        seen.mishaps.append(f"{where}: {str(error)[:200]}")
        return
    seen.looks += 1
    paint_ms, script_bytes = visitor.first_paint_ms(), visitor.script_bytes()
    if paint_ms >= max(seen.paints_ms, default=0.0):
        seen.slowest = where
    seen.paints_ms.append(paint_ms)
    if script_bytes > seen.script_bytes:
        seen.script_bytes, seen.heaviest = script_bytes, where
    visitor.shot(name)
    try:
        visitor.demand_fits()
    except AssertionError as error:
        seen.mishaps.append(f"{where}: {error}")
    found = visitor.violations()
    seen.violations += len(found)
    seen.mishaps += [f"{where}: {one['id']}: {one['help']}" for one in found]
    if name != "not-found":  # which is one
        seen.mishaps += [f"{where}: {mishap}" for mishap in visitor.mishaps]
    visitor.mishaps.clear()


def _left_open(house: House, watched_s: float) -> tuple[float, float]:
    """By how many MB an hour a page grows while nobody touches it, and what it has then."""
    with house.visitor("admin") as visitor:
        page = visitor.go("/console")
        page.wait_for_timeout(1000 * _SETTLE_S)
        before, began = _heap_bytes(page), time.monotonic()
        page.wait_for_timeout(1000 * watched_s)
        after = _heap_bytes(page)
        return (after - before) / (time.monotonic() - began) * _HOUR_S / 1e6, after / 1e6


def _heap_bytes(page: Page) -> int:
    """The least of a few: between two of them a live piece may have come."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    sizes = []
    for _ in range(5):
        session.send("HeapProfiler.collectGarbage")
        told = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        sizes.append(int(told["JSHeapUsedSize"]))
        page.wait_for_timeout(500)
    session.detach()
    return min(sizes)


async def _many(house: House) -> tuple[float, int]:
    """Admin's share of a core with so many windows open, and how many pieces came."""
    pid, pieces = house.running.pid("admin"), 0

    async def watch(client: aiohttp.ClientSession, session: str, until: float) -> None:
        nonlocal pieces
        headers = {"cookie": f"forebay_session={session}"}
        async with client.get(f"{house.url}/live", params={"topics": _TOPICS}, headers=headers) as answer:
            assert answer.status == 200, answer.status
            while time.monotonic() < until:
                line = await answer.content.readline()
                pieces += line.startswith(b"event:")

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        number = -(-_OPEN_PAGES // _WINDOWS)
        sessions = [await _session(client, house.url, _WATCHERS[n % len(_WATCHERS)]) for n in range(number)]
        until = time.monotonic() + _WATCHED_S + 15
        watching = [
            asyncio.create_task(watch(client, sessions[number % len(sessions)], until)) for number in range(_OPEN_PAGES)
        ]
        await asyncio.sleep(10)  # all are open
        before, began, pieces = _cpu_s(pid), time.monotonic(), 0
        await asyncio.sleep(_WATCHED_S)
        share = (_cpu_s(pid) - before) / (time.monotonic() - began)
        sent = pieces
        for task in watching:
            task.cancel()
        ended = await asyncio.gather(*watching, return_exceptions=True)
        failed = [one for one in ended if isinstance(one, Exception)]
        assert not failed, failed[:3]
        return share, sent


async def _session(client: aiohttp.ClientSession, url: str, name: str) -> str:
    """Signing in is held to a pace."""
    while True:
        async with client.post(f"{url}/sign-in/token", json={"name": name, "password": PASSWORD}) as answer:
            if answer.status == 200:
                token: str = (await answer.json())["access_token"]
                return token
            assert answer.status == 429, await answer.text()
        await asyncio.sleep(1)


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


if __name__ == "__main__":
    main()
