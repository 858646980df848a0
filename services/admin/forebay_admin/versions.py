"""What a watcher is sent: everything, or what changed since the version it knows. Pure; reading the rows is the stores' job.

The version is a counter that is locked in the transaction that makes a change, and each row carries the version at which it
last changed. Whoever has seen version N has therefore seen every change up to N."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Since:
    """Rows whose version is above `after` are to be sent. A snapshot has everything: what is not in it is gone."""

    after: int
    is_snapshot: bool


def what_to_send(known: int, current: int) -> Since | None:
    """`known` is the watcher's version, 0 for none; None when it is up to date.

    A watcher that is ahead of us watched a database that has since been replaced by an older copy: what it knows beyond
    that copy never happened here."""
    if known == current and known != 0:
        return None
    if known == 0 or known > current:
        return Since(after=0, is_snapshot=True)
    return Since(after=known, is_snapshot=False)
