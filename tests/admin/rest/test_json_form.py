"""Messages as JSON and back: nothing is lost, and what does not fit is told with its place."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.wire.v1 import admin_pb2, fleet_pb2, history_pb2, registry_pb2
from forebay_admin.json_form import WHOLE, is_map, is_time, plain, read, words_of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
KINDS = [
    method.input_type
    for method in admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods
    if method.input_type.fields
]


def values(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type)
    if field.enum_type is not None:
        return st.sampled_from(list(words_of(field.enum_type).values()))
    if is_time(field):
        return st.integers(1, 4_000_000_000_000).map(lambda ms: ms * 1000)
    if field.type in WHOLE:
        return st.integers(*WHOLE[field.type])
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return st.floats(allow_nan=False, allow_infinity=False)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=4)
    return TEXT


@st.composite
def messages(draw: st.DrawFn, kind: Any) -> Message:
    made: Message = GetMessageClass(kind)()
    for field in kind.fields:
        if draw(st.booleans()):
            continue
        if is_map(field):
            getattr(made, field.name).update(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
        elif field.is_repeated:
            getattr(made, field.name).extend(draw(st.lists(values(field), max_size=2)))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(draw(values(field)))
            getattr(made, field.name).SetInParent()
        else:
            setattr(made, field.name, draw(values(field)))
    return made


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    made = data.draw(messages(data.draw(st.sampled_from(KINDS))))
    again = type(made)()
    assert read(again, json.loads(json.dumps(plain(made)))) == []
    assert again == made


def test_what_is_unknown_is_null_and_no_number_stands_for_it() -> None:
    told = plain(registry_pb2.Backend(name="big", health_since_us=0))
    assert (told["checked_at"], told["health_since"], told["health"], told["kv_tokens"]) == (None, None, None, None)
    column = history_pb2.HistoryColumn(metric="load", means=[1.5, math.nan, math.inf])
    assert plain(column)["means"] == [1.5, None, None]


def test_a_time_that_no_calendar_holds_is_null() -> None:
    assert plain(registry_pb2.Node(heard_at_us=2**62))["heard_at"] is None


def test_times_carry_their_zone() -> None:
    into = admin_pb2.ShowUsageRequest()
    assert read(into, {"since": "1970-01-01T02:00:00.000001+02:00"}) == []
    assert into.since_us == 1


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"wanted": {"nodes": [{"name": "a"}, {"nam": "b"}]}}, "wanted.nodes.2.nam"),
        ({"wanted": {"backends": [{"slots": -1}]}}, "wanted.backends.1.slots"),
        ({"wanted": {"backends": [{"slots": True}]}}, "wanted.backends.1.slots"),
        ({"wanted": {"backends": [{"weight": "1"}]}}, "wanted.backends.1.weight"),
        ({"wanted": {"backends": [{"weight": 10**400}]}}, "wanted.backends.1.weight"),
        ({"wanted": {"backends": [{"labels": {"a": 1}}]}}, "wanted.backends.1.labels.a"),
        ({"wanted": {"backends": [None]}}, "wanted.backends.1"),
        ({"wanted": {"pools": {"name": "x"}}}, "wanted.pools"),
        ({"wanted": []}, "wanted"),
        ({"with_new_key": ["a", "\ud800"]}, "with_new_key.2"),
        ({"with_new_key": ["a\0"]}, "with_new_key.1"),
        ({"base_version": 2**64}, "base_version"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(values: Any, path: str) -> None:
    assert [problem.path for problem in read(fleet_pb2.ApplyFleetRequest(), values)] == [path]


def test_of_two_that_exclude_each_other_one_can_be_said() -> None:
    (problem,) = read(admin_pb2.QuotaSubject(), {"user": "alice", "group": "lab"})
    assert (problem.path, problem.why) == ("group", "This or user can be said, not both.")
    assert read(admin_pb2.QuotaSubject(), {"user": "alice", "group": None}) == []
