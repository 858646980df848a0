"""Requests that come twice: told apart by all that they say."""

from __future__ import annotations

import pytest

from forebay.errors import BadInput
from forebay_admin.rest.repeats import demand_key, request_mac


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ä"])
def test_a_key_is_short_and_printable(key: str) -> None:
    with pytest.raises(BadInput, match="Idempotency-Key"):
        demand_key(key)


def test_address_and_body_do_not_run_into_each_other() -> None:
    said = [("POST /a", b"b"), ("POST /ab", b""), ("POST /a", b""), ("POST /", b"ab")]
    assert len({request_mac(b"s", address, body) for address, body in said}) == len(said)
    assert request_mac(b"s", *said[0]) != request_mac(b"t", *said[0])
