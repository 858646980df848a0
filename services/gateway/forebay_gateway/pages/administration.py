"""The administration routes of other gateways, passed on to admin: their scripts know one address. What signs a request is
passed on with it and judged there; nothing of it is looked at here."""

from __future__ import annotations

from urllib.parse import quote

import aiohttp
import orjson
from aiohttp import web

from forebay.errors import ForebayError, Unavailable
from forebay_gateway.body import read_body
from forebay_gateway.callers.call import Call
from forebay_gateway.dialects.shape import LONGEST_RETRY_S, shape_of
from forebay_gateway.serving import Means

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MOST_BODY_BYTES = 128 << 10
"""Twice as much as admin takes, which has words of its own for what is too much."""

_TREES = ("/api/admin", "/api/cluster", "/v1.0", "/admin/backends", "/admin/queue", "/admin/audit")
_ASKED = ("accept", "content-type", "x-api-key", "authorization")
"""Of what a client says. A cookie is a browser's word for the pages of admin, and none for this address."""
_NOT_TOLD = (
    *("connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer", "transfer-encoding"),
    *("upgrade", "server", "date", "set-cookie"),
)
_UNSAFE = "/:@!$&'()*+,;=-._~"
_PIECE = 64 << 10
_WORDS = {403: "AuthorizationFailed", 413: "TooLarge", 429: "SlowDown", 503: "ServiceUnavailable"}


def is_administration(path: str) -> bool:
    """`path`: decoded. One that climbs is none: what stands in front of admin might follow it elsewhere."""
    if not {".", ".."}.isdisjoint(path.split("/")):
        return False
    return path == "/status" or any(path == tree or path.startswith(f"{tree}/") for tree in _TREES)


class AdministrationPages:
    def __init__(self, means: Means) -> None:
        self._means = means

    async def pass_on(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """Raises BadInput, Refused, Unavailable."""
        held = self._means.bodies.hold()
        try:
            settings = self._means.settings
            body = await read_body(request, held, most_bytes=MOST_BODY_BYTES, idle_s=settings.body_idle_s)
            asked = self._means.admin_http.asked(
                call.method, _target(request, call), _headers(request, call), body, call.address
            )
            async with asked as answer:
                return await _tell(request, call, answer)
        finally:
            held.release()


async def _tell(request: web.BaseRequest, call: Call, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Piece by piece, as fast as the client takes it."""
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_TOLD}
    response = web.StreamResponse(status=answer.status, headers={**headers, "x-request-id": call.request_id})
    try:
        first = await answer.content.read(_PIECE)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable("Admin's answer broke off.", retry_after_s=2.0) from error
    await response.prepare(request)
    piece = first
    try:
        while piece and call.method != "HEAD":
            await response.write(piece)
            piece = await answer.content.read(_PIECE)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ConnectionError("admin's answer broke off") from error  # what was sent cannot be taken back
    await response.write_eof()
    return response


def _headers(request: web.BaseRequest, call: Call) -> dict[str, str]:
    said = {name: request.headers[name] for name in _ASKED if name in request.headers}
    if call.key is not None and "authorization" not in said:
        said["authorization"] = f"Bearer {call.key}"  # from wherever it stood
    return said


def _target(request: web.BaseRequest, call: Call) -> str:
    """As it was sent, but for what stood in front of it."""
    path = request.rel_url.raw_path if request.path == call.path else quote(call.path, safe=_UNSAFE)
    return f"{path}?{call.query}" if call.query else path


def refusal(call: Call, error: ForebayError) -> web.Response:
    """In the shape of whose address it is."""
    status = shape_of(error).status
    told: dict[str, object] = {"detail": error.message}
    if call.path.startswith("/v1.0"):
        told = {
            "Error": _WORDS.get(status, "BadRequest"),
            "Message": error.message,
            "StatusCode": status,
            "Context": None,
            "Description": error.message,
        }
    headers = {
        "x-request-id": call.request_id,
        "content-type": "application/json",
        "x-forebay-reason": str(error.reason),
    }
    if status in (429, 503):
        headers["retry-after"] = str(max(1, round(min(LONGEST_RETRY_S, error.retry_after_s or 2.0))))
    return web.Response(status=status, body=orjson.dumps(told), headers=headers)
