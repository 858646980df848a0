"""Delegations: what opens which door, for how long, and what nobody can make without the pepper."""

from __future__ import annotations

import pytest

from forebay.delegation import VALID_S, Delegation, Delegations
from forebay.keys import new_key, seal_secret
from forebay.ledger_id import new_ledger_id

PEPPER = b"p" * 64
NOW = 1_800_000_000.5
KEY = "0123456789ab"
LEDGER_ID = new_ledger_id(NOW)


def test_a_delegation_says_whose_request_it_is_and_under_which_ledger_id() -> None:
    token = Delegations(PEPPER).issue(KEY, LEDGER_ID, NOW)
    assert Delegations(PEPPER).read(token, NOW + 1) == Delegation(KEY, LEDGER_ID, int(NOW + VALID_S))


def test_it_ends_after_a_minute() -> None:
    both = Delegations(PEPPER)
    token = both.issue(KEY, LEDGER_ID, NOW)
    assert both.read(token, NOW + VALID_S - 1) is not None
    assert both.read(token, NOW + VALID_S) is None


def test_another_pepper_does_not_know_it() -> None:
    token = Delegations(b"q" * 64).issue(KEY, LEDGER_ID, NOW)
    assert Delegations(PEPPER).read(token, NOW) is None


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_no_part_of_it_can_be_changed(place: int) -> None:
    both = Delegations(PEPPER)
    parts = both.issue(KEY, LEDGER_ID, NOW).split(".")
    parts[place] = parts[place][:-1] + ("1" if parts[place][-1] != "1" else "2")
    assert both.read(".".join(parts), NOW) is None


def test_what_is_stored_of_an_api_key_proves_nothing() -> None:
    """Whoever reads the database has HMACs under the same pepper."""
    both = Delegations(PEPPER)
    said = both.issue(KEY, LEDGER_ID, NOW).rpartition(".")[0]
    assert both.read(f"{said}.{seal_secret(PEPPER, said).hex()}", NOW) is None


def test_what_is_no_delegation_is_none() -> None:
    for text in ("", "....", "x" * 100, str(new_key()), "é.é.é.é", f"{KEY}.{LEDGER_ID.hex()}.1.", "0" * 5000):
        assert Delegations(PEPPER).read(text, NOW) is None, text
