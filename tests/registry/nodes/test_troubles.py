"""What is said of a node that is not well."""

from __future__ import annotations

import dataclasses

from forebay_registry.nodes.agents import RIVAL_AFTER_SAMPLES, Agent, Rival, Said
from forebay_registry.nodes.samples import Hearing, Move, Sample
from forebay_registry.nodes.troubles import MOVE_FOR_S, Trouble, troubles

NOW = 1_800_000_000.0
WELL = Hearing(
    last=Sample("gpu-1", 1, 1, round(NOW * 1_000_000), b""), heard_at=NOW, said=Said(10.0, "alpha", "m1"), received=1
)


def test_a_node_that_is_well_or_new_is_in_no_trouble() -> None:
    assert troubles(WELL, NOW + 20) == {}
    assert troubles(Hearing(), NOW) == {}


def test_a_node_that_is_late_by_its_own_measure_is_silent() -> None:
    (sentence,) = troubles(WELL, NOW + 180).values()
    assert sentence == (
        "Nothing was heard of it for 3 min, and at most 25 s are usual: see whether the machine, its agent and its way to"
        " NATS are up."
    )


def test_a_clock_that_is_hours_off_is_said_either_way() -> None:
    last = WELL.last
    assert last is not None
    for shift_s, words in ((7200, "2 h ahead"), (-86400 * 3, "3 days behind"), (-31, "31 s behind")):
        off = dataclasses.replace(last, sampled_at_us=last.sampled_at_us + shift_s * 1_000_000)
        told = troubles(dataclasses.replace(WELL, last=off), NOW)
        assert list(told) == [Trouble.CLOCK]
        assert told[Trouble.CLOCK].startswith(f"Its clock is {words}: ")


def test_two_agents_are_told_with_their_hosts() -> None:
    rival = Rival(Agent(0, 9), NOW, Said(2.0, "beta", "m2"), RIVAL_AFTER_SAMPLES)
    told = troubles(dataclasses.replace(WELL, rival=rival), NOW + 5)
    assert list(told) == [Trouble.TWO_AGENTS]
    assert "one on alpha, which counts, and one on beta," in told[Trouble.TWO_AGENTS]


def test_a_node_that_moved_or_was_renamed_is_told_for_a_day() -> None:
    for after, trouble in (
        (Said(2.0, "beta", "m2"), Trouble.OTHER_MACHINE),
        (Said(2.0, "beta", "m1"), Trouble.RENAMED),
    ):
        moved = dataclasses.replace(WELL, said=after, move=Move(NOW, WELL.said, after), heard_at=NOW + MOVE_FOR_S)
        assert list(troubles(dataclasses.replace(moved, heard_at=NOW), NOW + 1)) == [trouble]
        assert trouble not in troubles(moved, NOW + MOVE_FOR_S)
