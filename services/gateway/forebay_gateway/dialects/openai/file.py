"""OpenAI's files: what a form says that brings one, and how one is told. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.upload import File, Upload
from forebay_gateway.refused import BadField

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""That a client may name; what batches write has others."""
LONGEST_NAME = 512

_SHORTEST_S, _LONGEST_S = 3600, 2_592_000
_BATCH_S = 30 * 86400
"""As long as OpenAI keeps a batch's input when nobody says."""
_NOT_PLAIN = re.compile(r"[^\w .()+,=@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileWish:
    file: File
    purpose: str
    keep_s: int | None
    """How long it is kept; None: until somebody deletes it."""


def parse_file(upload: Upload) -> FileWish:
    """Raises BadField."""
    files = [file for file in upload.files if file.field == "file"]
    if not files:
        raise BadField(
            "`file` is missing: send the file as a part of the form that has a file name.",
            param="file",
            code="missing_required_parameter",
        )
    if len(upload.files) > 1:
        raise _bad("file", f"The form has {len(upload.files)} files; one can be kept at once.")
    if not 0 < len(files[0].filename) <= LONGEST_NAME:
        raise _bad("file", f"The file's name must have from 1 to {LONGEST_NAME} characters.")
    purpose = _purpose_in(upload)
    keep_s = _keep_s_in(upload)
    return FileWish(files[0], purpose, _BATCH_S if keep_s is None and purpose == "batch" else keep_s)


def tell_file(id: str, body: Json, *, size_bytes: int, created_at: int, expires_at: int | None) -> Json:
    """`body`: what is kept of it beside its bytes. Moments are in seconds since the epoch."""
    return {
        "id": id,
        "object": "file",
        "bytes": size_bytes,
        "created_at": created_at,
        "expires_at": expires_at,
        "filename": body["filename"],
        "purpose": body["purpose"],
        "status": "processed",
        "status_details": None,
    }


def as_attachment(filename: str) -> str:
    """A `content-disposition` in which a name can end nothing, once plainly and once in full (RFC 6266)."""
    plain = _NOT_PLAIN.sub("_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def _purpose_in(upload: Upload) -> str:
    purpose = upload.text("purpose")
    if not purpose:
        raise BadField(
            f"`purpose` is missing: it can be {_either()}.", param="purpose", code="missing_required_parameter"
        )
    if purpose not in PURPOSES:
        raise _bad("purpose", f"`purpose` is {purpose[:40]!r}; it can be {_either()}.")
    return purpose


def _keep_s_in(upload: Upload) -> int | None:
    """SDKs send a field for each part, others an object as JSON."""
    anchor, seconds = upload.text("expires_after[anchor]"), upload.text("expires_after[seconds]")
    whole = upload.text("expires_after")
    if whole is not None:
        told = _object_in(whole)
        anchor, seconds = told.get("anchor"), str(told.get("seconds", ""))
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise _bad("expires_after.anchor", "`expires_after.anchor` must be created_at.")
    if not (seconds and re.fullmatch(r"[0-9]{1,9}", seconds) and _SHORTEST_S <= int(seconds) <= _LONGEST_S):
        raise _bad(
            "expires_after.seconds",
            f"`expires_after.seconds` must be a whole number from {_SHORTEST_S} to {_LONGEST_S}.",
        )
    return int(seconds)


def _object_in(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise _bad("expires_after", "`expires_after` must be an object with `anchor` and `seconds`.")
    return told


def _either() -> str:
    return f"{', '.join(PURPOSES[:-1])} or {PURPOSES[-1]}"


def _bad(param: str, message: str) -> BadField:
    return BadField(message, param=param, code="invalid_value")
