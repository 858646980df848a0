"""The table of addresses: every call of the operators has one, and each says only what its messages have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from forebay.wire.v1 import admin_pb2
from forebay_admin.json_form import is_map, name_of
from forebay_admin.rest.asked import bodied, placed, queried
from forebay_admin.rest.routes import HAS_MORE, ROUTES, Flow, Route

CALLS = admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods_by_name
WITHOUT: Mapping[str, str] = {}
"""Calls that have no address, and why."""

each = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.verb} {route.path}")


def test_every_call_has_an_address_or_a_reason_why_it_has_none() -> None:
    assert {route.call for route in ROUTES} | set(WITHOUT) == set(CALLS)


def test_no_address_stands_twice() -> None:
    shapes = [(route.verb, re.sub(r"{\w+}", "{}", route.path)) for route in ROUTES]
    assert len(shapes) == len(set(shapes))


@each
def test_an_address_fits_its_messages(route: Route) -> None:
    asked, told = (GetMessageClass(kind)() for kind in (CALLS[route.call].input_type, CALLS[route.call].output_type))
    for name, place in placed(route).items():
        message: Any = asked.DESCRIPTOR
        *outer, last = place.split(".")
        for one in outer:
            message = message.fields_by_name[one].message_type
        assert message.fields_by_name[last].type == message.fields_by_name[last].TYPE_STRING, name
    for name in route.fixed:
        assert asked.DESCRIPTOR.fields_by_name[name].type == asked.DESCRIPTOR.fields_by_name[name].TYPE_BOOL
    if route.pages is not None:
        things: Any = told.DESCRIPTOR.fields_by_name[route.pages.list].message_type
        assert all(place.split(".")[0] in things.fields_by_name for place in route.pages.by)
        assert set(route.pages.said) <= set(asked.DESCRIPTOR.fields_by_name)
        assert not route.pages.from_call or HAS_MORE in told.DESCRIPTOR.fields_by_name
    if route.refused_by:
        assert told.DESCRIPTOR.fields_by_name[route.refused_by].is_repeated
    assert CALLS[route.call].server_streaming == (route.flow is not Flow.ONE)


@each
def test_everything_that_a_call_takes_can_be_said(route: Route) -> None:
    message = CALLS[route.call].input_type
    said = {place.split(".")[0] for place in (*placed(route).values(), *route.fixed, "actor")}
    said |= set(route.pages.said) if route.pages is not None else set()
    if route.has_body:
        _, fields = bodied(route, message)
        assert {name_of(f) for f in message.fields if f.name not in said} <= {*fields, route.body}
    else:
        asked = queried(route, message)
        tops = {name.split(".")[0] for name in asked}
        assert {name_of(f) for f in message.fields if f.name not in said} <= tops
        assert not any(field.message_type or is_map(field) for field in asked.values())
