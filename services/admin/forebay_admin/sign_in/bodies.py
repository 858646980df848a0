"""What is sent to the pages: forms of browsers, JSON of programs, both small and of texts alone."""

from __future__ import annotations

from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from forebay.errors import BadInput

_MOST_BYTES = 16 * 1024


async def _read(request: web.Request) -> bytes:
    """Raises BadInput before more than a form can have was taken."""
    too_large = BadInput(f"A body here has at most {_MOST_BYTES} bytes.")
    if (request.content_length or 0) > _MOST_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise too_large
    return bytes(body)


async def read_form(request: web.Request, *names: str) -> dict[str, str]:
    """Raises BadInput when one of `names` is missing."""
    body = await _read(request)
    if body and request.content_type != "application/x-www-form-urlencoded":
        raise BadInput("This is for a form.")
    try:
        told = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise BadInput("The form cannot be read.") from error
    return _with(told, names)


async def read_json(request: web.Request, *names: str) -> dict[str, str]:
    """Raises BadInput."""
    body = await _read(request)
    if request.content_type != "application/json":
        raise BadInput("The body must be JSON: content-type: application/json.")
    try:
        told = orjson.loads(body)
    except ValueError as error:
        raise BadInput("The body must be JSON.") from error
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise BadInput("The body must be an object of texts.")
    return _with(told, names)


def _with(told: dict[str, str], names: tuple[str, ...]) -> dict[str, str]:
    for name in names:
        if name not in told:
            raise BadInput(f"{name} is missing.")
    if any("\0" in value for value in told.values()):
        raise BadInput("A text here has no NUL in it.")  # which no database keeps
    return told
