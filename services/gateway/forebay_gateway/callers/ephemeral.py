"""Ephemeral keys, as a gateway takes them: whose caller one is, and that it is used from where it was made for.

A gateway makes one out of an API key without asking anybody (`forebay.ephemeral_keys`). That it works once is admin's to
know (`ephemeral_spending`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from forebay.ephemeral_keys import EphemeralKey, EphemeralSeal
from forebay.errors import NotAllowed
from forebay_gateway.callers.key_terms import KeyTerms, parse_address
from forebay_gateway.callers.principals import Principal
from forebay_gateway.refused import InvalidKey, KeyExpired


class EphemeralKeys(EphemeralSeal):
    def read(self, text: str, now: float) -> EphemeralKey:
        """Raises InvalidKey, KeyExpired."""
        key = self.open(text)
        if key is None:
            raise InvalidKey
        if now >= key.expires_at:
            raise KeyExpired("This ephemeral key has expired. Have another made: POST /v1/ephemeral_keys.")
        return key


def narrowed(whose: Principal, key: EphemeralKey, *, origin: str, address: str) -> Principal:
    """`whose`: the caller with the key that it was made with. Raises NotAllowed where it is used from elsewhere than it was
    made for."""
    mine = key.narrowing
    if mine.origin and mine.origin != origin:
        raise NotAllowed("This ephemeral key is for a page of another origin than the request's.")
    if mine.address and parse_address(mine.address) != parse_address(address):
        raise NotAllowed("This ephemeral key is for a client at another address.")
    terms = whose.terms or KeyTerms()
    return replace(
        whose,
        only_models=mine.models,
        terms=replace(terms, max_output_tokens=_less(terms.max_output_tokens, mine.max_output_tokens)),
    )


def _less(one: int | None, other: int | None) -> int | None:
    known: Collection[int] = [number for number in (one, other) if number is not None]
    return min(known) if known else None
