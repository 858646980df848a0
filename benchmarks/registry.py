"""Measures the registry's targets and tells them truthfully, met or not.

A thousand engines on 250 nodes of eight GPUs, which are simulated in one process; PostgreSQL, NATS, the registry and a
second one that stands by are real, and so are the scheduler and the gateway through which three more engines are asked. All
of it shares the machine with whatever else runs there, which is part of what is measured. Takes about five minutes;
`--short`, for CI, measures less of each and takes a minute and a half."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.registry_parts import RegistryProcess
from benchmarks.registry_requests import deaths_while_asked, open_requests
from benchmarks.registry_site import MORTALS, Site, open_site, serves
from benchmarks.scheduler import Slowness, as_on_the_reference
from benchmarks.targets import Target, tell
from forebay.wire.v1 import registry_pb2 as wire
from forebay_registry.health.conditions import REFUSALS_TO_FALL, Rhythm
from forebay_registry.health.pace import Pace

ENGINES, NODES = 1000, 250
_PATIENCE_S = 180.0
"""However slow the machine is just now, what was measured is told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="measures less of each")
    short = parser.parse_args().short
    # Open to others, for PostgreSQL's unprivileged user when we are root.
    work = Path(tempfile.mkdtemp(prefix="forebay-targets-"))
    work.chmod(0o711)
    try:
        targets = asyncio.run(_measure(work, short=short))
    except BaseException:
        for log in sorted(work.glob("*.log")):
            print(log.name, *log.read_text().splitlines()[-20:], sep="\n", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    tell("registry", targets)


async def _measure(work: Path, *, short: bool) -> list[Target]:
    async with open_site(work, engines=ENGINES, nodes=NODES) as site:
        one = site.pair["one"]
        await one.start()
        await site.leader()
        await site.want()
        await site.until_serving()
        await site.note_writes()
        await asyncio.sleep(2 if short else 20)  # the first looks also find out what seldom changes
        at_rest = await _at_rest(site, one, seconds=8 if short else 60)
        async with open_requests(site) as requests, asyncio.TaskGroup() as tasks:
            # Side by side: engines that nobody asks are waited for most of the time.
            deaths = tasks.create_task(_deaths(site, times=2 if short else MORTALS))
            asked = tasks.create_task(deaths_while_asked(requests, times=4 if short else 12))
            await asyncio.wait([asked])
            await site.pair["two"].start()
            await site.until_one_stands_by()
        changes = await _changes(site, times=50 if short else 400)
        await site.until_serving()
        two = await _two(site, rounds=1 if short else 4)
        one = await site.leader()
        for other in site.pair.values():
            if other is not one:
                await other.end()
        restart = await _restart(site, one, times=1 if short else 3, watch_s=5 if short else 16)
        return [*at_rest, *changes, *deaths.result(), *asked.result(), *restart, *two]


async def _at_rest(site: Site, one: RegistryProcess, *, seconds: float) -> list[Target]:
    """Nothing happens but looks and samples."""
    slowness, process, updates = Slowness(), one.usage, site.watcher.updates
    before, began = process.cpu_times(), time.monotonic()
    samples = await site.reading(one, "forebay_registry_samples_total")
    await asyncio.sleep(seconds)
    took, after = time.monotonic() - began, process.cpu_times()
    share = 100 * (after.user + after.system - before.user - before.system) / took
    times = slowness.times()
    taken = ((await site.reading(one, "forebay_registry_samples_total") or 0) - (samples or 0)) / took
    looks = await site.looks()
    a_second = statistics.mean(looks.get(int(time.time()) - back, 0) for back in range(2, int(seconds)))
    how = (
        f"of one core, {ENGINES} engines ({a_second:.0f} looks a second, with gauges) and {NODES} agents "
        f"({taken:.0f} samples of 8 GPUs a second), one watcher ({(site.watcher.updates - updates) / took:.1f} updates/s)"
    )
    scaled = as_on_the_reference(times)
    return [
        Target("registry_cpu_percent", share, 50, "at most", "%", how),
        Target("registry_cpu_reference_percent", share / times, 50, "at most", "%", scaled),
        Target("registry_rss_mb", process.memory_info().rss / 1e6, 300, "at most", "MB", "resident memory, then"),
        Target(
            "registry_samples_per_s", taken, 0.95 * NODES / 2, "at least", "/s", "agents' samples that were taken, then"
        ),
    ]


async def _changes(site: Site, *, times: int) -> list[Target]:
    """Operators change a backend; a scheduler's watcher hears of it."""
    chance, heard, whole = random.Random(1), [], []
    for turn in range(times):
        number = turn % MORTALS
        slots = 100 + turn
        request = wire.AddBackendRequest(
            actor="benchmark",
            name=f"mortal-{number}",
            url=f"http://127.0.0.1:{site.mortal_ports[number]}",
            slots=slots,
            replace=True,
        )
        began = time.monotonic()
        await site.call("AddBackend", request)
        stored = time.monotonic()
        async with asyncio.timeout(_PATIENCE_S):
            while (at := site.watcher.heard.get((f"mortal-{number}", slots))) is None:
                await asyncio.sleep(0.001)
        heard.append(1000 * max(0.0, at - stored))
        whole.append(1000 * (at - began))
        await asyncio.sleep(chance.uniform(0, 0.1))
    how = (
        f"from the end of an operator's call until a scheduler's watcher has it, {times} changes; with the call and its "
        f"transaction {statistics.median(whole):.0f} ms in the median, {_p99(whole):.0f} at p99"
    )
    return [Target("fleet_change_to_watcher_p99_ms", _p99(heard), 100, "at most", "ms", how)]


async def _deaths(site: Site, *, times: int) -> list[Target]:
    """Nobody listens there any more, and no gateway complains."""
    took = []
    began = {}
    for mortal in range(times):
        await site.tell_simulator(do="close", mortal=mortal)
        began[f"mortal-{mortal}"] = time.monotonic()
    async with asyncio.timeout(_PATIENCE_S):
        while began:
            for name in [name for name in began if not serves(site.watcher.fleet[name])]:
                took.append(time.monotonic() - began.pop(name))
            await asyncio.sleep(0.01)
    for mortal in range(times):
        await site.tell_simulator(do="open", mortal=mortal)
    threshold = 1.1 * (min(Pace().most_s, ENGINES / Pace().looks_per_s) + (REFUSALS_TO_FALL - 1) * Rhythm().doubt_s)
    how = f"from an engine's death until watchers know, by looks alone, the longest of {times}; two looks refused"
    return [Target("dead_backend_marked_s", max(took), threshold + 0.5, "at most", "s", how)]


async def _restart(site: Site, one: RegistryProcess, *, times: int, watch_s: float) -> list[Target]:
    """Killed with -9 and started again."""
    lost, dipped, peaks, known = 0, 0, [], []
    for _ in range(times):
        await asyncio.sleep(2)  # what changed in the second before is looked at again, and not remembered
        before = {name: (b.id, b.slots, len(b.models)) for name, b in site.watcher.fleet.items()}
        epoch = site.watcher.epoch
        site.watcher.note_dips()
        await one.end(signal.SIGKILL)
        began, second = time.monotonic(), int(time.time())
        await one.start()
        async with asyncio.timeout(_PATIENCE_S):
            while site.watcher.epoch == epoch:
                await asyncio.sleep(0.01)
        known.append(time.monotonic() - began)
        await asyncio.sleep(watch_s)
        after = {name: (b.id, b.slots, len(b.models)) for name, b in site.watcher.fleet.items()}
        lost += len(before.items() - after.items())
        dipped += len(site.watcher.dipped)
        looks = await site.looks()
        peaks.append(max(count for at, count in looks.items() if at > second))
    return [
        Target(
            "restart_state_lost",
            lost,
            0,
            "at most",
            "",
            f"backends told otherwise after a kill -9 than before, {times}×",
        ),
        Target("restart_dips", dipped, 0, "at most", "", "backends that stopped serving for watchers, then"),
        Target(
            "restart_looks_peak_per_s", max(peaks), 2 * Pace().looks_per_s, "at most", "/s", "looks in any second, then"
        ),
        Target(
            "restart_known_s",
            max(known),
            10,
            "at most",
            "s",
            "from the start of the process to its first word to watchers",
        ),
    ]


async def _two(site: Site, *, rounds: int) -> list[Target]:
    """The leader of two is killed, stopped and cut off from Postgres in turn, while operators go on."""
    await site.until_one_stands_by()
    site.watcher.note_dips()
    writing = asyncio.create_task(_keep_changing(site))
    took: dict[str, list[float]] = {"killed": [], "stopped": [], "cut off": []}
    for _ in range(rounds):
        for how, times in took.items():
            old = await site.leader()
            epoch, began = site.watcher.epoch, time.monotonic()
            match how:
                case "killed":
                    await old.end(signal.SIGKILL)
                case "stopped":
                    old.send(signal.SIGSTOP)
                case _:
                    old.wire.cut()
            async with asyncio.timeout(_PATIENCE_S):
                while site.watcher.epoch == epoch:
                    await asyncio.sleep(0.01)
            times.append(time.monotonic() - began)
            match how:
                case "killed":
                    await old.start()
                case "stopped":
                    await asyncio.sleep(1)
                    old.send(signal.SIGCONT)
                case _:
                    await asyncio.sleep(1)
                    await old.wire.mend()
            await site.until_one_stands_by()
            await asyncio.sleep(0.5)  # for what it had begun to write
    writing.cancel()
    writes, foreign, epochs = await site.writes()
    told = f"{writes} writes under {epochs} epochs, {rounds}× each killed, stopped and cut off"
    return [
        Target("two_registries_foreign_writes", foreign, 0, "at most", "", f"writes of one that did not lead: {told}"),
        Target(
            "two_registries_dips", len(site.watcher.dipped), 0, "at most", "", "backends that stopped serving, then"
        ),
        Target(
            "takeover_killed_s", max(took["killed"]), 3, "at most", "s", "until watchers hear the next leader; kill -9"
        ),
        Target(
            "takeover_stopped_s",
            max(*took["stopped"], *took["cut off"]),
            8,
            "at most",
            "s",
            "the same, for a process that stands still and for one that Postgres cannot be reached from",
        ),
    ]


async def _keep_changing(site: Site) -> None:
    turn = 0
    while True:
        turn += 1
        request = wire.AddBackendRequest(
            actor="benchmark", name="mortal-0", url=f"http://127.0.0.1:{site.mortal_ports[0]}", slots=turn, replace=True
        )
        try:
            await site.call("AddBackend", request)
        except grpc.aio.AioRpcError:  # while nobody leads
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.05)


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


if __name__ == "__main__":
    main()
