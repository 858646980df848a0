"""Whose call this is, in whichever way it says so: by an API key, by an ephemeral one that was made with it, signed by a
public key that one trusts, or by admin for one of its user's batches; and whether it may come from where it comes."""

from __future__ import annotations

from forebay.delegation import Delegation
from forebay.ephemeral_keys import EphemeralKey
from forebay.errors import NotAllowed
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.ephemeral import narrowed
from forebay_gateway.callers.principals import Principal
from forebay_gateway.callers.signed_call import signer_of
from forebay_gateway.refused import BadDelegation
from forebay_gateway.serving import Means


def principal_of(
    means: Means, call: Call, delegation: Delegation | None = None, ephemeral: EphemeralKey | None = None
) -> Principal:
    """In the pool that it asks. `delegation`, `ephemeral`: what the call brings of these, where such a call may go at all.
    Raises NotAuthenticated, NotAllowed, Unavailable."""
    if call.delegation is not None:
        if delegation is None:
            raise BadDelegation
        return means.principals.find(delegation.key_id, means.clock.now())  # where its key belongs
    now = means.clock.now()
    if call.has_ephemeral_key:
        if ephemeral is None:
            raise NotAllowed("An ephemeral key is for one request to a model. This address takes API keys only.")
        whose = means.principals.find(ephemeral.key_id, now)
        principal = narrowed(whose, ephemeral, origin=call.origin, address=call.address)
    elif call.key is None and call.signature is not None:
        signer = signer_of(call.signature, method=call.method, path=call.path, query=call.query, now=now)
        principal = means.principals.find_signer(signer, now)
    else:
        principal = means.principals.verify(call.key or call.demand_key(), now)
    if principal.terms is not None:
        principal.demand_address(call.address)
    return principal if call.pool is None else principal.within(call.pool)
