"""Tools that are no functions: those that take one text come to engines as functions and go back as themselves; what the
others did is told where it has words, and never refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.dialects.responses.input_text import InputText, as_arguments, input_in
from forebay_gateway.dialects.responses.keeping import kept_items, tellable
from tests.gateway.dialects.test_responses_answer import call, chunk, events, final, whole
from tests.gateway.dialects.test_responses_request import (
    IMAGE,
    WEATHER,
    complaint,
    echo,
    fields,
    messages,
    output_of,
    tool_call,
)

Json = dict[str, Any]
PATCH: Json = {
    "type": "custom",
    "name": "patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "a"+'},
}
TAKES_A_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


# --- tools that take one text ---------------------------------------------------------------------------------------


def test_an_engine_is_told_of_a_custom_tool_as_of_a_function_with_one_text() -> None:
    plain = {"type": "custom", "name": "note", "format": {"type": "text"}}
    told = fields(tools=[PATCH, plain, WEATHER])["tools"]
    description = 'Edits files.\n\n`input` must follow this Lark grammar:\nstart: "a"+'
    assert [tool["function"]["name"] for tool in told] == ["patch", "note", "weather"]
    assert told[0]["function"] == {"name": "patch", "description": description, "parameters": TAKES_A_TEXT}
    assert told[1]["function"] == {"name": "note", "description": "", "parameters": TAKES_A_TEXT}
    assert echo(tools=[PATCH, {"type": "web_search"}])["tools"] == [PATCH]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "custom", "name": "patch"}, {"type": "function", "function": {"name": "patch"}}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "patch"}]}, "auto"),
        ("required", "required"),
    ],
)
def test_a_custom_tool_can_be_chosen(choice: Any, expected: Any) -> None:
    assert fields(tools=[PATCH], tool_choice=choice)["tool_choice"] == expected


@pytest.mark.parametrize("kind", ["web_search", "file_search", "code_interpreter", "mcp", "image_generation"])
def test_a_tool_of_a_vendors_server_cannot_be_demanded(kind: str) -> None:
    assert complaint(tools=[PATCH, {"type": kind}], tool_choice={"type": kind}).param == "tool_choice.type"


def test_a_call_of_a_custom_tool_and_its_output_are_those_of_a_function() -> None:
    told = messages(
        {"role": "user", "content": "Fix it."},
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": 'say "hi"\n', "status": "completed"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "Done."}]},
    )
    assert told[1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [tool_call("c1", "patch", '{"input":"say \\"hi\\"\\n"}')],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Done."},
    ]


CALLED = (
    chunk(tool_calls=[call(0, "", id="c1", name="patch")]),
    chunk(tool_calls=[call(0, '{"in')]),
    chunk(tool_calls=[call(0, 'put": "a\\')]),
    chunk(tool_calls=[call(0, 'nb"')]),
    chunk(tool_calls=[call(0, "}")]),
    chunk(finish="tool_calls"),
)
CALL = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "call_id": "c1",
    "name": "patch",
    "input": "a\nb",
    "status": "completed",
}


def test_its_input_is_told_piece_by_piece() -> None:
    begun = {**CALL, "input": "", "status": "in_progress"}
    assert events(*CALLED, tools=[PATCH])[2:-1] == [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.custom_tool_call_input.delta", "item_id": "ctc_1", "output_index": 0, "delta": "a"},
        {"type": "response.custom_tool_call_input.delta", "item_id": "ctc_1", "output_index": 0, "delta": "\nb"},
        {"type": "response.custom_tool_call_input.done", "item_id": "ctc_1", "output_index": 0, "input": "a\nb"},
        {"type": "response.output_item.done", "output_index": 0, "item": CALL},
    ]
    assert final(*CALLED, tools=[PATCH])["output"] == whole(*CALLED, tools=[PATCH])["output"] == [CALL]


def test_a_custom_tool_whose_name_comes_late_is_told_as_one() -> None:
    late = (
        chunk(tool_calls=[call(0, '{"input": "a', id="c1")]),
        chunk(tool_calls=[call(0, '\\nb"}', name="patch")]),
        chunk(finish="tool_calls"),
    )
    assert final(*late, tools=[PATCH])["output"] == [CALL]


@given(st.text(), st.lists(st.integers(0, 40), max_size=4), st.booleans())
def test_an_input_is_the_same_however_it_is_cut(text: str, cuts: list[int], is_ascii: bool) -> None:
    if is_ascii:
        text = text.encode("ascii", "backslashreplace").decode()
    arguments = as_arguments(text)
    places = sorted({min(cut, len(arguments)) for cut in cuts} | {0, len(arguments)})
    reading = InputText()
    told = [reading.feed(arguments[start:end]) for start, end in pairwise(places)]
    assert "".join(told) == text
    assert reading.is_whole
    assert reading.rest() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "\\ud83d\\ude00"}', "😀"),
        ('{"input": "one\ntwo"}', "one\ntwo"),
        ('{"input": "\\d+ \\\\n"}', "\\d+ \\n"),
        ('{"other": 1, "input": "a"}', "a"),
        ('{"patch": "a"}', '{"patch": "a"}'),
        ('"a"', "a"),
        ("*** Begin Patch", "*** Begin Patch"),
        ('{"input": "a', "a"),
        ('{"input": "a\\u00', "a"),
        ('{"input": "\\ud83d alone, and more"}', '\\ud83d alone, and more"}'),
        ("", ""),
    ],
)
def test_a_model_that_does_not_keep_to_the_form_is_understood_as_far_as_can_be(arguments: str, text: str) -> None:
    assert input_in(arguments) == text


def test_what_is_kept_of_them_goes_on() -> None:
    cut = {**CALL, "status": "incomplete"}
    assert tellable([CALL, cut]) == [CALL]
    (kept,) = kept_items([{"type": "local_shell_call_output", "id": "c9", "output": "x"}])
    assert messages(kept)[0]["tool_call_id"] == "c9"


# --- what others did ------------------------------------------------------------------------------------------------


def told(*items: Json) -> list[Json]:
    """Without the question that they come after."""
    return messages({"role": "user", "content": "Go on."}, *items)[1:]


@pytest.mark.parametrize(
    ("called", "output", "name", "arguments", "text"),
    [
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            {"type": "local_shell_call_output", "output": "a.txt"},
            "local_shell",
            {"type": "exec", "command": ["ls"], "env": {}},
            "a.txt",
        ),
        (
            {"type": "shell_call", "action": {"commands": ["ls", "false"]}},
            {
                "type": "shell_call_output",
                "output": [
                    {"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
                    {"stdout": "", "stderr": "oh", "outcome": {"type": "timeout"}},
                ],
            },
            "shell",
            {"commands": ["ls", "false"]},
            "a.txt\nexit code 0\noh\ntimeout",
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": "+x"}},
            {"type": "apply_patch_call_output", "status": "completed"},
            "apply_patch",
            {"type": "create_file", "path": "a", "diff": "+x"},
            "completed",
        ),
        (
            {"type": "tool_search_call", "execution": "client", "arguments": {"goal": "mail"}},
            {"type": "tool_search_output", "execution": "client", "tools": [{"type": "function", "name": "send"}]},
            "tool_search",
            {"goal": "mail"},
            '[{"type":"function","name":"send"}]',
        ),
    ],
)
def test_a_call_that_the_client_runs_is_told_with_its_output(
    called: Json, output: Json, name: str, arguments: Json, text: str
) -> None:
    turn, result = told({**called, "call_id": "c1"}, {**output, "call_id": "c1"})
    (made,) = turn["tool_calls"]
    assert (made["id"], made["function"]["name"], orjson.loads(made["function"]["arguments"])) == (
        "c1",
        name,
        arguments,
    )
    assert result == {"role": "tool", "tool_call_id": "c1", "content": text}


def test_a_screenshot_is_shown_after_the_call_that_made_it() -> None:
    turn, result, shown = told(
        {"type": "computer_call", "call_id": "c1", "action": {"type": "screenshot"}, "pending_safety_checks": []},
        {
            "type": "computer_call_output",
            "call_id": "c1",
            "output": {"type": "computer_screenshot", "image_url": IMAGE},
        },
    )
    assert turn["tool_calls"] == [tool_call("c1", "computer", '{"type":"screenshot"}')]
    assert (result["content"], shown["content"][1]["image_url"]["url"]) == ("", IMAGE)


@pytest.mark.parametrize(
    ("item", "name", "arguments", "text"),
    [
        (
            {"type": "mcp_call", "name": "roll", "arguments": '{"dice":2}', "server_label": "d", "output": "7"},
            "roll",
            '{"dice":2}',
            "7",
        ),
        (
            {"type": "mcp_call", "name": "roll", "arguments": "{}", "error": {"type": "x"}, "output": None},
            "roll",
            "{}",
            '{"type":"x"}',
        ),
        (
            {"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
            "code_interpreter",
            '{"code":"1+1"}',
            "2",
        ),
        (
            {"type": "file_search_call", "queries": ["q"], "results": [{"filename": "a.txt", "text": "found"}]},
            "file_search",
            '{"queries":["q"]}',
            "a.txt\nfound",
        ),
    ],
)
def test_what_a_vendors_server_did_is_told_where_it_has_words(item: Json, name: str, arguments: str, text: str) -> None:
    assert told({"id": "x1", **item}) == [
        {"role": "assistant", "content": None, "tool_calls": [tool_call("x1", name, arguments)]},
        {"role": "tool", "tool_call_id": "x1", "content": text},
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": None},
        {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "c", "outputs": None},
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "aGk="},
        {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "d", "tools": []},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "roll", "arguments": "{}", "server_label": "d"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "xyz"},
        {"type": "ghost_snapshot", "ghost_commit": {}},
    ],
)
def test_what_has_no_words_for_a_model_is_left_out(item: Json) -> None:
    assert told(item, {"role": "assistant", "content": "So it is."}) == [{"role": "assistant", "content": "So it is."}]


def test_what_was_done_between_a_call_and_its_output_stays_in_one_turn() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    ran = {"type": "mcp_call", "id": "m1", "name": "roll", "arguments": "{}", "output": "7"}
    turn, *results = told(call, ran, output_of("c1", "sunny"))
    assert [made["id"] for made in turn["tool_calls"]] == ["c1", "m1"]
    assert [result["tool_call_id"] for result in results] == ["m1", "c1"]
