"""How a backend has changed, as `forebay backend show` tells it."""

from __future__ import annotations

from rich.markup import escape

from forebay.wire.v1 import lifecycle_pb2
from forebay_admin.cli.fleet.maintenance import print_windows
from forebay_admin.cli.output import print_table
from forebay_admin.cli.plain import Plain, plain, word
from forebay_admin.cli.words import age, ahead, coloured

Health = lifecycle_pb2.ShowHealthResponse


def history_rows(health: Health, now: float) -> list[tuple[str, str]]:
    """Since when it is as it is, and what keeps it empty."""
    backend = health.backend
    rows = []
    if backend.health_since_us:
        rows.append(("Since", f"{age(backend.health_since_us, now)} ({escape(backend.health_cause)})"))
    for drain in health.drains:
        until = ""
        if drain.HasField("deadline_us"):
            left = ahead(drain.deadline_us, now).replace("expired", "over")
            until = f"; deadline {left}{', then what runs is ended' if drain.force else ''}"
        why = f": {escape(drain.reason)}" if drain.reason else ""
        rows.append(
            ("Drained", f"{age(drain.since_us, now)} by {escape(drain.by)} ({word(drain, 'scope')}){why}{until}")
        )
    return rows


def print_history(health: Health, now: float) -> None:
    if health.windows:
        print_windows(health.windows, now, nothing="")
    print_table(
        ("When", "Health", "Before", "Cause", "Why"),
        (
            (
                age(change.at_us, now),
                coloured(word(change, "after") or "unknown"),
                word(change, "before") or "unknown",
                escape(change.cause) + (" (maintenance)" if change.in_maintenance else ""),
                escape(change.reason),
            )
            for change in health.changes
        ),
        nothing="Its health has not changed yet.",
    )


def plain_history(health: Health) -> Plain:
    return {
        "history": [plain(change) for change in health.changes],
        "drains": [plain(drain) for drain in health.drains],
        "maintenance": [plain(window) for window in health.windows],
    }
