"""API keys, made for users by admins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, usage_queries_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter.shapes import all_keys, iso, named, number, page_of, since_us, the_user, us_of
from forebay_admin.seeds.numbers import find
from forebay_admin.seeds.route import SeedRoute, instead

Usage = Mapping[str, usage_queries_pb2.UsageSums]
"""By key."""

_MOST_LINES = 10_000


def key_status(key: admin_pb2.Key, now: float) -> str:
    if key.state == admin_pb2.KEY_STATE_REVOKED:
        return "revoked"
    if key.HasField("expires_at_us") and key.expires_at_us <= now * 1_000_000:
        return "expired"
    return "blocked" if key.state == admin_pb2.KEY_STATE_BLOCKED else "active"


def key_shape(key: admin_pb2.Key, usage: Usage, now: float) -> dict[str, Any]:
    return {
        "id": number("key", key.id),
        "key_prefix": f"fb-{key.id}",
        "name": key.name,
        "status": key_status(key, now),
        "last_used_at": iso(named(key, "last_used_at_us") or 0),
        "usage_count": usage[key.id].requests if key.id in usage else 0,
        "created_at": iso(key.created_at_us),
    }


async def usage_of(asking: Asking, *, from_us: int, user: str = "") -> Usage:
    """Of the keys that were used the most."""
    asked: dict[str, Any] = {"from_us": from_us, "user": user, "limit": _MOST_LINES}
    answer = await asking.call("QueryUsage", by=[usage_queries_pb2.USAGE_COLUMN_KEY], **asked)
    return {line.key_id: line.sums for line in answer.lines}


async def list_keys(asking: Asking) -> Any:
    skip, limit = page_of(asking)
    search, status = asking.query.text("search"), asking.query.text("status")
    asking.query.done()
    keys = [key for key in await all_keys(asking, text=search) if status in ("", key_status(key, asking.now))]
    shown = keys[skip : skip + limit]
    oldest_us = since_us(asking.now, min((key.created_at_us for key in shown), default=0))
    usage = await usage_of(asking, from_us=oldest_us) if shown else {}
    told = [
        {**key_shape(key, usage, asking.now), "user_id": number("user", key.user_id), "username": key.user_name}
        for key in shown
    ]
    return {"total": len(keys), "skip": skip, "limit": limit, "api_keys": told}


async def create(asking: Asking) -> Any:
    user, body = await the_user(asking), asking.body()
    name, expires_at = body.text("name", needed=True, longest=100), body.moment("expires_at")
    body.done()
    request = admin_pb2.CreateKeyRequest(user=user.name, name=name)
    if expires_at is not None:
        left_s = us_of(expires_at) / 1_000_000 - asking.now
        if left_s < 1:
            raise BadInput("expires_at is over already.")
        request.expires_in_s = round(timedelta(seconds=left_s).total_seconds())
    made = await asking.make("CreateKey", request)
    return {
        "id": number("key", made.key.id),
        "key_prefix": f"fb-{made.key.id}",
        "full_key": made.secret,
        "name": made.key.name,
    }


async def revoke(asking: Asking) -> Any:
    keys = await all_keys(asking)
    key = find("key", keys, asking.path["key_id"], lambda one: one.id, lambda one: f"fb-{one.id}")
    was_revoked = key.state == admin_pb2.KEY_STATE_REVOKED
    if not was_revoked:
        await asking.make("RevokeKey", admin_pb2.RevokeKeyRequest(key_id=key.id))
    return {"status": "revoked", "api_key_id": number("key", key.id), "already_revoked": was_revoked}


ROUTES = (
    SeedRoute("GET", "/api-keys", list_keys, ("ListKeys", "QueryUsage")),
    SeedRoute("POST", "/users/{user_id}/api-keys", create, ("CreateKey", "ListUsers")),
    SeedRoute("POST", "/api-keys/{key_id}/revoke", revoke, ("RevokeKey", "ListKeys")),
    SeedRoute(
        "DELETE",
        "/api-keys/{key_id}",
        instead("Keys are not deleted, since the ledger names them: POST /api/admin/api-keys/{id}/revoke."),
        ("RevokeKey",),
    ),
)
