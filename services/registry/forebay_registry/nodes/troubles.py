"""What is wrong with a node, as far as its samples tell: what was heard in, sentences for its operator out. Pure."""

from __future__ import annotations

from enum import StrEnum

from forebay.silence import silent_after_s
from forebay_registry.nodes.drops import Drops
from forebay_registry.nodes.samples import Dropped, Hearing, Move

WRONG_CLOCK_S = 30.0
"""A sample is seconds old when it is heard; more is a clock that nobody sets."""
MOVE_FOR_S = 24 * 3600.0
"""How long it is told that a node became another machine."""
_LONGEST_HOST = 253
NO_DROPS = Drops()


class Trouble(StrEnum):
    """Also the label of a metric, and the `action` of its event."""

    SILENT = "node_silent"
    CLOCK = "node_clock_wrong"
    TWO_AGENTS = "node_two_agents"
    OTHER_MACHINE = "node_other_machine"
    RENAMED = "node_renamed"
    DROPPED = "node_samples_dropped"


def troubles(hearing: Hearing, now: float, drops: Drops = NO_DROPS) -> dict[Trouble, str]:
    """Each with its sentence: what happened, and what to do. A node that was never heard of is merely new, unless what it
    says cannot be taken."""
    found: dict[Trouble, str] = {}
    if drops.goes_on(now):
        found[Trouble.DROPPED] = _dropped(drops)
    if hearing.heard_at is None:
        return found
    if hearing.is_silent(now):
        usual_s = silent_after_s(hearing.said.interval_s)
        found[Trouble.SILENT] = (
            f"Nothing was heard of it for {_span(now - hearing.heard_at)}, and at most {usual_s:.0f} s"
            " are usual: see whether the machine, its agent and its way to NATS are up."
        )
    skew = hearing.clock_skew_s
    if skew is not None and abs(skew) > WRONG_CLOCK_S:
        way = "ahead" if skew > 0 else "behind"
        found[Trouble.CLOCK] = (
            f"Its clock is {_span(abs(skew))} {way}: let NTP set it. Its samples count by the registry's clock."
        )
    if hearing.rival is not None and hearing.rival.is_one(now):
        one, other = _host(hearing.said.hostname), _host(hearing.rival.said.hostname)
        found[Trouble.TWO_AGENTS] = (
            f"Two agents speak for it: one on {one}, which counts, and one on {other}, which started earlier and does not."
            " Stop one of them; another machine is enrolled under a name of its own."
        )
    if hearing.move is not None and now - hearing.move.at < MOVE_FOR_S:
        kind, sentence = _moved(hearing.move, now)
        found[kind] = sentence
    return found


def _dropped(drops: Drops) -> str:
    by_number = sorted(drops.since.items(), key=lambda item: -item[1])
    told = ", ".join(f"{why} {number}" for why, number in by_number)
    return (
        f"{sum(drops.since.values())} of its samples in {_span(drops.ended_at - drops.began_at)} were not taken"
        f" ({told}): {_WHAT_TO_DO[by_number[0][0]]}"
    )


_WHAT_TO_DO = {
    Dropped.MALFORMED: "update its agent, and see what else publishes as it.",
    Dropped.TOO_LARGE: "update its agent, and see what else publishes as it.",
    Dropped.FOREIGN_SUBJECT: "its agent speaks for another node, so enrol this machine again.",
    Dropped.OUT_OF_ORDER: "something sends its samples again, or its clock was set back, so restart its agent.",
}
"""By the reason that is the most frequent."""


def _moved(move: Move, now: float) -> tuple[Trouble, str]:
    before, after, ago = _host(move.before.hostname), _host(move.after.hostname), _span(now - move.at)
    if move.is_another_machine:
        return Trouble.OTHER_MACHINE, (
            f"It became another machine {ago} ago, {after} instead of {before}: if nobody moved or installed it anew,"
            " its secret was copied; enrol it again."
        )
    return Trouble.RENAMED, f"Its host is called {after} since {ago}, and was called {before}. It stays the same node."


def _host(name: str) -> str:
    """For logs and terminals, whatever its sample says."""
    return "".join(char for char in name[:_LONGEST_HOST] if char.isprintable()) or "a host without a name"


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.0f} days"
