"""Calls that are signed instead of bringing an API key, as those of the `ollama` command line under OLLAMA_AUTH=1.

Pure: time is an argument, and whom a public key stands for `principals` knows. The form is that of ollama/ollama,
`auth/auth.go` and `api/client.go`:

    authorization: <base64 of the public key as SSH writes it>:<base64 of the ed25519 signature>
    signed:        <METHOD>,<path>?ts=<seconds since the epoch>

Neither body nor host is signed, so whoever can read a call may use its signature while the window is open: it takes TLS.
Remembering signatures would not help: all calls to one address within a second have the same one, such as both deletions of
`ollama rm a b`, and none may be refused."""

from __future__ import annotations

import base64
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from forebay import signing_keys
from forebay_gateway.refused import BadSignature

WINDOW_S = 60
"""How far the client's clock may be from ours, either way."""

# What SSH writes begins with a length of less than 2**24, which in base64 is AAAA; neither a scheme nor a key of ours does.
_CREDENTIAL = re.compile(r"(AAAA[^\s:]*):(\S*)", re.ASCII)
_QUERY = re.compile(r"ts=([0-9]{1,12})")


def is_signature(authorization: str) -> bool:
    return _CREDENTIAL.fullmatch(authorization) is not None


def signer_of(authorization: str, *, method: str, path: str, query: str, now: float) -> bytes:
    """The public key, 32 bytes, whose owner makes this call. Raises BadSignature, in the same words for a public key that is
    known here as for one that is not. About 0.2 ms."""
    encoded, _, signature = authorization.partition(":")
    try:
        public_key = signing_keys.from_base64(encoded)
    except ValueError as error:
        raise BadSignature("This call is signed with something that is no ed25519 key.") from error
    moment = _QUERY.fullmatch(query)
    if moment is None:
        raise BadSignature("A signed call says when it was signed, and nothing else: ?ts=SECONDS, since 1970.")
    late_s = now - int(moment[1])
    if abs(late_s) > WINDOW_S:
        when = f"{late_s:.0f} s ago" if late_s > 0 else f"{-late_s:.0f} s ahead"
        raise BadSignature(
            f"By this gateway's clock the call was signed {when}, of which {WINDOW_S} are allowed. Set the clock."
        )
    try:
        signed = f"{method},{path}?{query}".encode(errors="surrogateescape")
        Ed25519PublicKey.from_public_bytes(public_key).verify(base64.b64decode(signature, validate=True), signed)
    except (InvalidSignature, ValueError) as error:
        raise BadSignature from error
    return public_key
