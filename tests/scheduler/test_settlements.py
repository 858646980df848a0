"""Each end counts once, whoever leads, and is confirmed when a stored state holds it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.request import GatewayName, LedgerId, Process
from forebay_scheduler.settlements import Settlements

G1: Process = (GatewayName("g1"), 1)
G2: Process = (GatewayName("g2"), 1)
A, B = LedgerId(b"a"), LedgerId(b"b")


def test_what_was_told_before_a_state_was_made_is_confirmed_when_that_is_stored() -> None:
    settlements = Settlements()
    settlements.note(A, G1)
    number, ids = settlements.begin_state()
    settlements.note(B, G1)
    assert ids == [A]
    assert settlements.stored(number) == [(G1, A)]
    later, ids = settlements.begin_state()
    assert set(ids) == {A, B}
    assert settlements.stored(later) == [(G1, B)]


def test_what_is_told_again_is_confirmed_at_once_if_it_is_stored_and_else_with_the_rest() -> None:
    settlements = Settlements()
    settlements.note(A, G1)
    assert not settlements.told_again(A, G2)
    number, _ = settlements.begin_state()
    assert settlements.stored(number) == [(G2, A)], "whoever told it last waits for the answer"
    assert settlements.told_again(A, G1)


def test_what_the_state_before_holds_is_known_and_stored() -> None:
    settlements = Settlements([A])
    assert A in settlements
    assert B not in settlements
    assert settlements.told_again(A, G1)
    assert settlements.begin_state()[1] == [A]


def test_what_its_gateway_has_read_as_stored_is_forgotten() -> None:
    settlements = Settlements([A])
    settlements.acked([A, B])
    assert len(settlements) == 0
    assert settlements.begin_state()[1] == []


def test_of_what_nobody_waits_to_hear_nobody_is_told() -> None:
    settlements = Settlements()
    settlements.note(A, None)
    number, ids = settlements.begin_state()
    assert ids == [A]
    assert settlements.stored(number) == []


@given(st.lists(st.sampled_from(["note", "save", "store", "crash"]), max_size=40))
def test_no_end_is_counted_twice_or_lost_whatever_order_things_come_in(steps: list[str]) -> None:
    """A gateway tells all that was not confirmed to each new leader; each leader counts what it does not know."""
    settlements, unconfirmed = Settlements(), list[LedgerId]()
    stored_ids, stored_counts = list[LedgerId](), dict[LedgerId, int]()
    counts, made = dict[LedgerId, int](), 0
    saved: tuple[int, list[LedgerId], dict[LedgerId, int]] | None = None

    def tell(ledger_id: LedgerId) -> None:
        if ledger_id not in settlements:
            counts[ledger_id] = counts.get(ledger_id, 0) + 1
            settlements.note(ledger_id, G1)
        elif settlements.told_again(ledger_id, G1):
            unconfirmed.remove(ledger_id)

    for step in [*steps, "save", "store"]:
        match step:
            case "note":
                made += 1
                unconfirmed.append(LedgerId(made.to_bytes(2)))
                tell(unconfirmed[-1])
            case "save":
                saved = (*settlements.begin_state(), dict(counts))
            case "store" if saved is not None:
                number, stored_ids, stored_counts = saved
                for _, ledger_id in settlements.stored(number):
                    unconfirmed.remove(ledger_id)
            case "crash":
                settlements, counts, saved = Settlements(stored_ids), dict(stored_counts), None
                for ledger_id in list(unconfirmed):
                    tell(ledger_id)
    assert counts == {LedgerId(n.to_bytes(2)): 1 for n in range(1, made + 1)}
    assert not unconfirmed
