"""Gateways' failures, counted: which reports count, and how loud each gateway is."""

from __future__ import annotations

from forebay_registry.health.attempts import LEAST, RESTART_S, SPAN_S, Attempts, Fault, Tally


def test_too_few_attempts_say_nothing_and_old_ones_no_more() -> None:
    attempts = Attempts()
    assert attempts.take("gw-1", 1, 1, [("be-1", Tally(served=3, failed=1))], 0.0) is None
    assert attempts.failing("be-1", 1.0) is None
    attempts.take("gw-1", 1, 2, [("be-1", Tally(refused=1, broken=1, silent=1, served=3))], 10.0)
    assert attempts.failing("be-1", 10.0) == 4 / 10
    assert attempts.failing("be-1", SPAN_S) == 3 / 6
    assert attempts.failing("be-1", 10.0 + SPAN_S) is None
    assert attempts.failing("be-2", 10.0) is None


def test_each_gateway_is_one_voice_however_loud_it_is() -> None:
    attempts = Attempts()
    attempts.take("liar", 1, 1, [("be-1", Tally(failed=100_000))], 0.0)
    assert attempts.failing("be-1", 0.0) == 1.0
    for number in range(3):
        attempts.take(f"gw-{number}", 1, 1, [("be-1", Tally(served=LEAST))], 0.0)
    assert attempts.failing("be-1", 0.0) == 1 / 4


def test_workers_of_a_gateway_count_each_for_itself_and_are_one_voice() -> None:
    attempts = Attempts()
    attempts.take("gw-1", 1, 1, [("be-1", Tally(served=LEAST))], 0.0)
    for worker in (1, 2, 3):
        assert attempts.take("gw-2", 10 - worker, 1, [("be-1", Tally(failed=LEAST))], 0.0, worker) is None
    assert attempts.take("gw-2", 8, 1, [("be-1", Tally(failed=LEAST))], 0.0, 2) is Fault.OUT_OF_ORDER
    assert attempts.failing("be-1", 0.0) == 1 / 2


def test_a_report_that_comes_again_or_too_late_does_not_count() -> None:
    attempts, told = Attempts(), [("be-1", Tally(failed=5))]
    assert attempts.take("gw-1", 5, 1, told, 0.0) is None
    assert attempts.take("gw-1", 5, 1, told, 1.0) is Fault.OUT_OF_ORDER
    assert attempts.take("gw-1", 4, 9, told, 1.0) is Fault.OUT_OF_ORDER, "of the process before it"
    assert attempts.take("gw-1", 6, 1, told, 1.0) is None, "a new process counts anew"
    attempts.forget("be-1")
    assert attempts.failing("be-1", 1.0) is None


def test_a_gateway_whose_clock_was_ahead_counts_again_after_its_restart() -> None:
    attempts, told = Attempts(), [("be-1", Tally(failed=5))]
    assert attempts.take("gw-1", 9_000, 1, told, 0.0) is None
    assert attempts.take("gw-1", 5, 1, told, RESTART_S - 1.0) is Fault.OUT_OF_ORDER
    assert attempts.take("gw-1", 5, 2, told, RESTART_S) is None
    assert attempts.take("gw-1", 5, 2, told, 3 * RESTART_S) is Fault.OUT_OF_ORDER, "the same report never counts twice"
