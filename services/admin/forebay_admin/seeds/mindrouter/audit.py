"""Their audit log is of requests: rows of our ledger, and what was said where policy has it kept. Each has the ledger's id,
as a UUID, for a number."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import recordings_pb2, usage_pb2, usage_queries_pb2
from forebay_admin.seeds.asking import Asking, parsed_json
from forebay_admin.seeds.mindrouter.shapes import STATUSES, iso, number, page_of, request_status, the_user, us_of
from forebay_admin.seeds.route import SeedRoute

MOST_ROWS = 50_000
"""Of the ledger, that are looked through at once."""
_PAGE, _MOST_FOUND = 5000, 500
_DAY_US = 86_400 * 1_000_000
_WORDS = {"finished": "completed", "cancelled": "cancelled"}


async def search(asking: Asking) -> Any:
    """Of the last day, unless dates are said."""
    skip, limit = page_of(asking)
    query = asking.query
    user_id, model, status = query.which("user_id"), query.text("model"), query.text("status")
    since, until, text = query.moment("start_date"), query.moment("end_date"), query.text("search_text")
    if status:
        query.word("status", STATUSES, status)
    query.done()
    user = (await the_user(asking, user_id)).name if user_id else ""
    from_us, to_us = us_of(since) if since else 0, us_of(until) if until else 0
    told: list[dict[str, Any]]
    if text:
        users = {user.name: user.id for user in (await asking.call("ListUsers")).users}
        recordings = await _recordings(asking, text, user, model, from_us, to_us)
        found = [one for one in recordings if status in ("", _WORDS.get(one.outcome, "failed"))]
        told = [_of_recording(one, users) for one in found[skip : skip + limit]]
        return {"total": len(found), "skip": skip, "limit": limit, "results": told}
    rows = [
        row
        for row in reversed(await _rows(asking, user, from_us, to_us))
        if model in ("", row.model, row.model_requested) and status in ("", request_status(row.outcome))
    ]
    told = [_of_row(row) for row in rows[skip : skip + limit]]
    return {"total": len(rows), "skip": skip, "limit": limit, "results": told}


async def show(asking: Asking) -> Any:
    row = await _row(asking, asking.path["request_id"])
    try:
        recording = await asking.call("ShowRecording", id=row.ledger_id.hex())
    except NotFound:
        recording = recordings_pb2.ShowRecordingResponse()
    asked, usage = parsed_json(recording.request), row.usage
    asked = asked if isinstance(asked, dict) else {}
    done_us = row.started_at_us + row.duration_ms * 1000
    return {
        "request": {
            "id": _uuid(row),
            "request_uuid": _uuid(row),
            "user_id": number("user", row.user_id),
            "api_key_id": number("key", row.key_id),
            "endpoint": row.route,
            "model": row.model or row.model_requested,
            "modality": "embedding" if "embed" in row.route else "chat",
            "is_streaming": row.stream,
            "messages": asked.get("messages"),
            "prompt": asked.get("prompt"),
            "parameters": {k: v for k, v in asked.items() if k not in ("messages", "prompt", "response_format")}
            or None,
            "response_format": asked.get("response_format"),
            "status": request_status(row.outcome),
            "backend_id": number("backend", row.backend_id),
            "queued_at": iso(row.started_at_us),
            "started_at": iso(row.started_at_us + row.queue_ms * 1000),
            "completed_at": iso(done_us),
            "queue_delay_ms": row.queue_ms,
            "processing_time_ms": max(0, row.duration_ms - row.queue_ms),
            "total_time_ms": row.duration_ms,
            "prompt_tokens": usage.prompt_tokens if row.HasField("usage") else None,
            "completion_tokens": usage.completion_tokens if row.HasField("usage") else None,
            "error_message": row.reason or None,
            "client_ip": recording.recording.address or None,
        },
        "response": _response(recording),
    }


def _response(recording: recordings_pb2.ShowRecordingResponse) -> dict[str, Any] | None:
    if not recording.answer:
        return None
    told = parsed_json(recording.answer)
    choices = told.get("choices") if isinstance(told, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    return {
        "content": message.get("content") if isinstance(message, dict) else recording.answer,
        "finish_reason": choice.get("finish_reason"),
        "chunk_count": 0,
        "structured_output_valid": None,
        "validation_errors": None,
    }


async def _row(asking: Asking, asked: str) -> usage_pb2.UsageRecord:
    """Raises NotFound."""
    try:
        ledger_id = UUID(asked)
    except ValueError as error:
        raise NotFound("Request not found") from error
    at_us = (ledger_id.int >> 80) * 1000
    if not ledger_id.int or at_us > round(asking.now * 1_000_000) + _DAY_US:
        raise NotFound("Request not found")
    # The page that begins after the id before it begins with it.
    page = UUID(int=ledger_id.int - 1).hex
    request = usage_queries_pb2.ReadLedgerRequest(
        from_us=max(1, at_us - _DAY_US), to_us=at_us + _DAY_US, limit=1, page=page
    )
    rows = (await asking.make("ReadLedger", request)).rows
    if not rows or rows[0].ledger_id != ledger_id.bytes:
        raise NotFound("Request not found")
    found: usage_pb2.UsageRecord = rows[0]
    return found


async def _rows(asking: Asking, user: str, from_us: int, to_us: int) -> list[usage_pb2.UsageRecord]:
    """Raises BadInput where there are too many."""
    rows: list[usage_pb2.UsageRecord] = []
    request = usage_queries_pb2.ReadLedgerRequest(from_us=from_us, to_us=to_us, user=user, limit=_PAGE)
    while True:
        answer = await asking.make("ReadLedger", request)
        rows += answer.rows
        if len(rows) > MOST_ROWS:
            raise BadInput(f"There are more than {MOST_ROWS} requests in that time: narrow start_date and end_date.")
        if not answer.next_page:
            return rows
        request.from_us, request.to_us, request.page = answer.from_us, answer.to_us, answer.next_page


async def _recordings(
    asking: Asking, text: str, user: str, model: str, from_us: int, to_us: int
) -> list[recordings_pb2.RecordedRequest]:
    request = recordings_pb2.SearchRecordingsRequest(
        text=text, user=user, model=model, from_us=from_us, to_us=to_us, limit=_MOST_FOUND
    )
    return list((await asking.make("SearchRecordings", request)).recordings)


def _of_row(row: usage_pb2.UsageRecord) -> dict[str, Any]:
    return {
        "id": _uuid(row),
        "request_uuid": _uuid(row),
        "user_id": number("user", row.user_id),
        "endpoint": row.route,
        "model": row.model or row.model_requested,
        "status": request_status(row.outcome),
        "is_streaming": row.stream,
        "prompt_tokens": row.usage.prompt_tokens if row.HasField("usage") else None,
        "completion_tokens": row.usage.completion_tokens if row.HasField("usage") else None,
        "total_time_ms": row.duration_ms,
        "created_at": iso(row.started_at_us),
        "backend_id": number("backend", row.backend_id),
    }


def _of_recording(one: recordings_pb2.RecordedRequest, users: dict[str, str]) -> dict[str, Any]:
    """`users`: name → id."""
    return {
        "id": str(UUID(hex=one.id)),
        "request_uuid": str(UUID(hex=one.id)),
        "user_id": number("user", users.get(one.user_name, "")),
        "endpoint": one.route,
        "model": one.model or one.model_requested,
        "status": _WORDS.get(one.outcome, "failed"),
        "is_streaming": one.stream,
        "prompt_tokens": None,
        "completion_tokens": None,
        "total_time_ms": one.duration_ms,
        "created_at": iso(one.started_at_us),
        "backend_id": None,
    }


def _uuid(row: usage_pb2.UsageRecord) -> str:
    return str(UUID(bytes=row.ledger_id))


ROUTES = (
    SeedRoute("GET", "/audit/search", search, ("ReadLedger", "SearchRecordings", "ListUsers")),
    SeedRoute("GET", "/audit/{request_id}", show, ("ReadLedger", "ShowRecording")),
)
