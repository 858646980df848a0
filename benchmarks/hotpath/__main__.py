"""Measures the hot path beside other gateways, tells its targets truthfully, met or not, and writes docs/performance.md.

    make targets-hotpath                     everything that is installed, three repetitions (an hour)
    make targets-hotpath ARGS=--short        one repetition, shorter runs, fewer streams (some minutes)
    make targets-hotpath ARGS="--peers all"  installs the others before (make bench-peers does only that)
    make targets-hotpath ARGS="--scenarios plain64,paced200 --systems direct,nginx,forebay --no-page"
    make targets-hotpath ARGS="--python /opt/forebay/bin/python"     gateways run by another Python

Needs two cores, `taskset` and a C compiler. With two, everything behind the gateway (scheduler, NATS, database) shares the
load's core and holds the fastest systems back: CPU a request is what to read there. With `--peers none` (the default is
`there`, those that are installed) nothing but ours and nginx is started."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.hotpath import page, peers, plots
from benchmarks.hotpath.campaign import Campaign, Found, Wanted, missing
from benchmarks.hotpath.goals import targets
from benchmarks.hotpath.machine import description
from benchmarks.hotpath.ours import form_of_gateways
from benchmarks.hotpath.programs import BUILT, build
from benchmarks.hotpath.scenarios import DIRECT, FAMILY, WORKERS, plan
from benchmarks.hotpath.summary import Summary, summed_up
from benchmarks.targets import tell

ROOT = Path(__file__).parents[2]


def main() -> None:
    args = _parse()
    scenarios = [one for one in plan(short=args.short) if not args.scenarios or one.name in args.scenarios.split(",")]
    systems = _systems(args)
    absent = missing(systems)
    for name in absent:
        print(f"{name} is not installed and is not measured: make bench-peers")
    _raise_file_limit()
    programs, began = build(), f"{description(args.python)}, gateways {form_of_gateways(args.python)}"
    wanted = Wanted(
        scenarios=scenarios,
        systems=systems - set(absent),
        repetitions=args.reps or (1 if args.short else 3),
        outage_s=(10 if args.short else 60) if not args.scenarios or "outage" in args.scenarios.split(",") else 0,
        records=not args.scenarios or "records" in args.scenarios.split(","),
        growth=not args.scenarios or "growth" in args.scenarios.split(","),
        short=args.short,
        nice=args.nice,
        python=args.python,
    )
    with tempfile.TemporaryDirectory(prefix="forebay-hotpath-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's and nginx's users pass through
        found = asyncio.run(Campaign(wanted, Path(folder), programs).run())
    found.notes += [f"{name} is not installed" for name in absent]
    _keep(found)
    summary = summed_up(found.samples)
    told = targets(summary, outage=found.outage, records=found.records, growth=found.growth)
    tell("hotpath", told)
    text = page.measured(
        summary,
        told,
        notes=found.notes,
        machine=began,
        versions=_versions(summary),
        short=args.short,
        growth=found.growth,
    )
    if args.page:
        page.write(ROOT / "docs" / "performance.md", text)
        plots.draw(summary, ROOT / "docs" / "pictures")
    else:
        print(text)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one repetition, shorter runs, fewer streams")
    parser.add_argument("--reps", type=int, default=0, help="repetitions")
    parser.add_argument(
        "--peers", default="there", help="there, none, all (installs them), or names with commas (installs them)"
    )
    parser.add_argument(
        "--systems", default="", help="only these, with commas; ours are " + ", ".join((*FAMILY, WORKERS))
    )
    parser.add_argument("--scenarios", default="", help="only these; also `records`, `outage` and `growth`")
    parser.add_argument("--page", action=argparse.BooleanOptionalAction, default=True, help="write docs/performance.md")
    parser.add_argument("--nice", type=int, default=0, help="negative (as root) where other work runs on the machine")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="an interpreter that has what gateways need, and runs them; default: this one",
    )
    return parser.parse_args()


def _systems(args: argparse.Namespace) -> frozenset[str]:
    if args.peers not in ("there", "none"):
        names = list(peers.PEERS) if args.peers == "all" else args.peers.split(",")
        for name in names:
            if name not in peers.PEERS:
                raise SystemExit(f"{name} is none of {', '.join(peers.PEERS)}.")
            try:
                peers.install(peers.PEERS[name])
            except SystemExit as error:
                print(f"{name}: {error}")
    if args.systems:
        return frozenset(args.systems.split(","))
    others = ("nginx",) if args.peers == "none" else tuple(peers.PEERS)
    return frozenset((DIRECT, *others, *FAMILY, WORKERS))


def _versions(summary: Summary) -> dict[str, str]:
    return {
        name: peers.version(peers.PEERS[name])
        for name in dict.fromkeys(system for _, system in summary)
        if name in peers.PEERS
    }


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep(found: Found) -> None:
    """Every single run, for whoever doubts a median."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "samples.jsonl").open("w") as lines:
        for sample in found.samples:
            lines.write(json.dumps(asdict(sample)) + "\n")


if __name__ == "__main__":
    main()
