"""Which alerts open, are told again and close; what silences, acknowledgements and maintenance do to that."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_registry.alerts.book import Alert, Book, Event, Kind, Silence, demand_silence, demand_text
from forebay_registry.alerts.findings import Finding, Seen
from forebay_registry.alerts.rules import AlertSettings, Rule, Severity, read_alerts

SETTINGS = read_alerts({"repeat_s": 600, "gpu_hot": {"for_s": 10, "clear_s": 20}})[0]
TODAY = 1_800_000_000.0


def hot(severity: Severity = Severity.WARNING, node: str = "box") -> Finding:
    return Finding(Rule.GPU_HOT, f"gpu/{node}/0", severity, f"GPU 0 of {node} is hot.", "Cool it.", node)


class Desk:
    """A book whose clocks a test turns."""

    def __init__(self, settings: AlertSettings = SETTINGS) -> None:
        numbers = itertools.count(1)
        self.book = Book(settings, lambda: f"al-{next(numbers)}")
        self.now = 0.0

    def look(self, *findings: Finding, after: float = 0.0, blind: str = "", calm: str = "") -> list[Event]:
        self.now += after
        names = (frozenset({name} if name else ()) for name in (blind, calm))
        return self.book.judge(Seen({f.key: f for f in findings}, *names), self.now, TODAY + self.now)

    def open(self, *findings: Finding) -> Alert:
        self.look(*findings)
        (event,) = self.look(*findings, after=10.0)
        return event.alert

    def silence(self, subject: str, for_s: float, rule: str = "") -> None:
        until = TODAY + self.now + for_s
        self.book.silences[subject, rule] = Silence("si-1", subject, rule, TODAY, "ada", until)


def kinds(events: list[Event]) -> list[tuple[str, bool]]:
    return [(str(event.kind), event.is_quiet) for event in events]


def test_an_alert_opens_when_it_has_lasted_and_closes_when_it_has_not_held_for_a_while() -> None:
    desk = Desk()
    assert desk.look(hot()) == []
    assert desk.look(hot(), after=9.0) == []
    (opened,) = desk.look(hot(), after=1.0)
    alert = opened.alert
    assert (opened.kind, alert.began_at, alert.opened_at, alert.events) == (Kind.OPENED, TODAY, TODAY + 10.0, 1)
    assert desk.look(hot(), after=100.0) == [], "it is told once"
    assert desk.look(after=1.0) == []
    assert desk.look(hot(), after=1.0) == [], "what comes back in time never went"
    assert desk.look(after=1.0) == []
    (closed,) = desk.look(after=20.0)
    assert (closed.kind, closed.alert.id, closed.alert.closed_at) == (Kind.CLOSED, alert.id, TODAY + desk.now)
    assert closed.id != opened.id
    assert not desk.book.open


def test_what_comes_and_goes_faster_than_its_time_opens_nothing() -> None:
    desk = Desk()
    for _ in range(20):
        assert desk.look(hot(), after=6.0) == []
        assert desk.look(after=6.0) == []


def test_it_is_told_again_until_somebody_knows_and_anew_when_it_gets_graver() -> None:
    desk = Desk()
    alert = desk.open(hot())
    assert kinds(desk.look(hot(), after=600.0)) == [("repeated", False)]
    acked = desk.book.ack(alert.id, "ada", "on my way", TODAY + desk.now)
    assert acked is not None
    assert acked.is_quiet
    assert desk.look(hot(), after=6000.0) == []
    (graver,) = desk.look(hot(Severity.CRITICAL), after=1.0)
    assert (graver.kind, graver.alert.severity, graver.alert.acked_by) == (Kind.GRAVER, Severity.CRITICAL, "")
    assert desk.look(hot(), after=1.0) == [], "and it stays as grave as it was"
    assert desk.book.ack("al-9", "ada", "", TODAY) is None


def test_a_silence_keeps_it_quiet_and_it_is_told_when_that_is_over() -> None:
    desk = Desk()
    desk.silence("node/box", 100.0)
    desk.look(hot())
    assert kinds(desk.look(hot(), after=10.0)) == [("opened", True)]
    assert desk.look(hot(), after=80.0) == []
    assert kinds(desk.look(hot(), after=20.0)) == [("opened", False)]
    assert kinds([*desk.look(after=1.0), *desk.look(after=20.0)]) == [("closed", False)]


def test_what_nobody_was_told_of_ends_as_quietly() -> None:
    desk = Desk()
    desk.silence("gpu/*", 1000.0, rule="gpu_hot")
    desk.open(hot())
    desk.look(after=1.0)
    assert kinds(desk.look(after=20.0)) == [("closed", True)]
    assert [s.id for s in desk.book.forget_silences(TODAY + 2000.0)] == ["si-1"]


def test_under_maintenance_nothing_opens_and_what_is_open_is_not_told_again() -> None:
    desk = Desk()
    assert [desk.look(hot(), after=60.0, calm="node/box") for _ in range(3)] == [[], [], []]
    desk.open(hot())
    assert desk.look(hot(), after=6000.0, calm="node/box") == []
    assert kinds(desk.look(hot(), after=1.0)) == [("repeated", False)]


def test_what_nobody_can_see_now_stays_as_it_is() -> None:
    desk = Desk()
    desk.open(hot())
    assert [desk.look(after=60.0, blind="node/box") for _ in range(5)] == [[]] * 5
    desk.look(after=1.0)
    assert kinds(desk.look(after=20.0)) == [("closed", False)]


def test_a_rule_that_was_switched_off_closes_what_it_opened() -> None:
    desk = Desk(read_alerts({"gpu_hot": {"enabled": False}})[0])
    stored = Alert("al-0", "gpu_hot", "gpu/box/0", "box", Severity.WARNING, "It is hot.", "", TODAY, TODAY, events=1)
    other = Alert("al-x", "of_a_newer_version", "gpu/box/0", "", Severity.WARNING, "x", "", TODAY, TODAY, events=1)
    assert desk.book.adopt([stored, other], [], TODAY) == []
    assert {(e.alert.id, e.alert.closed_because) for e in desk.look()} == {
        ("al-0", "Its rule is switched off."),
        ("al-x", "Its rule is switched off."),
    }


def test_after_a_restart_what_was_open_is_open_and_what_was_opened_twice_ends_once() -> None:
    first, second = Desk(), Desk()
    alert = first.open(hot())
    assert second.book.adopt([alert], [], TODAY) == []
    assert second.look(hot(), after=11.0) == [], "one open alert for each rule and subject"
    blind_start = Desk()
    ours = blind_start.open(hot())
    stored = Alert("al-before", *alert.key, "box", Severity.WARNING, "x", "", TODAY, TODAY, notified_at=TODAY, events=1)
    (closed,) = blind_start.book.adopt([stored], [], TODAY)
    assert (closed.alert.id, closed.alert.closed_because, closed.is_quiet) == (
        "al-before",
        f"It goes on as {ours.id}.",
        False,
    )
    assert list(blind_start.book.open.values()) == [ours]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: demand_silence("", "", 60, "", 0),
        lambda: demand_silence("node/box", "gpu_hott", 60, "", 0),
        lambda: demand_silence("node/box", "", 0, "", 0),
        lambda: demand_silence("node/box", "", 2**31, "", 0),
        lambda: demand_silence("node/box\n", "", 60, "", 0),
        lambda: demand_silence("node/box", "", 60, "x" * 201, 0),
        lambda: demand_silence("node/box", "", 60, "", 1000),
        lambda: demand_text("two\nlines"),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused(wrong: Callable[[], None]) -> None:
    with pytest.raises(BadInput):
        wrong()


steps = st.lists(
    st.tuples(st.sets(st.sampled_from(["a", "b"])), st.floats(0.1, 30.0), st.sampled_from(["", "node/a", "node/b"])),
    max_size=30,
)


@given(steps)
def test_each_alert_is_opened_once_and_closed_at_most_once_in_order(story: list[tuple[set[str], float, str]]) -> None:
    desk, seen = Desk(), dict[str, list[Event]]()
    for nodes, after, calm in story:
        for event in desk.look(*(hot(node=node) for node in nodes), after=after, calm=calm):
            seen.setdefault(event.alert.id, []).append(event)
        assert len({alert.key for alert in desk.book.open.values()}) == len(desk.book.open)
    for events in seen.values():
        assert [e.kind for e in events].count(Kind.OPENED) == 1
        assert [e.alert.events for e in events] == list(range(1, len(events) + 1))
        assert Kind.CLOSED not in [e.kind for e in events][:-1]
