"""Whatever is said, however wrong: nothing is raised, and the counts stay true. Gateways that lie, backends that make no
sense, names that nobody knows, ends told twice or under a wrong lease, clocks that stand still, jump, or go back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, ModelFacts
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Claim,
    Epoch,
    GatewayName,
    GroupId,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import (
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    ModelTerms,
    Period,
    PlacementPolicy,
    PoolTerms,
    UserTerms,
)
from tests.scheduler.doubles import thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's


sessions = st.integers(1, 4).map(SessionId)
ids = st.integers(1, 12).map(lambda number: LedgerId(b"%016d" % number))
users = st.sampled_from(["alice", "bob", "", "nobody"]).map(UserId)
groups = st.sampled_from(["law", "lab", "", "law"]).map(GroupId)
keys = st.sampled_from(["k1", "k2", ""]).map(KeyId)
models = st.sampled_from(["m", "n", "unknown", ""])
pools = st.sampled_from(["default", "far", "nowhere"]).map(PoolName)
backends = st.sampled_from(["b1", "b2", "gone"]).map(BackendId)
tokens = st.sampled_from([0, 1, 300, 10**9])
weights = st.sampled_from([0.0, -1.0, 1e-9, 1.0, 1e9])
epochs = st.sampled_from([Epoch(1, 1), Epoch(0, 0), Epoch(1, 9), Epoch(2, 0)])
leases = st.builds(Lease, epochs, st.integers(0, 40))
requests = st.builds(
    Request,
    ids,
    users,
    models,
    st.sampled_from([0.0, 900.0, 1000.0, 5000.0]),
    pools,
    st.sampled_from(Band),
    st.sampled_from([1, 1, 1, 2, 50]),
    st.sampled_from([None, 0.0, 2.0]),
    st.frozensets(backends, max_size=2),
    st.sampled_from([0, 0, 1, 9]),
    keys,
    groups,
    tokens,
    tokens,
    st.sampled_from([(), (1, 2, 3)]),
    st.sampled_from(["", "s"]),
)
used = st.builds(Used, tokens, tokens, tokens)
settles = st.builds(
    ev.Settle, sessions, ids, st.none() | leases, st.booleans(), used, st.just("failed"), st.none() | requests
)
limits = st.builds(
    Limits,
    st.sampled_from([None, 0, 1, 10]),
    st.sampled_from([None, 0, 500]),
    st.sampled_from([None, 0, 2]),
    st.lists(
        st.builds(
            Budget,
            st.sampled_from(["one", "two"]),
            st.sampled_from(BudgetUnit),
            st.sampled_from([0, 100, 10**12]),
            st.sampled_from(Period),
            st.sampled_from(["UTC", "Europe/Berlin", "no such zone"]),
        ),
        max_size=2,
        unique_by=lambda budget: budget.id,
    ).map(tuple),
)
facts = st.builds(
    Backend,
    backends,
    pools,
    st.frozensets(st.sampled_from(["m", "n"]), max_size=2),
    st.sampled_from([0, 1, 2, 4]),
    healthy=st.booleans() | st.just(True),
    enabled=st.booleans() | st.just(True),
    running=st.sampled_from([None, 0, 3, 1000]),
    measured_at=st.sampled_from([float("-inf"), 0.0, 1000.0, 10**6]),
    waiting=st.sampled_from([None, 0, 50]),
    slots_assumed=st.booleans(),
    kv_tokens=st.sampled_from([None, 0, 1000]),
    requests_per_minute=st.sampled_from([None, 1, 60]),
    models_at_once=st.sampled_from([None, 1]),
    weight=st.sampled_from([None, 0.0, 2.0]),
    facts=st.dictionaries(
        st.sampled_from(["m", "x"]), st.builds(ModelFacts, st.sampled_from([None, 0, 1])), max_size=2
    ),
)
fleets = st.lists(facts, max_size=3, unique_by=lambda backend: backend.id).map(tuple)
claims = st.builds(Claim, requests, backends, leases, st.integers(0, 5), tokens)
policies = st.builds(
    ev.PolicyChanged,
    users=st.lists(
        st.builds(UserTerms, users, st.none() | groups, weights, st.sampled_from([None, 0, 1]), limits, st.booleans()),
        max_size=2,
    ).map(tuple),
    removed=st.lists(users, max_size=1).map(tuple),
    groups=st.lists(st.builds(GroupTerms, groups, st.none() | groups, weights, limits, st.booleans()), max_size=2).map(
        tuple
    ),
    removed_groups=st.lists(groups, max_size=1).map(tuple),
    keys=st.lists(st.builds(KeyTerms, keys, users, weights, limits), max_size=1).map(tuple),
    models=st.lists(st.builds(ModelTerms, models, tokens, tokens, tokens, weights), max_size=1).map(tuple),
    pools=st.lists(
        st.builds(PoolTerms, pools, st.sampled_from(PlacementPolicy), st.booleans(), st.sampled_from([None, 0, 10**6])),
        max_size=1,
    ).map(tuple),
)
hellos = st.builds(
    ev.SessionOpened,
    sessions,
    st.sampled_from(["g1", "g2"]).map(GatewayName),
    st.integers(0, 3),
    st.lists(claims, max_size=3).map(tuple),
    st.lists(requests, max_size=3).map(tuple),
    st.lists(st.tuples(backends, st.sampled_from([0, 1, 99])), max_size=2).map(tuple),
    st.lists(settles, max_size=2).map(tuple),
)
small = st.integers(0, 30)
said: st.SearchStrategy[Any] = st.one_of(
    st.builds(ev.Submit, sessions, requests),
    st.builds(ev.Submit, sessions, requests),
    st.builds(ev.Cancel, sessions, ids),
    st.builds(ev.FirstToken, sessions, ids, st.sampled_from([0.0, 0.1, 1e6])),
    st.builds(ev.Progress, sessions, ids, tokens),
    settles,
    st.builds(ev.Nack, sessions, ids, small, st.sampled_from(ev.NackCause), st.sampled_from([0.0, 1e9])),
    st.builds(ev.CeilingAcked, sessions, backends, small, st.sampled_from([0, 1, 99])),
    st.builds(ev.CreditStarted, sessions, small, small, requests, backends),
    st.builds(ev.CreditReturned, sessions, small),
    st.builds(ev.AllotmentReturned, sessions, small),
    st.builds(ev.Beat, sessions, small),
    st.builds(ev.Heard, sessions),
    st.builds(ev.GatewayLeft, sessions),
    st.builds(ev.SessionLost, sessions),
    hellos,
    hellos,
    st.builds(ev.GatewayDied, st.sampled_from(["g1", "g2", "g9"]).map(GatewayName), st.integers(0, 3)),
    st.builds(ev.FleetChanged, fleets),
    st.builds(ev.BackendsReported, fleets),
    policies,
    st.builds(ev.SettledAcked, st.lists(ids, max_size=3).map(tuple)),
    st.builds(ev.CeilingsStored, small),
    st.builds(ev.StateStored, small),
    st.builds(ev.BusChanged, st.booleans()),
    st.builds(ev.DrainAsked, backends, st.sampled_from([None, 0.0, 5.0]), st.booleans()),
    st.builds(ev.Tick, st.sampled_from([None, 0, 10**15, 1_700_000_000_000_000])),
)
clock_steps = st.sampled_from([0.0, 0.0, 0.001, 0.2, 1.0, 6.0, -5.0, 100.0, 3 * 3600.0])


@given(
    fleets, hellos, st.lists(st.tuples(st.lists(said, min_size=1, max_size=4), clock_steps), max_size=25), st.booleans()
)
@thorough(250)
def test_nothing_that_is_said_breaks_the_core(
    fleet: tuple[Backend, ...], hello: ev.SessionOpened, turns: list[tuple[list[Any], float]], is_followed: bool
) -> None:
    now = 1000.0
    policy = Policy(Rules(), Epoch(1, 1), now, wall_us=1_700_000_000_000_000)
    count = 1

    def numbered(event: Any) -> Any:
        """Each stream has a number of its own: the edge mints them."""
        nonlocal count
        count += isinstance(event, ev.SessionOpened)
        return replace(event, session=SessionId(count)) if isinstance(event, ev.SessionOpened) else event

    policy.apply([ev.FleetChanged(fleet), replace(hello, session=SessionId(1))], now)
    turns = [([numbered(event) for event in events], step) for events, step in turns]
    stored: list[de.StoredCeilings] = []
    for events, step in turns:
        now += step
        for decision in policy.apply(events, now):
            if isinstance(decision, de.StoreCeilings):
                stored = [entry for shard in decision.shards.values() for entry in shard]
                policy.apply([ev.CeilingsStored(decision.ticket)], now)
        check(policy)
    _, state = policy.save()
    if is_followed:
        follower = Policy(Rules(), Epoch(1, 2), now, recovered=stored, state=state)
        follower.apply([ev.FleetChanged(fleet), *(event for events, _ in turns for event in events)], now)
        check(follower)


def check(policy: Policy) -> None:
    dispatch = policy.dispatch
    held = list(dispatch.holds)
    for station in dispatch.stations:
        here = [one for one in held if one.station is station]
        assert station.used == sum(one.slots for one in here)
        assert station.running == len(here)
        assert station.tokens == sum(one.tokens for one in here)
        assert station.aside >= 0
    queued = [request.ledger_id for request in policy.queued()]
    assert len(set(queued)) == len(queued)
    assert not set(queued) & {one.request.ledger_id for one in held}
    for line in dispatch.queues.lines:
        charged = sum(one.charge.cost for one in held if one.request.pool == line.pool)
        assert line.queue._shared.reserved + line.queue._system.reserved == charged
    for standing in dispatch.limits.budgets():
        assert standing.reserved >= 0
        assert standing.lent >= 0
        assert standing.spent >= 0
