"""How targets are told: a table for people, JSON lines for programs, and the truth in both, whether they are met or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    metric: str
    value: float | None
    """None: it could not be measured, and `how` says why. Then it is not met."""
    limit: float
    sense: Literal["at most", "at least"]
    unit: str
    how: str
    """One sentence: what was measured."""

    @property
    def ok(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit


def tell(name: str, targets: Sequence[Target]) -> None:
    """Prints the table and writes build/targets/<name>.jsonl."""
    table = Table("metric", "measured", "target", "", "how", title=f"Targets: {name}")
    for target in targets:
        verdict = "[green]ok[/]" if target.ok else "[red]missed[/]"
        limit = f"{target.sense} {target.limit:g} {target.unit}"
        value = "–" if target.value is None else f"{target.value:.4g} {target.unit}"
        table.add_row(target.metric, value, limit, verdict, target.how)
    Console(width=150).print(table)
    file = Path("build/targets") / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lines:
        for target in targets:
            told = {"metric": target.metric, "value": target.value, "target": target.limit, "ok": target.ok}
            lines.write(
                json.dumps({**told, **{k: v for k, v in asdict(target).items() if k in ("sense", "unit", "how")}})
            )
            lines.write("\n")
