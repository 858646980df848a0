"""Whose call this is, in whichever way it says so: by an API key, or signed by a public key that one trusts."""

from __future__ import annotations

from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.callers.signed_call import signer_of
from forebay_gateway.serving import Means


def principal_of(means: Means, call: Call) -> Principal:
    """Raises NotAuthenticated, Unavailable."""
    now = means.clock.now()
    if call.key is None and call.signature is not None:
        signer = signer_of(call.signature, method=call.method, path=call.path, query=call.query, now=now)
        return means.principals.find_signer(signer, now)
    return means.principals.verify(call.demand_key(), now)
