"""What a key may beyond its models, what becomes of it, and that nobody gives themselves more than they have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forebay.errors import BadInput, NotAllowed, NotPossible
from forebay.keys import is_one_of, seal_secret
from forebay_admin.keys.key_life import KeyChange, blocked, demand_no_wider, renewed, revised, rotated, unblocked
from forebay_admin.keys.key_terms import AuditPolicy, KeyTerms, order_labels, order_terms
from forebay_admin.keys.keys import Band, Block, Key, KeyState, Limits, Principal, narrowed
from forebay_admin.people.people import Role
from forebay_admin.quotas.quota_requests import QuotaRequest, RequestState, decided, order_request

NOW = datetime(2027, 1, 15, 12, tzinfo=UTC)
KEY = Key("5f0c2d9a41be", "laptop", "user_1", "alice", Limits(), "admin", NOW)
REVOKED = replace(KEY, revoked_at=NOW)
HELD = Limits(
    ("llama*",),
    pool="day",
    terms=KeyTerms(("secret*",), ("night",), ("10.0.0.0/8", "2001:db8::/32"), ("chat", "embedding"), 100, 1000),
)


def test_networks_are_written_in_one_way_and_an_address_is_a_network_of_one() -> None:
    terms = order_terms(addresses=["10.0.0.0/8", "192.168.1.7", " 2001:DB8::/32 ", "10.0.0.0/8"])
    assert terms.addresses == ("10.0.0.0/8", "192.168.1.7/32", "2001:db8::/32")


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ["10.0.0.1/8"]},
        {"addresses": ["somewhere"]},
        {"addresses": ["10.0.0.0/8"] * 201},
        {"calls": ["chats"]},
        {"denied_models": [""]},
        {"other_pools": ["two words"]},
        {"max_output_tokens": 0},
        {"max_context_tokens": 10**10},
    ],
)
def test_terms_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        order_terms(**wrong)


def test_labels_are_put_in_and_taken_out_by_name() -> None:
    assert order_labels({"a": "1", "b": "2"}, {"c": "3", "a": "4"}, ["b"]) == {"a": "4", "c": "3"}
    for wrong in ({"-": "x"}, {"a": "x\n"}, {f"l{n}": "" for n in range(33)}):
        with pytest.raises(BadInput):
            order_labels({}, wrong)


def test_a_key_made_with_a_restricted_key_inherits_its_terms() -> None:
    assert narrowed(Limits(), HELD, band_was_named=False) == HELD


def test_a_key_made_with_a_restricted_key_may_be_narrower() -> None:
    wanted = Limits(
        ("llama*",),
        pool="night",
        terms=KeyTerms(("secret*", "llama-1"), (), ("10.1.0.0/16",), ("chat",), 50, 1000, AuditPolicy.FULL),
    )
    assert narrowed(wanted, HELD, band_was_named=False) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        Limits(pool="weekend"),
        Limits(pool="day", terms=KeyTerms(other_pools=("weekend",))),
        Limits(terms=KeyTerms(addresses=("11.0.0.0/8",))),
        Limits(terms=KeyTerms(addresses=("0.0.0.0/0",))),
        Limits(terms=KeyTerms(calls=("image",))),
        Limits(terms=KeyTerms(max_output_tokens=101)),
        Limits(terms=KeyTerms(max_context_tokens=1001)),
    ],
)
def test_a_key_made_with_a_restricted_key_is_never_wider(wanted: Limits) -> None:
    with pytest.raises(NotAllowed):
        narrowed(wanted, HELD, band_was_named=True)


def test_what_a_key_denies_stays_denied_to_the_keys_made_with_it() -> None:
    made = narrowed(Limits(terms=KeyTerms(("mine*",))), HELD, band_was_named=False)
    assert made.terms.denied_models == ("mine*", "secret*")


def test_an_owner_restricts_their_key_and_does_not_widen_it() -> None:
    key = replace(KEY, limits=HELD)
    tighter = KeyChange(limits={"allowed_models": ("llama*",)}, terms={"max_output_tokens": 10, "calls": ("chat",)})
    assert revised(key, tighter, only_narrower=True).limits.terms.max_output_tokens == 10
    for wider in (
        KeyChange(terms={"max_output_tokens": 101}),
        KeyChange(terms={"max_output_tokens": None}),
        KeyChange(terms={"addresses": ()}),
        KeyChange(terms={"denied_models": ()}),
        KeyChange(limits={"allowed_models": ()}),
        KeyChange(limits={"band_cap": Band.SYSTEM}),
        KeyChange(limits={"pool": "weekend"}),
    ):
        with pytest.raises(NotAllowed, match="quota request"):
            revised(key, wider, only_narrower=True)
        assert revised(key, wider, only_narrower=False) != key
    with pytest.raises(NotAllowed, match="administrator"):
        revised(key, KeyChange(terms={"audit": AuditPolicy.OFF}), only_narrower=True)


def test_a_change_of_nothing_is_refused_and_what_is_not_named_stays() -> None:
    with pytest.raises(BadInput):
        revised(KEY, KeyChange(), only_narrower=False)
    after = revised(replace(KEY, description="of old"), KeyChange(name="desk"), only_narrower=True)
    assert (after.name, after.description, after.limits) == ("desk", "of old", KEY.limits)


def test_a_pool_besides_its_own_takes_one_of_its_own() -> None:
    with pytest.raises(BadInput, match="own"):
        revised(KEY, KeyChange(terms={"other_pools": ("night",)}), only_narrower=False)


def test_an_old_secret_works_until_the_overlap_is_over() -> None:
    after = rotated(KEY, 60, NOW)
    assert after.old_secret_until == NOW + timedelta(seconds=60)
    assert rotated(KEY, 0, NOW).old_secret_until is None
    pepper, new, old = b"p", "new", "old"
    principal = Principal(
        "k", seal_secret(pepper, new), "u", "alice", "g", Role.MEMBER, KeyState.ACTIVE, Limits(),
        old_secret_hmac=seal_secret(pepper, old), old_secret_until=after.old_secret_until,
    )  # fmt: skip
    just_before = NOW + timedelta(seconds=59)
    assert is_one_of(pepper, old, principal.secrets(just_before))
    assert not is_one_of(pepper, old, principal.secrets(NOW + timedelta(seconds=60)))
    assert is_one_of(pepper, new, principal.secrets(NOW + timedelta(days=9)))
    assert not is_one_of(pepper, "other", principal.secrets(just_before))
    with pytest.raises(BadInput):
        rotated(KEY, 31 * 86_400, NOW)


def test_a_block_holds_until_its_end_and_revocation_goes_before_it() -> None:
    key = blocked(KEY, " looked into ", 60, NOW)
    assert key.block == Block("looked into", NOW + timedelta(seconds=60))
    assert key.state is KeyState.BLOCKED
    assert key.block.holds(NOW + timedelta(seconds=59))
    assert not key.block.holds(NOW + timedelta(seconds=60))
    assert unblocked(key).state is KeyState.ACTIVE
    assert replace(key, revoked_at=NOW).state is KeyState.REVOKED
    for reason, for_s in (("", None), ("x" * 201, None), ("x", 0)):
        with pytest.raises(BadInput):
            blocked(KEY, reason, for_s, NOW)
    with pytest.raises(NotPossible):
        unblocked(KEY)


def test_what_was_revoked_has_no_second_life() -> None:
    with pytest.raises(NotPossible):
        renewed(REVOKED, 60, NOW)
    with pytest.raises(NotPossible):
        rotated(REVOKED, 0, NOW)
    with pytest.raises(NotPossible):
        blocked(REVOKED, "x", 1, NOW)


def test_a_key_does_not_lengthen_its_own_life() -> None:
    held = Limits(expires_at=NOW + timedelta(days=1))
    key = replace(KEY, limits=held)
    demand_no_wider(renewed(key, 3600, NOW).limits, held)
    for expires_in_s in (2 * 86_400, None):
        with pytest.raises(NotAllowed):
            demand_no_wider(renewed(key, expires_in_s, NOW).limits, held)


def request(**changed: Any) -> QuotaRequest:
    asked = {"user_id": "u", "user_name": "alice", "wish": {}, "reason": "more", "open_already": 0, "now": NOW}
    return order_request(**{**asked, **changed})


def test_a_request_is_decided_once() -> None:
    approved = decided(request(), approve=True, answer="", by="admin", now=NOW)
    assert (approved.state, approved.decided_by) == (RequestState.APPROVED, "admin")
    with pytest.raises(NotPossible):
        decided(approved, approve=False, answer="no", by="admin", now=NOW)
    with pytest.raises(BadInput):
        decided(request(), approve=False, answer=" ", by="admin", now=NOW)
    with pytest.raises(BadInput):
        request(reason="")
    with pytest.raises(NotPossible):
        request(open_already=20)
