"""A multipart form, told as JSON would tell it, so that it can be recorded and read like any other body."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

FORM_TYPE = "multipart/form-data"


class BadForm(Exception):
    """It says it is a form, and cannot be read as one."""


async def read_form(request: web.Request) -> dict[str, Any]:
    """Texts as they are, files as `{"filename", "content_type", "bytes"}` with their size; a list where a name comes more
    than once. Raises BadForm."""
    try:
        form = await request.post()
    except (ValueError, HttpProcessingError) as error:
        raise BadForm(str(error)) from error
    told: dict[str, Any] = {}
    for name in dict.fromkeys(form):
        values = [_told(value) for value in form.getall(name)]
        told[name] = values[0] if len(values) == 1 else values
    return told


def _told(value: str | bytes | bytearray | web.FileField) -> Any:
    if isinstance(value, web.FileField):
        size = value.file.seek(0, os.SEEK_END)
        return {"filename": value.filename, "content_type": value.content_type, "bytes": size}
    return value if isinstance(value, str) else value.decode(errors="replace")
