"""A file of a conversation, as it is given back: a picture to be shown, or a text to be saved. Whatever is in it, no browser
takes it for a page of ours."""

from __future__ import annotations

from aiohttp import web

from forebay_admin.chat.conversation import PICTURES, Attachment

_DAY = "private, max-age=86400, immutable"
_NOTHING = "default-src 'none'; sandbox; frame-ancestors 'none'"


def file_answer(found: Attachment, body: bytes) -> web.Response:
    is_picture = found.kind in PICTURES
    headers = {
        "content-disposition": "inline" if is_picture else "attachment",
        "content-security-policy": _NOTHING,
        "x-content-type-options": "nosniff",
        # Its address is its content; whether somebody may still see it is asked again the next day.
        "cache-control": _DAY,
    }
    charset = None if is_picture else "utf-8"
    return web.Response(body=body, content_type=found.kind, charset=charset, headers=headers)
