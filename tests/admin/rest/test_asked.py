"""What was asked of an address, as its call's message."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, history_pb2, library_pb2
from forebay_admin.rest.asked import BadFields, assemble, read_json
from forebay_admin.rest.routes import ROUTES, Route


def route(verb: str, path: str) -> Route:
    return next(one for one in ROUTES if (one.verb, one.path) == (verb, path))


def test_path_query_and_what_the_address_says_come_together() -> None:
    asked = library_pb2.DescribeModelRequest()
    query = [("on.backends", "a"), ("on.backends", "b")]
    assemble(route("GET", "/models/{model}"), asked, {"model": "org/tiny"}, query, None)
    assert (asked.model, list(asked.on.backends)) == ("org/tiny", ["a", "b"])
    drained = admin_pb2.DrainBackendRequest()
    assemble(route("DELETE", "/backends/{name}/drain"), drained, {"name": "big"}, [("reason", "done")], b"")
    assert (drained.name, drained.undo, drained.reason) == ("big", True, "done")


def test_a_body_can_be_a_part_of_the_message() -> None:
    asked = admin_pb2.SetModelAliasRequest()
    assemble(route("PUT", "/model-aliases/{alias}"), asked, {"alias": "fast"}, [], b'{"model": "tiny"}')
    assert asked.alias == admin_pb2.ModelAlias(alias="fast", model="tiny")


def test_times_and_words_in_a_query_are_those_of_json() -> None:
    asked = history_pb2.ReadHistoryRequest()
    query = [("kind", "gpu"), ("from", "1970-01-01T00:00:01Z"), ("resolution_s", "60"), ("whole", "true")]
    assemble(route("GET", "/history"), asked, {}, query, None)
    assert asked == history_pb2.ReadHistoryRequest(
        kind=history_pb2.SERIES_KIND_GPU, from_us=1_000_000, resolution_s=60, whole=True
    )


@pytest.mark.parametrize(
    ("verb", "path", "places", "query", "body", "where"),
    [
        ("PATCH", "/users/{name}", {"name": "a"}, [], b'{"name": "b", "pausd": 1}', ["name", "pausd"]),
        ("POST", "/model-jobs", {}, [("force", "true")], b'{"actor": "eve"}', ["force", "actor"]),
        ("POST", "/fleet/diff", {}, [], b'{"dry_run": false}', ["dry_run"]),
        ("GET", "/usage", {}, [("limit", "x"), ("rows", "true"), ("limit", "2")], None, ["limit", "rows"]),
        ("GET", "/usage", {}, [("limit", "1"), ("limit", "2")], None, ["limit"]),
        ("GET", "/usage", {}, [("since", "yesterday")], None, ["since"]),
        ("GET", "/keys", {}, [("include_revoked", "1")], None, ["include_revoked"]),
        ("PATCH", "/users/{user}/quota", {"user": "a"}, [], b'{"subject": {"group": "b"}}', ["subject"]),
        ("DELETE", "/keys/{key_id}", {"key_id": "a\0"}, [], None, ["key_id"]),
        ("PUT", "/model-aliases/{alias}", {"alias": "a"}, [], b'{"alias": "b", "model": 1}', ["alias", "model"]),
    ],
)
def test_all_that_does_not_fit_is_told_at_once(
    verb: str, path: str, places: dict[str, str], query: Any, body: bytes | None, where: list[str]
) -> None:
    one = route(verb, path)
    method = admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods_by_name[one.call]
    asked = GetMessageClass(method.input_type)()
    with pytest.raises(BadFields) as caught:
        assemble(one, asked, places, query, body)
    assert sorted({problem.path for problem in caught.value.problems}) == sorted(where)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_what_is_no_json_is_said_to_be_none(body: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_json(body)


def test_a_get_has_no_body() -> None:
    with pytest.raises(BadInput, match="has no body"):
        assemble(route("GET", "/keys"), admin_pb2.ListKeysRequest(), {}, [], b"{}")
