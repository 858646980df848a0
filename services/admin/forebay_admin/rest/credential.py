"""What signs a request to the REST API: a key, a narrow token or a session as a bearer, or a browser's cookie. Pure.

Browsers send a cookie along with whatever another site's page asks for, so what changes something needs the token of a page
of ours beside it."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.errors import NotAllowed, NotAuthenticated
from forebay_admin.sign_in.bearers import SESSION_COOKIE, BearerKind, is_csrf_token, parse_bearer, signs_calls

CSRF_HEADER = "x-forebay-csrf"
_HARMLESS = ("GET", "HEAD")


class NotFromOurPage(NotAllowed):
    """What a browser's cookie signs needs x-forebay-csrf, with the token of GET /sign-in/me."""


def signed_with(verb: str, headers: Mapping[str, str], cookies: Mapping[str, str], pepper: bytes) -> str:
    """Raises NotAuthenticated, NotFromOurPage. Tokens of services open nothing here."""
    kind, _, credential = headers.get("authorization", "").partition(" ")
    told = credential.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
    if told.startswith("fb-") or signs_calls(told):
        return told
    held = parse_bearer(cookies.get(SESSION_COOKIE, ""))
    if told or held is None or held.kind is not BearerKind.SESSION:
        raise NotAuthenticated("This needs a Forebay key, a token or a session: authorization: Bearer fb-…")
    if verb not in _HARMLESS and not is_csrf_token(pepper, held, headers.get(CSRF_HEADER, "")):
        raise NotFromOurPage
    return str(held)
