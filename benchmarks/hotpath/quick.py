"""What the gateway alone costs, in half a minute, for whoever works on it:

    .venv/bin/python -m benchmarks.hotpath.quick                       us a request and us a token, a key without limits
    .venv/bin/python -m benchmarks.hotpath.quick --limited             a key with limits and a budget
    .venv/bin/python -m benchmarks.hotpath.quick --scenarios plain64   of plain1, plain64, kb8, paced200, burst64
    .venv/bin/python -m benchmarks.hotpath.quick --set hot_path=false  settings of the gateway, as often as you like
    .venv/bin/python -m benchmarks.hotpath.quick --hold                keeps it running, prints address, key, pid
    PYTHONPATH=.:services/gateway …                                    interpreted, where `make core` has compiled it
    PYTHONPATH=/a/tree:/a/tree/services/gateway …                      the gateway of another tree

`--hold` is for profilers: it prints the lines with which each load can be started anew while one looks. `--nice -5` (as
root) where other work runs on the machine; costs then move, and only ratios say something."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.hotpath.engines import open_engine
from benchmarks.hotpath.loads import Load, Reading, measure
from benchmarks.hotpath.machine import Cores, family, prefer
from benchmarks.hotpath.ours import SLOTS, mock_engine, open_ours
from benchmarks.hotpath.programs import build

LOADS = {
    "plain1": Load(connections=1, seconds=2),
    "plain64": Load(connections=64, seconds=3),
    "kb8": Load(connections=64, seconds=3, prompt_bytes=8192),
    "paced200": Load(connections=200, seconds=4, open_ms=1200, tokens=64, gap_ms=20),
    "burst64": Load(connections=64, seconds=3, tokens=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="plain64,paced200", help=",".join(LOADS))
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--limited", action="store_true")
    parser.add_argument("--reps", type=int, default=1)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--slots", type=int, default=SLOTS, help="of the engine")
    parser.add_argument("--nice", type=int, default=0, help="negative (as root) where other work runs on the machine")
    parser.add_argument("--python", default=sys.executable, help="which runs the gateway, and has what it needs")
    parser.add_argument("--work", type=Path, help="for data and logs, which then stay")
    asyncio.run(_run(parser.parse_args()))


async def _run(args: argparse.Namespace) -> None:
    cores, programs = Cores.of(os.sched_getaffinity(0)), build()
    sets = dict(word.split("=", 1) for word in args.set)
    environ = {f"FOREBAY_GATEWAY_{name.upper()}": value for name, value in sets.items()}
    async with AsyncExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forebay-quick-")))
        work.mkdir(exist_ok=True)
        work.chmod(0o755)  # PostgreSQL's user passes through
        engine = await stack.enter_async_context(open_engine(cores, programs))
        ours = await stack.enter_async_context(open_ours(work / "data", cores, mock_engine(engine.port, args.slots)))
        ours.gateway_python = args.python
        gateway = await stack.enter_async_context(ours.open_gateway("forebay", environ))
        if args.nice:
            prefer(args.nice, os.getpid(), *family(os.getpid()))
        system = gateway if args.limited else replace(gateway, key=ours.free_key)
        for _ in range(args.reps):
            for name in args.scenarios.split(","):
                load = LOADS[name]
                reading = await measure(system, load, cores, programs)
                print(_line(name, load, reading), flush=True)
        if args.hold:
            print(
                f"gateway: http://127.0.0.1:{system.port}  pid {system.pids[0]}  key {system.key}  logs {work}/data/logs"
            )
            for name, load in LOADS.items():
                words = " ".join(f"'{word}'" if word.startswith("[") else word for word in load.words())
                pinned = " ".join(cores.pinned(cores.load))
                print(f"{name}: {pinned} {programs}/load -p {system.port} -k {system.key} -P {system.pids[0]} {words}")
            await asyncio.to_thread(input, "Enter ends it. ")


def _line(name: str, load: Load, reading: Reading) -> str:
    cost, rate = (
        (f"{reading.us_per_token:7.1f} us/token  ", reading.tokens)
        if load.tokens
        else (f"{reading.us_per_answer:7.1f} us/request", reading.answers)
    )
    times = f"p50 {reading.latency_p50_us or 0:.0f} us  p99 {reading.latency_p99_us or 0:.0f} us"
    if load.tokens:
        times = f"first p50 {reading.first_p50_us or 0:.0f} us  transit p50 {reading.transit_p50_us or 0:.0f} us"
    wrong = "" if reading.is_valid else f"  ERRORS {reading.errors}+{reading.incomplete}: {reading.said[:200]}"
    return f"{name:9} {cost} {rate / reading.seconds:8.0f}/s  {times}  RSS {reading.rss_mb:.0f} MB{wrong}"


if __name__ == "__main__":
    main()
