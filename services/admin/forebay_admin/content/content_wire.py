"""The messages of `forebay.wire.v1.Content` as admin's own types, and back: what is wrong with one is said here."""

from __future__ import annotations

from forebay.errors import BadInput
from forebay.wire.v1 import content_pb2
from forebay_admin.content.content import Page, Place, Thing, demand_body, demand_id, kind_named
from forebay_admin.wire_forms import moment, moment_us

MOST_ON_A_PAGE = 100
MOST_IN_A_CHAIN = 10_000
_USUALLY_ON_A_PAGE = 20

Named = (
    content_pb2.GetContentRequest
    | content_pb2.GetChainRequest
    | content_pb2.DeleteContentRequest
    | content_pb2.DownloadRequest
)


def place_from(named: Named) -> Place:
    """Raises BadInput."""
    return Place(demand_id("user_id", named.user_id), kind_named(named.kind), demand_id("id", named.id))


def thing_from(item: content_pb2.ContentItem) -> Thing:
    """Without its blob. Raises BadInput."""
    if item.created_at_us <= 0:
        raise BadInput("created_at_us is missing.")
    created_at = moment(item.created_at_us)
    expires_at = moment(item.expires_at_us) if item.HasField("expires_at_us") else None
    if expires_at is not None and expires_at <= created_at:
        raise BadInput("expires_at_us must be after created_at_us.")
    return Thing(
        kind=kind_named(item.kind),
        id=demand_id("id", item.id),
        user_id=demand_id("user_id", item.user_id),
        parent_id=demand_id("parent_id", item.parent_id) if item.parent_id else None,
        created_at=created_at,
        expires_at=expires_at,
        body=demand_body(item.body),
    )


def page_from(request: content_pb2.ListContentRequest) -> Page:
    """Raises BadInput."""
    if request.limit > MOST_ON_A_PAGE:
        raise BadInput(f"limit may be {MOST_ON_A_PAGE} at most.")
    return Page(
        user_id=demand_id("user_id", request.user_id),
        kind=kind_named(request.kind),
        parent_id=demand_id("parent_id", request.parent_id) if request.parent_id else None,
        after=demand_id("after", request.after) if request.after else None,
        limit=request.limit or _USUALLY_ON_A_PAGE,
        is_descending=request.descending,
    )


def most_from(request: content_pb2.GetChainRequest) -> int:
    """Raises BadInput."""
    if not 1 <= request.most <= MOST_IN_A_CHAIN:
        raise BadInput(f"most must be from 1 to {MOST_IN_A_CHAIN}.")
    return request.most


def thing_to_wire(thing: Thing) -> content_pb2.ContentItem:
    return content_pb2.ContentItem(
        kind=thing.kind.value,
        id=thing.id,
        user_id=thing.user_id,
        parent_id=thing.parent_id or "",
        created_at_us=moment_us(thing.created_at),
        expires_at_us=moment_us(thing.expires_at) if thing.expires_at is not None else None,
        body=thing.body,
        blob_bytes=thing.blob.size_bytes if thing.blob is not None else 0,
    )
