"""Whose call this is, in whichever way it says so: by an API key, signed by a public key that one trusts, or by admin for
one of its user's batches."""

from __future__ import annotations

from forebay.delegation import Delegation
from forebay.errors import NotAllowed
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.callers.signed_call import signer_of
from forebay_gateway.refused import BadDelegation
from forebay_gateway.serving import Means


def principal_of(means: Means, call: Call, delegation: Delegation | None = None) -> Principal:
    """In the pool that it asks. `delegation`: what was taken of the call's, where such a call may go at all. Raises
    NotAuthenticated, NotAllowed, Unavailable."""
    if call.delegation is not None:
        if delegation is None:
            raise BadDelegation
        return means.principals.find(delegation.key_id, means.clock.now())  # where its key belongs
    return _caller(means, call).within(call.pool)


def _caller(means: Means, call: Call) -> Principal:
    now = means.clock.now()
    if call.key is None and call.signature is not None:
        signer = signer_of(call.signature, method=call.method, path=call.path, query=call.query, now=now)
        return means.principals.find_signer(signer, now)
    return means.principals.verify(call.demand_key(), now)
