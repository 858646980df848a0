"""What may be kept for a client, and how much: the rules alone."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.errors import BadInput, NotPossible
from forebay.wire.v1 import content_pb2 as pb
from forebay_admin.content.content import ContentLimits, Held, Kind, demand_id, demand_room
from forebay_admin.content.content_wire import thing_from

T0 = 1_800_000_000_000_000
LIMITS = ContentLimits(things_per_user=3, bytes_per_user=100, blob_bytes=50)


@pytest.mark.parametrize(
    ("wrong", "saying"),
    [
        ({"kind": "thread"}, "'thread'"),
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"parent_id": "a\nb"}, "parent_id"),
        ({"user_id": ""}, "user_id"),
        ({"created_at_us": 0}, "created_at_us"),
        ({"created_at_us": 2**62}, "not a time"),
        ({"expires_at_us": T0}, "expires_at_us"),
    ],
)
def test_what_is_wrong_with_a_thing_is_said(wrong: dict[str, Any], saying: str) -> None:
    right: dict[str, Any] = {"kind": "response", "id": "resp_1", "user_id": "user_1", "created_at_us": T0}
    thing_from(pb.ContentItem(**right))
    with pytest.raises(BadInput, match=saying):
        thing_from(pb.ContentItem(**{**right, **wrong}))


def test_who_has_the_most_things_is_told_of_what_kind_most_are() -> None:
    held: dict[str, Held] = {Kind.RESPONSE: Held(2, 10), Kind.FILE: Held(1, 80)}
    demand_room(held, more_things=0, more_bytes=10, limits=LIMITS)
    with pytest.raises(NotPossible, match=r"3 things .* Most are responses \(2\)"):
        demand_room(held, more_things=1, more_bytes=0, limits=LIMITS)
    with pytest.raises(NotPossible, match=r"90 bytes .* needs 11 more.* Most are in files \(80 bytes\)"):
        demand_room(held, more_things=0, more_bytes=11, limits=LIMITS)


def test_what_gets_smaller_is_welcome_however_much_there_is() -> None:
    demand_room({Kind.FILE: Held(10, 1000)}, more_things=0, more_bytes=-1, limits=LIMITS)


@pytest.mark.parametrize("text", ["", "a b", "é", "a\x00", "x" * 201])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        demand_id("id", text)
