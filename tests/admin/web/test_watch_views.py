"""What pages about what happened show, decided from what the calls tell; without any service."""

from __future__ import annotations

import json

import pytest

from forebay.wire.v1 import audit_pb2, notifications_pb2, recordings_pb2, security_pb2
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.watch import audit_view, events_view, recordings_view, security_view

NOW = 1_800_000_000.0


def _form(**fields: str) -> Form:
    return Form(tuple(fields.items()))


def _differences(before: object, after: object) -> tuple[list[tuple[str, str | None, str | None]], int]:
    found, others = audit_view.differences(
        json.dumps(before) if before is not None else "", json.dumps(after) if after is not None else ""
    )
    return [(one.name, one.before, one.after) for one in found], others


def test_only_what_changed_stands_in_a_difference() -> None:
    before = {"name": "a", "models": ["x"], "gone": True}
    after = {"name": "a", "models": ["x", "y"], "new": None}
    assert _differences(before, after) == (
        [("models", '["x"]', '["x", "y"]'), ("gone", "true", None)],
        2,
    )


def test_what_says_nothing_is_no_change() -> None:
    before: dict[str, object] = {"limit": None, "text": "", "list": [], "flag": False}
    assert _differences(before, {"limit": 4, "text": None, "list": ["a"], "flag": True}) == (
        [("limit", None, "4"), ("list", None, '["a"]'), ("flag", "false", "true")],
        1,
    )


def test_of_what_was_made_all_is_new_and_of_what_was_removed_all_is_gone() -> None:
    assert _differences(None, {"name": "a"}) == ([("name", None, "a")], 0)
    assert _differences({"name": "a"}, None) == ([("name", "a", None)], 0)
    assert _differences(None, None) == ([], 0)


def test_what_is_no_object_is_shown_as_it_is() -> None:
    found, others = audit_view.differences("not json", '{"a": 1}')
    assert [(one.name, one.before, one.after) for one in found] == [("", "not json", '{"a": 1}')]
    assert others == 0


def test_a_search_of_the_log_is_read_from_the_address() -> None:
    asked = audit_view.asked_for(
        _form(**{"from": "2030-01-31T12:00", "actor": " ann ", "through": "web", "page": "77"})
    )
    assert (asked.from_us, asked.actor, asked.interface, asked.page) == (1_896_091_200_000_000, "ann", "web", "77")


@pytest.mark.parametrize(
    ("fields", "at"), [({"from": "soon"}, "from"), ({"to": "x"}, "to"), ({"through": "y"}, "through")]
)
def test_what_is_wrong_in_a_search_of_the_log_is_told_at_its_field(fields: dict[str, str], at: str) -> None:
    with pytest.raises(WrongField) as told:
        audit_view.asked_for(_form(**fields))
    assert told.value.name == at


def test_a_fault_in_the_chain_says_where_it_is() -> None:
    told = audit_pb2.VerifyAuditResponse(
        checked=7, links=9, done=True, fault=audit_pb2.AuditFault(damage="unknown_form", seq=1234, why="it is.")
    )
    assert audit_view.verdict(told).fault == "Unknown form, link 1,234: it is."
    assert audit_view.verdict(audit_pb2.VerifyAuditResponse(checked=7, links=9)).fault == ""


def test_an_entry_about_a_request_leads_to_what_became_of_it() -> None:
    told = audit_pb2.ListAuditResponse(
        entries=[
            audit_pb2.AuditEntry(action="recording.read", subject="a/b c"),
            audit_pb2.AuditEntry(action="recording.search", subject="a/b c"),
            audit_pb2.AuditEntry(action="key.revoke", subject="0123"),
        ]
    )
    rows = audit_view.audit_view(told, {}).rows
    assert [row.explained_path for row in rows] == ["/console/explain/a%2Fb%20c", "", ""]


def test_a_recording_leads_to_what_became_of_its_request() -> None:
    row = recordings_view.recording_row(recordings_pb2.RecordedRequest(id="0a" * 16, request_id="mine"))
    assert row.explained_path == f"/console/explain/{'0a' * 16}"


def test_a_ban_is_over_once_its_time_is_or_it_was_taken_back() -> None:
    us = int(NOW * 1e6)
    bans = security_pb2.ListBansResponse(
        bans=[
            security_pb2.AddressBan(network="a"),
            security_pb2.AddressBan(network="b", until_us=us + 1_000_000),
            security_pb2.AddressBan(network="c", until_us=us),
            security_pb2.AddressBan(network="d", lifted_at_us=us),
        ]
    )
    assert [row.is_over for row in security_view.ban_rows(bans, NOW)] == [False, False, True, True]
    assert security_view.ban_rows(bans, NOW)[0].by == "Forebay"


def test_an_act_of_an_admin_names_no_key_of_a_caller() -> None:
    events = [
        security_pb2.SecurityEvent(kind="key_refused", key_id="k1", address="192.0.2.1"),
        security_pb2.SecurityEvent(kind="admin_act", key_id="fbses-1", user="ann"),
        security_pb2.SecurityEvent(kind="of_the_future", user="forebay up"),
    ]
    rows = security_view.security_view(security_pb2.ListSecurityEventsResponse(events=events), {}).rows
    assert [row.key_path for row in rows] == ["/console/keys/k1", "", ""]
    assert rows[0].address_path == "/console/security?address=192.0.2.1"
    assert [row.user_path for row in rows] == ["", "/console/users/ann", ""]
    assert rows[2].tone == ""


def test_deliveries_are_counted_by_state() -> None:
    told = notifications_pb2.EventTold(
        event=notifications_pb2.Event(id="e", body='{"b": 1}'),
        deliveries=[notifications_pb2.Delivery(state=state) for state in ("dead", "delivered", "dead")],
    )
    row = events_view.event_row(told)
    assert list(row.tallies) == [("delivered", 1), ("dead", 2)]
    assert row.has_dead
    assert row.body == '{\n  "b": 1\n}'


def test_older_events_come_after_a_full_page() -> None:
    told = [notifications_pb2.EventTold(event=notifications_pb2.Event(number=100 - number)) for number in range(50)]
    full = events_view.events_view(notifications_pb2.ListEventsResponse(events=told), {"kind": "quota.*"})
    assert full.next_href == "/console/events?kind=quota.%2A&before=51"
    part = events_view.events_view(notifications_pb2.ListEventsResponse(events=told[:9]), {"before": "9"})
    assert (part.next_href, part.first_href) == ("", "/console/events")


def test_a_recording_names_both_models_where_another_answered() -> None:
    one = recordings_pb2.RecordedRequest(id="a/b", model="tiny", model_requested="default")
    row = recordings_view.recording_row(one)
    assert row.model == "tiny (asked for default)"
    assert row.path == "/console/recordings/a%2Fb"


def test_a_policy_of_samples_needs_to_say_how_many() -> None:
    with pytest.raises(WrongField) as told:
        recordings_view.policy_of(_form(policy="sampled"))
    assert told.value.name == "permille"
    assert recordings_view.policy_of(_form(policy="none", group="g")).policy == 0
