"""What admin says, in the core's words."""

from __future__ import annotations

import grpc
import pytest

from forebay.rpc import Peer
from forebay.wire.v1 import admin_pb2
from forebay_scheduler.events import Event, PolicyChanged
from forebay_scheduler.policy_watch import KnownPolicy, PolicyWatch
from forebay_scheduler.policy_wire import read_key, read_limits, read_model, read_pool, read_user
from forebay_scheduler.request import GroupId, KeyId, PoolName, UserId
from forebay_scheduler.terms import (
    UNLIMITED,
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    ModelTerms,
    Period,
    PlacementPolicy,
    PoolTerms,
    PriceTerms,
    PriceTier,
    UserTerms,
)


def whole() -> admin_pb2.PolicyUpdate:
    return admin_pb2.PolicyUpdate(
        version=7,
        snapshot=True,
        users=[admin_pb2.UserPolicy(user_id="alice", group_id="physics", weight_milli=2500, max_queued=4, paused=True)],
        groups=[
            admin_pb2.GroupPolicy(
                group_id="physics", parent_id="faculty", weight_milli=3000, limits=admin_pb2.Limits(concurrency=8)
            ),
            admin_pb2.GroupPolicy(group_id="faculty"),
        ],
        keys=[
            admin_pb2.KeyPolicy(
                key_id="k", user_id="alice", weight_milli=500, limits=admin_pb2.Limits(requests_per_minute=60)
            )
        ],
        models=[
            admin_pb2.ModelPolicy(
                model="m", prompt_micros=10, cached_prompt_micros=1, completion_micros=30, weight_milli=2000
            )
        ],
        pools=[admin_pb2.PoolPolicy(pool="gpu", placement="round_robin", sticky=True, locality_window=0)],
    )


def test_all_of_a_snapshot_is_read() -> None:
    assert KnownPolicy().apply(whole()) == PolicyChanged(
        users=(UserTerms(UserId("alice"), GroupId("physics"), 2.5, 4, is_paused=True),),
        groups=(
            GroupTerms(GroupId("physics"), GroupId("faculty"), 3.0, Limits(concurrency=8)),
            GroupTerms(GroupId("faculty")),
        ),
        keys=(KeyTerms(KeyId("k"), UserId("alice"), 0.5, Limits(requests_per_minute=60)),),
        models=(ModelTerms("m", 10, 1, 30, 2.0),),
        pools=(PoolTerms(PoolName("gpu"), PlacementPolicy.ROUND_ROBIN, True, 0),),
    )


def test_what_is_missing_in_a_snapshot_is_removed() -> None:
    known = KnownPolicy()
    known.apply(whole())
    changed = known.apply(admin_pb2.PolicyUpdate(version=8, snapshot=True, groups=whole().groups[:1]))
    assert changed.removed == (UserId("alice"),)
    assert changed.removed_groups == (GroupId("faculty"),)
    assert changed.removed_keys == (KeyId("k"),)
    assert changed.removed_models == ("m",)
    assert changed.removed_pools == (PoolName("gpu"),)
    assert [group.group for group in changed.groups] == [GroupId("physics")]


def test_a_delta_leaves_the_rest_as_it_was() -> None:
    known = KnownPolicy()
    known.apply(whole())
    changed = known.apply(
        admin_pb2.PolicyUpdate(
            version=8, users=[admin_pb2.UserPolicy(user_id="bob")], removed_key_ids=["k"], removed_models=["other"]
        )
    )
    assert changed == PolicyChanged(
        users=(UserTerms(UserId("bob")),), removed_keys=(KeyId("k"),), removed_models=("other",)
    )
    kept = known.snapshot()
    assert kept.version == 8
    assert {user.user_id for user in kept.users} == {"alice", "bob"}
    assert not kept.keys
    assert [model.model for model in kept.models] == ["m"]


def test_one_that_is_told_of_is_not_removed_in_the_same_breath() -> None:
    changed = KnownPolicy().apply(
        admin_pb2.PolicyUpdate(users=[admin_pb2.UserPolicy(user_id="bob")], removed_user_ids=["bob", "carol"])
    )
    assert changed.removed == (UserId("carol"),)


async def test_what_was_kept_is_told_again() -> None:
    events: list[Event] = []

    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        watch = PolicyWatch(Peer(channel, ()), events.extend)
        watch.apply(whole())
        again = PolicyWatch(Peer(channel, ()), events.extend)
        again.restore(watch.dump())
        assert events[0] == events[1]
        assert again.dump() == watch.dump()
        with pytest.raises(ValueError, match=r".+"):
            again.restore(b"\xff\xff\xff")


def test_a_limit_of_nothing_is_a_limit_and_an_absent_one_is_none() -> None:
    assert read_limits(admin_pb2.Limits()) is UNLIMITED
    read = read_limits(admin_pb2.Limits(requests_per_minute=0, tokens_per_minute=0, concurrency=0))
    assert read == Limits(0, 0, 0)
    assert not read.is_unlimited


def test_prices_are_kept_until_all_of_them_are_told_again_and_outlive_a_restart() -> None:
    told = admin_pb2.PolicyUpdate(version=3, snapshot=True, prices_told=True)
    terms = told.prices.add(model="m*").terms
    terms.prompt_micros, terms.completion_micros, terms.request_micros = 2, 6, 5
    terms.tiers.add(from_prompt_tokens=10, prompt_micros=1, cached_prompt_micros=0)
    known = KnownPolicy()
    prices = (PriceTerms("m*", 2, 2, 6, 5, (PriceTier(10, 1, 0, 0),)),)
    assert known.apply(told).prices == prices
    assert known.apply(admin_pb2.PolicyUpdate(version=4)).prices is None
    assert KnownPolicy().apply(known.snapshot()).prices == prices
    known.apply(admin_pb2.PolicyUpdate(version=5, snapshot=True))
    assert not known.has_prices, "it came from an admin that tells none"


def test_budgets_are_read_with_what_the_ledger_says() -> None:
    budget = admin_pb2.Budget(
        id="b1",
        unit=admin_pb2.BUDGET_UNIT_MONEY,
        amount=5_000_000,
        period=admin_pb2.BUDGET_PERIOD_WEEK,
        time_zone="Europe/Berlin",
        spent=17,
        spent_at_us=1_790_000_000_000_000,
    )
    assert read_limits(admin_pb2.Limits(budgets=[budget])).budgets == (
        Budget("b1", BudgetUnit.MONEY, 5_000_000, Period.WEEK, "Europe/Berlin", 17, 1_790_000_000_000_000),
    )
    window = admin_pb2.Budget(id="b2", amount=9, window_s=86_400, carried=3, carried_since_us=5)
    window.steps.add(start_us=3_600_000_000, spent=7)
    assert read_limits(admin_pb2.Limits(budgets=[window])).budgets == (
        Budget(
            "b2",
            BudgetUnit.TOKENS,
            9,
            window_s=86_400,
            steps=((3_600_000_000, 7),),
            carried=3,
            carried_since_us=5,
        ),
    )


def test_a_word_of_a_newer_admin_is_read_as_the_strictest_or_plainest() -> None:
    newer = admin_pb2.Budget(id="b", amount=9)
    newer.period = 77  # type: ignore[assignment]
    assert read_limits(admin_pb2.Limits(budgets=[newer])).budgets == (Budget("b", BudgetUnit.TOKENS, 9),)
    assert read_pool(admin_pb2.PoolPolicy(pool="p", placement="clever")) == PoolTerms(PoolName("p"))


def test_a_weight_that_was_not_said_is_one() -> None:
    assert read_user(admin_pb2.UserPolicy(user_id="a")).weight == 1.0
    assert read_key(admin_pb2.KeyPolicy(key_id="k", user_id="a")).weight == 1.0
    assert read_model(admin_pb2.ModelPolicy(model="m")).weight == 1.0
    assert read_user(admin_pb2.UserPolicy(user_id="a", weight_milli=1)).weight == 0.001
