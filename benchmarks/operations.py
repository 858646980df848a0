"""What Forebay withstands, row by row of docs/reliability.md: runs the scenarios of tests/chaos, tells what each measured.

A row is met when everything held that its scenario looks at; some figures have a limit of their own, told below it. One that
did not come to its end has no figures, and says so. `--long` takes the forms that take minutes each; `--rows` some of them;
`--told` runs nothing and tells what earlier runs left in build/chaos."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.targets import Target, tell

ROOT = Path(__file__).resolve().parents[1]
TOLD = ROOT / "build" / "chaos"


@dataclass(frozen=True, slots=True)
class Limit:
    figure: str
    most: float
    unit: str


ROWS: dict[str, tuple[str, tuple[Limit, ...]]] = {
    "services": ("each service killed, stopped and started again, in any order", ()),
    "stores": ("NATS and PostgreSQL gone, slow, and out of disk", ()),
    "network": ("connections between parts slow, or cut one way or both", ()),
    "engines": (
        "an engine that breaks in every way",
        (Limit("silent cuts", 0, "requests"), Limit("serves again after s", 65, "s")),
    ),
    "overload": (
        "three times as much as the engines can do",
        (Limit("queue empty after s", 10, "s"), Limit("broken", 0, "requests")),
    ),
    "hostile_clients": (
        "connections, heads, bodies, archives and keys without end",
        (Limit("not served", 0, "requests"), Limit("worst p99 ms", 2000, "ms")),
    ),
    "soak": ("clients that come and go, for minutes", ()),
    "rolling_upgrade": ("each service replaced by another version with streams running", ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long forms: about an hour")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between them; default: all")
    parser.add_argument("--told", action="store_true", help="run nothing; tell what was left by runs before")
    args = parser.parse_args()
    rows: list[str] = args.rows.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}. There are: {', '.join(ROWS)}")
    if not args.told:
        for row in rows:
            (TOLD / f"{row}.json").unlink(missing_ok=True)
            _run(row, is_long=args.long)
    found = {row: _read(row) for row in rows}
    _show(found)
    tell("operations", [target for row in rows for target in _targets(row, found[row])])


def _run(row: str, *, is_long: bool) -> None:
    """Whatever comes of it; what it has to say it has written down."""
    environ = os.environ | ({"FOREBAY_CHAOS_LONG": "1"} if is_long else {})
    command = [sys.executable, "-m", "pytest", f"tests/chaos/test_{row}.py", "-q", "-n", "0", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=ROOT, env=environ, check=False)


def _read(row: str) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads((TOLD / f"{row}.json").read_text())
    except FileNotFoundError:
        return None
    return told


def _targets(row: str, told: dict[str, Any] | None) -> list[Target]:
    about, limits = ROWS[row]
    if told is None:
        return [
            Target(row, None, 0, "at most", "broken promises", f"{about}: it was not run, or did not come to its end")
        ]
    broken = [name for name, is_so in told["holds"].items() if not is_so]
    what = f"; not held: {', '.join(broken)}" if broken else ""
    how = f"{about}; {told['form']} form of {told['at'][:10]}, {len(told['holds'])} promises{what}"
    targets = [Target(row, float(len(broken)), 0, "at most", "broken promises", how)]
    for limit in limits:
        value = told["figures"].get(limit.figure)
        targets.append(Target(f"{row}: {limit.figure}", _number(value), limit.most, "at most", limit.unit, about))
    return targets


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _show(found: dict[str, dict[str, Any] | None]) -> None:
    table = Table("row", "figure", "value", title="What was measured")
    for row, told in found.items():
        for at, (name, value) in enumerate((told or {"figures": {}})["figures"].items()):
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            table.add_row(row if at == 0 else "", name, shown)
        table.add_section()
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
