"""Who is let in by address, who is banned and for how long; and that a flood of addresses takes no memory."""

from __future__ import annotations

import ipaddress

import pytest

from forebay.address_gate import MOST_OWN_BANS, MOST_REMEMBERED, AddressGate, Ban, Denied, Mode
from forebay.brute_force import FORGOTTEN_S, MOST_COUNTED, BanPolicy, Failures, Strikes
from forebay.client_addresses import Network, parse_network
from forebay.event_counts import FLOOD, FLOOD_S, MOST_NAMES, MOST_TOLD_APART, EventCounts, Sort


def net(text: str) -> Network:
    network = parse_network(text)
    assert network is not None
    return network


def gate(mode: Mode = Mode.PERMISSIVE, denied: tuple[str, ...] = (), allowed: tuple[str, ...] = ()) -> AddressGate:
    made = AddressGate()
    made.set_lists(mode, map(net, denied), map(net, allowed))
    return made


@pytest.mark.parametrize(
    ("mode", "address", "verdict"),
    [
        (Mode.PERMISSIVE, "192.0.2.1", None),
        (Mode.PERMISSIVE, "203.0.113.9", Denied.BY_LIST),
        (Mode.PERMISSIVE, "10.0.0.1", None),
        (Mode.PERMISSIVE, "10.6.6.6", Denied.BY_LIST),
        (Mode.PERMISSIVE, "", None),
        (Mode.RESTRICTIVE, "192.0.2.1", Denied.BY_LIST),
        (Mode.RESTRICTIVE, "10.0.0.1", None),
        (Mode.RESTRICTIVE, "::ffff:10.0.0.1", None),
        (Mode.RESTRICTIVE, "2001:db8::7", None),
        (Mode.RESTRICTIVE, "2001:db9::7", Denied.BY_LIST),
        (Mode.RESTRICTIVE, "10.6.6.6", Denied.BY_LIST),
        (Mode.RESTRICTIVE, "", Denied.BY_LIST),
        (Mode.RESTRICTIVE, "not an address", Denied.BY_LIST),
    ],
)
def test_who_is_denied_stays_out_and_in_the_restrictive_mode_everybody_else_who_is_not_allowed(
    mode: Mode, address: str, verdict: Denied | None
) -> None:
    made = gate(mode, denied=("203.0.113.0/24", "10.6.0.0/16"), allowed=("10.0.0.0/8", "2001:db8::/32"))
    assert made.look(address, 0.0) is verdict
    assert made.look(address, 0.0) is verdict


def test_a_ban_holds_until_its_end_whoever_made_it_and_what_is_told_goes_before_what_was_made_here() -> None:
    made = gate()
    made.ban(Ban(net("192.0.2.1"), 100.0))
    told = Ban(net("2001:db8::/64"), None, spares_valid=False)
    made.change_bans([told], [])
    assert made.look("192.0.2.1", 99.0) == Ban(net("192.0.2.1"), 100.0)
    assert made.look("192.0.2.2", 99.0) is None
    assert made.look("192.0.2.1", 100.0) is None
    assert made.look("2001:db8::9", 1e12) is told
    made.change_bans([Ban(net("2001:db8::/48"), 500.0)], [])
    assert made.look("2001:db8::9", 0.0) is told, "one that spares nobody goes first"
    made.change_bans([], [net("2001:db8::/64")])
    assert made.look("2001:db8::9", 0.0) == Ban(net("2001:db8::/48"), 500.0)
    made.ban(Ban(net("192.0.2.1"), 300.0))
    made.change_bans([], [net("192.0.2.1")])
    assert made.look("192.0.2.1", 0.0) is None, "taken back by somebody who knows"
    made.replace_bans([])
    assert made.bans == 0


def test_bans_that_end_one_after_the_other_are_looked_through_once_in_a_while() -> None:
    made = gate()
    made.change_bans([Ban(net(f"192.0.2.{n}"), 100.0 + n / 10) for n in range(1, 5)], [])
    assert [made.look(f"192.0.2.{n}", 100.0) is None for n in range(1, 5)] == [False] * 4
    assert [made.look(f"192.0.2.{n}", 100.2) is None for n in range(1, 5)] == [True, True, False, False]
    assert [made.look(f"192.0.2.{n}", 100.4) is None for n in range(1, 5)] == [True] * 4
    assert made.bans == 2
    made.change_bans([Ban(net("192.0.2.9"), 101.0)], [])
    assert made.look("192.0.2.9", 100.5) is not None
    assert made.look("192.0.2.9", 101.5) is None
    assert made.bans == 0


def test_each_ban_in_a_row_lasts_twice_as_long_and_a_day_of_peace_forgives() -> None:
    policy, strikes = BanPolicy(first_s=60, longest_s=400), Strikes()
    at, ends = 0.0, []
    for _ in range(5):
        strike, until = strikes.next("192.0.2.1", at, policy)
        ends.append((strike, until - at))
        at = until + 1
    assert ends == [(1, 60), (2, 120), (3, 240), (4, 400), (5, 400)]
    assert strikes.next("192.0.2.1", at + FORGOTTEN_S, policy)[0] == 1


def test_failures_count_within_the_window_and_for_each_address() -> None:
    policy, failures = BanPolicy(after=3, window_s=10), Failures()
    assert [failures.note("a", at, policy) for at in (0, 1, 12, 13)] == [0, 0, 0, 0]
    assert failures.note("b", 14, policy) == 0
    assert failures.note("a", 14, policy) == 3
    assert failures.note("a", 15, policy) == 0, "counted anew"
    assert failures.note("b", 16, policy, times=7) == 8
    assert failures.note("a", 16, BanPolicy(after=0), times=1000) == 0


def test_a_flood_of_addresses_that_each_try_another_key_takes_no_more_room_than_some_thousands() -> None:
    policy, failures, counts, made = BanPolicy(after=2), Failures(), EventCounts(), gate(denied=("203.0.113.0/24",))
    for number in range(MOST_REMEMBERED + 5000):
        address = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64"
        failures.note(address, number, policy)
        counts.note(Sort("key_refused", "invalid_key", address, f"{number:012x}"), number)
        made.look(address, number)
    assert len(failures) == MOST_COUNTED
    assert len(counts) == MOST_TOLD_APART + 1
    assert len(made._remembered) <= MOST_REMEMBERED
    assert sum(count.number for count in counts.take(0.0).values()) == MOST_REMEMBERED + 5000, "none goes uncounted"


def test_one_address_that_names_a_new_key_each_time_is_a_few_events_and_a_flood_is_taken_a_minute_apart() -> None:
    counts = EventCounts()
    for number in range(1000):
        counts.note(Sort("key_refused", "invalid_key", "192.0.2.1", f"{number:012x}"), 0.0)
        counts.note(
            Sort("quota_refused", "quota_spent", "192.0.2.1", f"{number % 30:012x}", f"user-{number % 30}"), 0.0
        )
    told = counts.take(10.0)
    guessed = {sort.key_id: count.number for sort, count in told.items() if sort.kind == "key_refused"}
    assert (len(guessed), guessed[""], sum(guessed.values())) == (MOST_NAMES + 1, 1000 - MOST_NAMES, 1000)
    assert len(told) - len(guessed) == 30, "those who are known are told apart"
    for number in range(FLOOD):
        counts.note(Sort("key_refused", "invalid_key", f"2001:db8:{number:x}::/64"), 0.0)
    assert len(counts.take(11.0)) == FLOOD
    counts.note(Sort("key_refused", "invalid_key", "192.0.2.1"), 0.0)
    assert not counts.take(11.0 + FLOOD_S / 2)
    assert len(counts.take(11.0 + FLOOD_S)) == 1


def test_bans_made_here_are_so_many_at_most() -> None:
    made = gate()
    first = int(ipaddress.ip_address("10.0.0.0"))
    for number in range(MOST_OWN_BANS + 5):
        made.ban(Ban(net(str(ipaddress.ip_address(first + number))), 100.0))
    assert made.bans == MOST_OWN_BANS
    assert made.look("10.0.0.0", 0.0) is None
    assert made.look("10.0.0.9", 0.0) is not None
    made.forget(100.0)
    assert made.bans == 0
