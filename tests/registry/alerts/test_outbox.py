"""What a webhook is still to be told, and when."""

from __future__ import annotations

from dataclasses import replace

from forebay.webhook import Posted
from forebay_registry.alerts.outbox import MOST_WAITING, OLDEST_S, Letter, Outbox

FINE, FAILED = Posted(True, "", 0.1), Posted(False, "down", 0.1)


def letter(alert: str, number: int) -> Letter:
    return Letter(f"{alert}.{number}", alert, number, 0.0, b"{}")


def box(*letters: Letter) -> Outbox:
    outbox = Outbox(lambda: 0.5)
    outbox.put(letters, 0.0)
    return outbox


def test_of_one_alert_the_second_word_waits_for_the_first_and_another_alert_for_neither() -> None:
    outbox = box(letter("a", 1), letter("a", 2), letter("b", 1))
    first, _ = outbox.next(0.0)
    assert first is not None
    assert first.id == "a.1"
    assert outbox.sent(first, FAILED, 0.0, 0.0) == []
    other, _ = outbox.next(0.0)
    assert other is not None
    assert other.id == "b.1"
    assert [one.id for one in outbox.sent(other, FAILED, 0.0, 0.0)] == []
    assert outbox.next(1.0) == (None, 1.0)
    again, _ = outbox.next(2.0)
    assert again == replace(first, attempts=1)


def test_pauses_grow_and_end_for_all_when_it_answers_again() -> None:
    outbox = box(letter("a", 1), letter("b", 1))
    pauses, now = [], 0.0
    for _ in range(12):
        waiting, wait_s = outbox.next(now)
        while waiting is None or waiting.alert_id != "a":
            if waiting is not None:
                outbox.sent(waiting, FAILED, now, 0.0)
            else:
                assert wait_s is not None
                now += wait_s
            waiting, wait_s = outbox.next(now)
        outbox.sent(waiting, FAILED, now, 0.0)
        pauses.append(outbox._due["a"] - now)
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses[-1] == 900.0
    now = max(outbox._due.values())
    one, _ = outbox.next(now)
    assert one is not None
    outbox.sent(one, FINE, now, 0.0)
    assert outbox.next(now)[0] is not None, "who is there again is told the rest at once"


def test_a_receiver_may_ask_for_time_and_may_want_no_more() -> None:
    outbox = box(letter("a", 1), letter("a", 2))
    one, _ = outbox.next(0.0)
    assert one is not None
    outbox.sent(one, replace(FAILED, after_s=60.0), 0.0, 0.0)
    assert outbox.next(0.0) == (None, 60.0)
    one, _ = outbox.next(60.0)
    assert one is not None
    assert outbox.sent(one, replace(FAILED, is_gone=True), 60.0, 0.0) == [one]
    assert len(outbox) == 1


def test_what_is_too_old_is_given_up_and_too_much_drops_the_oldest() -> None:
    outbox = box(letter("a", 1))
    one, _ = outbox.next(0.0)
    assert one is not None
    assert outbox.sent(one, FAILED, 0.0, OLDEST_S + 1.0) == [one]
    assert (len(outbox), outbox.next(0.0)) == (0, (None, None))
    many = [letter(f"a{number}", 1) for number in range(MOST_WAITING + 3)]
    assert [gone.alert_id for gone in outbox.put(many, 0.0)] == ["a0", "a1", "a2"]
    assert len(outbox) == MOST_WAITING
    assert outbox.sent(many[0], FINE, 0.0, 0.0) == [], "of what was dropped meanwhile nothing is left"


def test_the_same_letter_twice_is_one() -> None:
    outbox = box(letter("a", 1), letter("a", 1))
    assert len(outbox) == 1
