"""What a scenario measured and whether it held: a line for the reader of the run, JSON in build/chaos for
`make targets-operations`. Written before anything is asserted, so that a row that failed is told with its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

LONG = bool(os.environ.get("FOREBAY_CHAOS_LONG"))
"""The forms that take minutes each, instead of those of the gate."""
PLACE = Path(__file__).resolve().parents[2] / "build" / "chaos"
Figure = float | int | str | None
told: list[str] = []
"""The lines of this run, for its summary."""


def tell(row: str, figures: Mapping[str, Figure], holds: Mapping[str, bool]) -> list[str]:
    """Writes build/chaos/<row>.json: `row`, `form` (short or long), `at`, `figures`, and `holds` by name. What did not hold:
    `assert not tell(…)`."""
    PLACE.mkdir(parents=True, exist_ok=True)
    written = {
        "row": row,
        "form": "long" if LONG else "short",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": dict(figures),
        "holds": dict(holds),
    }
    (PLACE / f"{row}.json").write_text(json.dumps(written, indent=1) + "\n")
    broken = [name for name, is_so in holds.items() if not is_so]
    measured = " · ".join(f"{name} {_short(value)}" for name, value in figures.items())
    told.append(f"{row}: {measured} · {'DID NOT HOLD: ' + ', '.join(broken) if broken else 'all held'}")
    return broken


def resident_bytes(pid: int) -> int:
    """Of a process, what the kernel calls VmRSS. ProcessLookupError when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    held = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    if held is None:
        raise ProcessLookupError(pid)
    return int(held) * 1024


def _short(value: Figure) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
