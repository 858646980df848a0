"""The form of a key, and how it is kept."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.keys import ForebayKey, is_one_of, is_secret, new_key, parse_key, seal_secret

PEPPER = b"p" * 32


def test_a_new_key_has_a_public_id_and_256_bits_of_secret() -> None:
    key = new_key()
    assert re.fullmatch(r"fb-[0-9a-f]{12}-[0-9A-Za-z]{43}", str(key))
    assert 62**43 > 2**256
    assert parse_key(str(key)) == key


def test_no_two_keys_are_alike() -> None:
    keys = [new_key() for _ in range(500)]
    assert len({key.secret for key in keys}) == len({key.public_id for key in keys}) == 500


def test_the_secret_stays_out_of_what_is_printed() -> None:
    key = new_key()
    assert key.secret not in repr(key)
    assert key.public_id in repr(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fb",
        "fb-0123456789ab",
        "fb-0123456789ab-",
        "fb-0123-secret",
        "sk-0123456789ab-secret",
        "FB-0123456789ab-secret",
        "fb-0123456789ab-sécret",
        "fb-0123456789ab-\udcff",  # what a header's bytes that are no text become
    ],
)
def test_what_has_not_the_form_of_a_key_is_none(text: str) -> None:
    assert parse_key(text) is None


@given(st.text())
def test_nothing_that_a_caller_sends_raises(text: str) -> None:
    for sent in (text, f"fb-0123456789ab-{text}"):
        key = parse_key(sent)
        assert key is None or len(seal_secret(PEPPER, key.secret)) == 32


def test_a_secret_may_hold_dashes() -> None:
    assert parse_key("fb-0123456789ab-a-b-c") == ForebayKey("0123456789ab", "a-b-c")


def test_what_is_stored_is_an_hmac_under_the_pepper() -> None:
    stored = seal_secret(PEPPER, "secret")
    assert stored == hmac.new(PEPPER, b"secret", hashlib.sha256).digest()
    assert is_secret(PEPPER, "secret", stored)
    assert not is_secret(PEPPER, "Secret", stored)
    assert not is_secret(b"q" * 32, "secret", stored)


def test_what_a_caller_sends_is_compared_as_a_digest_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = seal_secret(PEPPER, "secret")
    compared, really = [], hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    sent = ("secret", "Xecret", "secreX", "", "x" * 10_000)
    assert [is_secret(PEPPER, secret, stored) for secret in sent] == [True, False, False, False, False]
    assert [is_one_of(PEPPER, secret, [stored]) for secret in sent] == [True, False, False, False, False]
    assert compared == [(32, 32)] * 10
