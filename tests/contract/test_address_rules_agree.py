"""What admin tells of lists and bans keeps out of gateways whom it keeps out of admin's own HTTP port."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.address_gate import AddressGate, Ban, Denied, Mode
from forebay.brute_force import BanPolicy
from forebay.client_addresses import TrustedProxies, parse_network
from forebay.clock import ManualClock
from forebay_admin.security.rule_store import RulesUpdate
from forebay_admin.security.rules import HeldBan, Listed, Lists, Policy, Rule, gate_of
from forebay_admin.security.wire import update_to_wire
from forebay_gateway.callers.address_rules_watch import AddressRulesWatch
from forebay_gateway.callers.guard import Guard

ADDRESSES = ("192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1", "2001:db9::1", "127.0.0.1", "")
networks = st.sampled_from(("192.0.2.0/24", "192.0.2.1", "198.51.0.0/16", "2001:db8::/32", "2001:db8::/64")).map(
    parse_network
)
modes = st.sampled_from(Mode)
CLOCK = ManualClock()
NOW = datetime.fromtimestamp(CLOCK.now(), UTC)

rules = st.builds(Rule, st.sampled_from(Listed), networks, st.just(""), st.just("alice"), st.just(NOW))
bans = st.builds(
    HeldBan,
    networks,
    st.just(NOW),
    st.sampled_from((None, NOW + timedelta(hours=1), NOW - timedelta(hours=1))),
    st.just("scans us"),
    st.sampled_from(("", "alice")),
    spares_valid=st.booleans(),
    lifted_at=st.sampled_from((None, NOW)),
)


class _NoPeer:
    metadata: Any = ()

    class channel:
        unary_unary = unary_stream = staticmethod(lambda *args, **kwargs: None)


@settings(max_examples=30, deadline=None)
@given(
    mode=modes,
    rules=st.lists(rules, max_size=4),
    bans=st.lists(bans, max_size=4, unique_by=lambda ban: ban.network),
    is_whole=st.booleans(),
)
def test_both_sides_let_the_same_addresses_in(
    mode: Mode, rules: list[Rule], bans: list[HeldBan], is_whole: bool
) -> None:
    lists = Lists(Policy(mode, BanPolicy(after=7)), tuple(rules))
    guard = Guard(AddressGate(), None, None, TrustedProxies(), CLOCK)  # type: ignore[arg-type]  # nobody calls
    peer: Any = _NoPeer
    watch = AddressRulesWatch(peer, guard, CLOCK)
    told = [ban for ban in bans if not is_whole or ban.lifted_at is None]
    watch.apply(update_to_wire(RulesUpdate(1, is_whole, lists, told)))
    here = gate_of(lists, bans)
    for address in ADDRESSES:
        assert _verdict(guard.gate, address) == _verdict(here, address), address
    assert guard.policy == lists.policy.bans


def _verdict(gate: AddressGate, address: str) -> tuple[float | None, bool] | Denied | None:
    found = gate.look(address, CLOCK.now())
    return (found.until, found.spares_valid) if isinstance(found, Ban) else found
