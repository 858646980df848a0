"""What is taken out of texts, which words are kept of a request and an answer, and whose policy holds."""

from __future__ import annotations

import json
import time
import zlib

import pytest

from forebay.errors import BadInput
from forebay.wire.v1 import key_terms_pb2, recordings_pb2
from forebay_admin.keys.key_terms import AuditPolicy
from forebay_admin.recordings.policies import EVERYBODY, Policy, demand_permille, groups_within, of_group
from forebay_admin.recordings.redaction import Redactor, is_card_number
from forebay_admin.recordings.rows import parse_batch, unpack
from forebay_admin.recordings.wording import wording


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to ann.lee+x@mail.example.org, please", "write to [e-mail], please"),
        ("4111 1111 1111 1111", "[card number]"),
        ("pay with 5500-0000-0000-0004.", "pay with [card number]."),
        ("the order 4111111111111112", "the order 4111111111111112"),
        ("0000000000000000", "0000000000000000"),
        ("my key fb-0123456789ab-" + "x" * 43 + " is new", "my key [key] is new"),
        ("sk-proj_abcdefghijklmnop", "[key]"),
        ("a risk-free-investment-of-mine", "a risk-free-investment-of-mine"),
        ("version 1.2.3 @ home", "version 1.2.3 @ home"),
    ],
)
def test_what_nobody_may_read_is_taken_out(text: str, kept: str) -> None:
    redactor = Redactor()
    assert redactor(text) == kept
    assert redactor.taken_out == (text != kept)


def test_an_installation_has_redactions_of_its_own() -> None:
    redactor = Redactor([lambda text: text.replace("Project Nightfall", "[project]")])
    assert redactor("on Project Nightfall") == "on [project]"
    assert redactor.taken_out == 1
    assert is_card_number("4111111111111111")


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "1" * 200_000, "1 " * 100_000, "a@" * 100_000, "a.b@" * 50_000, "sk-" * 60_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    Redactor()(text)
    assert time.process_time() - began < 10


def test_json_is_kept_as_it_came_without_what_is_taken_out() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "I am ann@example.org\u0000, zebra"}],
        "n": 1,
        "x": None,
    }
    found = wording(json.dumps(body).encode(), Redactor())
    kept = json.loads(found.kept)
    assert kept["messages"][0]["content"] == "I am [e-mail], zebra"
    assert (kept["n"], kept["x"]) == (1, None)
    assert "zebra" in found.words
    assert "ann@" not in found.kept + found.words


STREAMS = (
    (
        'data: {"choices":[{"delta":{"content":"ann@exa"}}]}\n\n'
        'data: {"choices":[{"delta":{"content":"mple.org said zebra","reasoning_content":"hm"}}]}\n\ndata: [DONE]\n\n',
        {"text": "[e-mail] said zebra", "thoughts": "hm"},
    ),
    (
        'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"ze"}}\n\n'
        'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"bra"}}\n\n',
        {"text": "zebra"},
    ),
    (
        '{"message":{"role":"assistant","content":"ze"},"done":false}\n{"message":{"content":"bra"},"done":true}\n',
        {"text": "zebra"},
    ),
    (
        'data: {"type":"response.output_text.delta","delta":"ze"}\n\n'
        'data: {"type":"response.output_text.delta","delta":"bra"}\n\n'
        'data: {"type":"response.function_call_arguments.delta","delta":"{}"}\n\ndata: {"type":"respon',
        {"text": "zebra", "calls": "{}"},
    ),
    (
        'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"go","arguments":"(1)"}}]}}]}\n\n'
        'data: {"error":{"message":"zebra"}}\n\n',
        {"calls": "go(1)", "errors": [{"message": "zebra"}]},
    ),
)


@pytest.mark.parametrize(("body", "kept"), STREAMS)
def test_of_a_stream_is_kept_what_it_came_to(body: str, kept: dict[str, str]) -> None:
    found = wording(body.encode(), Redactor())
    assert json.loads(found.kept) == kept
    assert "zebra" in found.words


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"messages": [{"content": "ann@example.org is cut', '{"messages": [{"content": "[e-mail] is cut'),
        ("cut within a lett\u00e9".encode()[:-1], "cut within a lett"),
        (b"\xff\xfb\x90 sound of something", ""),
        (b"[" * 100_000, "[" * 100_000),
        (b"", ""),
    ],
)
def test_what_is_no_json_is_kept_as_text_or_not_at_all(body: bytes, kept: str) -> None:
    assert wording(body, Redactor()).kept == kept


def test_a_text_that_a_hook_fails_on_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    def broken(text: str) -> str:
        raise ValueError(text)

    told = recordings_pb2.Recording(
        ledger_id=bytes(16),
        request_id="r",
        started_at_us=1_800_000_000_000_000,
        request=zlib.compress(b"a secret"),
        policy=key_terms_pb2.AUDIT_POLICY_FULL,
    )
    parsed = parse_batch(recordings_pb2.RecordingBatch(recordings=[told]).SerializeToString(), [broken])
    (row,) = parsed.rows
    assert unpack(row.request) == "(not kept: a redaction failed)"
    assert "secret" not in row.words
    (logged,) = caplog.records
    assert vars(logged)["error"] == "ValueError"
    assert "secret" not in repr(vars(logged)), "what a hook says may hold the text"


def test_what_is_no_recording_is_refused_without_its_words() -> None:
    assert parse_batch(b"\xff\xff").refused == ("a message is no RecordingBatch",)
    bomb = zlib.compress(bytes(10 << 20))
    wrong = [
        recordings_pb2.Recording(ledger_id=b"x", request_id="short"),
        recordings_pb2.Recording(ledger_id=bytes(16), request_id="broken", request=b"not zlib"),
        recordings_pb2.Recording(ledger_id=bytes(16), request_id="bomb", answer=bomb),
        recordings_pb2.Recording(ledger_id=bytes(16), request_id="when", started_at_us=2**62),
    ]
    parsed = parse_batch(recordings_pb2.RecordingBatch(recordings=wrong).SerializeToString())
    assert (len(parsed.rows), len(parsed.refused)) == (0, 4)
    assert "bomb" in parsed.refused[2]


def test_the_innermost_group_that_says_something_is_obeyed() -> None:
    parents = {"org": None, "team": "org", "other": None}
    full, off = Policy(AuditPolicy.FULL), Policy(AuditPolicy.OFF)
    assert of_group("team", {}, parents) is None
    assert of_group("team", {"org": full}, parents) is full
    assert of_group("team", {"org": full, "team": off}, parents) is off
    assert of_group("other", {"org": full}, parents) is None
    assert of_group("other", {EVERYBODY: off, "org": full}, parents) is off
    assert groups_within("org", parents) == {"org", "team"}
    assert groups_within(EVERYBODY, parents) == set(parents)
    assert (demand_permille(0), demand_permille(7)) == (100, 7)
    with pytest.raises(BadInput):
        demand_permille(1001)
