"""What users ask for more of, and what is decided about it."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import key_terms_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter.shapes import iso, number
from forebay_admin.seeds.numbers import find
from forebay_admin.seeds.refusals import NoCounterpart
from forebay_admin.seeds.route import SeedRoute


def shape(request: key_terms_pb2.QuotaRequest, users: dict[str, str]) -> dict[str, Any]:
    """`users`: name → id."""
    what = next((field.name for field, _ in request.wish.ListFields()), "")
    return {
        "id": number("request", request.id),
        "user_id": number("user", users.get(request.user_name, "")),
        "requester_name": request.user_name,
        "requester_email": request.user_name if "@" in request.user_name else None,
        "affiliation": None,
        "request_type": what,
        "justification": request.reason,
        "requested_tokens": request.wish.budget.amount if what == "budget" else None,
        "status": "pending",
        "created_at": iso(request.created_at_us),
    }


async def list_requests(asking: Asking) -> Any:
    users = {user.name: user.id for user in (await asking.call("ListUsers")).users}
    return {"requests": [shape(one, users) for one in (await asking.call("ListQuotaRequests")).requests]}


async def review(asking: Asking) -> Any:
    body = asking.body()
    is_approved, notes = bool(body.flag("approved", needed=True)), body.text("notes")
    granted = body.whole("granted_tokens")
    body.done()
    requests = (await asking.call("ListQuotaRequests")).requests
    request = find("request", requests, asking.path["request_id"], lambda one: one.id, lambda one: one.id)
    if granted is not None and is_approved and granted != request.wish.budget.amount:
        raise NoCounterpart("What was asked for is approved or denied as it is: deny it, and set what is to be.")
    answer = notes or ("" if is_approved else "Denied.")  # whoever asked reads it
    decision = key_terms_pb2.DecideQuotaRequestRequest(id=request.id, approve=is_approved, answer=answer)
    await asking.make("DecideQuotaRequest", decision)
    return {"status": "reviewed", "approved": is_approved}


ROUTES = (
    SeedRoute("GET", "/quota-requests", list_requests, ("ListQuotaRequests", "ListUsers")),
    SeedRoute("POST", "/quota-requests/{request_id}/review", review, ("DecideQuotaRequest", "ListQuotaRequests")),
)
