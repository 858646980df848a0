"""What a key may be, and that nobody makes themselves a better one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forebay.errors import BadInput, NotAllowed
from forebay_admin.keys.keys import Band, Key, KeyOrder, KeyState, Limits, key_id_from, narrowed, order_key, revoked

NOW = datetime(2027, 1, 15, 12, tzinfo=UTC)
KEY = Key("5f0c2d9a41be", "laptop", "user_1", "alice", Limits(), "admin", NOW)


def order(**changed: object) -> KeyOrder:
    asked: dict[str, object] = {
        "user": "alice",
        "name": "laptop",
        "allowed_models": (),
        "band_cap": None,
        "pool": "",
        "expires_in_s": None,
        "now": NOW,
    }
    return order_key(**{**asked, **changed})  # type: ignore[arg-type]


def test_a_plain_order_is_for_all_models_and_capped_at_interactive() -> None:
    assert order().limits == Limits((), Band.INTERACTIVE, "", None)


def test_an_expiry_counts_from_now() -> None:
    assert order(expires_in_s=60).limits.expires_at == NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires_in_s": 0},
        {"expires_in_s": 2**63},
        {"allowed_models": ["  "]},
        {"allowed_models": ["a\nb"]},
        {"allowed_models": ["m"] * 201},
        {"name": "x" * 101},
        {"name": "a\x1b[31m"},
        {"pool": "no spaces"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        order(**wrong)


def test_the_first_revocation_stands() -> None:
    once = revoked(KEY, NOW)
    assert once.state is KeyState.REVOKED
    assert revoked(once, NOW + timedelta(days=1)) == once


def test_what_runs_can_be_cut_by_a_later_revocation_and_by_none_be_spared_again() -> None:
    once = revoked(KEY, NOW)
    assert not once.cut_running
    again = revoked(once, NOW + timedelta(days=1), cut_running=True)
    assert (again.revoked_at, again.cut_running) == (NOW, True)
    assert revoked(again, NOW + timedelta(days=2)) == again


@pytest.mark.parametrize("text", ["5f0c2d9a41be", " fb-5f0c2d9a41be ", "fb-5f0c2d9a41be-" + "s" * 43])
def test_a_key_is_named_by_its_public_id_or_by_itself(text: str) -> None:
    assert key_id_from(text) == "5f0c2d9a41be"


@pytest.mark.parametrize("text", ["", "fb-", "../etc", "x" * 65])
def test_what_names_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        key_id_from(text)


def test_a_key_made_with_a_narrow_key_inherits_its_limits() -> None:
    held = Limits(("llama*",), Band.BATCH, "night", NOW + timedelta(days=1))
    assert narrowed(Limits(), held, band_was_named=False) == held


@pytest.mark.parametrize(
    "wanted",
    [
        Limits(allowed_models=("gpt*",)),
        Limits(band_cap=Band.SYSTEM),
        Limits(pool="day"),
        Limits(expires_at=NOW + timedelta(days=2)),
    ],
)
def test_a_key_made_with_a_narrow_key_is_never_wider(wanted: Limits) -> None:
    held = Limits(("llama*",), Band.BATCH, "night", NOW + timedelta(days=1))
    with pytest.raises(NotAllowed):
        narrowed(wanted, held, band_was_named=True)


def test_a_member_may_not_raise_the_band_of_their_key() -> None:
    with pytest.raises(NotAllowed, match="interactive"):
        narrowed(Limits(band_cap=Band.SYSTEM), Limits(), band_was_named=True)
