"""What coding agents send: all the fields of a turn of Codex, its tools, and then the same history with what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, open_house

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)
GRAMMAR = 'start: "*** Begin Patch" LF hunk+ "*** End Patch" LF?'
APPLY_PATCH: Any = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files. Do not wrap the patch in JSON.",
    "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
}
EXEC: Any = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
}
HISTORY: list[Any] = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "The sandbox is read-only."}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where are we?"}]},
    {
        "type": "local_shell_call",
        "call_id": "c0",
        "status": "completed",
        "action": {"type": "exec", "command": ["pwd"]},
    },
    {"type": "function_call_output", "call_id": "c0", "output": "/work"},
    {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "work"}},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "In /work."}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Use the tool on a.txt."}]},
]


def turn(*items: Any) -> dict[str, Any]:
    """Of Codex's command line, field by field."""
    return {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [*HISTORY, *items],
        "tools": [APPLY_PATCH, EXEC, {"type": "web_search", "external_web_access": False}, {"type": "local_shell"}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "service_tier": "priority",
        "prompt_cache_key": "thread-1",
        "safety_identifier": "user-1",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "1"},
        "truncation": "auto",
    }


async def events(house: House, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with house.client.post(f"{house.url}/v1/responses", json=body, headers=house.headers) as answer:
        assert answer.status == 200, await answer.text()
        blocks = (await answer.text()).strip().split("\n\n")
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


async def test_two_turns_with_a_call_between_them(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        told = await events(house, turn())
        response = told[-1]["response"]
        assert told[-1]["type"] == "response.completed"
        assert [event["sequence_number"] for event in told] == list(range(len(told)))
        reasoning, call = response["output"]
        assert (call["type"], call["name"], bool(call["input"])) == ("custom_tool_call", "apply_patch", True)
        deltas = [event["delta"] for event in told if event["type"] == "response.custom_tool_call_input.delta"]
        assert "".join(deltas) == call["input"]
        assert {name: response[name] for name in ("prompt_cache_key", "safety_identifier", "service_tier")} == {
            "prompt_cache_key": "thread-1",
            "safety_identifier": "user-1",
            "service_tier": "default",
        }
        assert (response["text"]["verbosity"], response["reasoning"]["summary"]) == ("low", "auto")
        assert (response["parallel_tool_calls"], response["truncation"]) == (False, "auto")

        output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "Success. Updated a.txt"}
        told = await events(house, turn(reasoning, call, output))
        assert "The tool said: Success. Updated a.txt" in json.dumps(told[-1]["response"]["output"])

        first, second = (seen.body for seen in list(engine.record.requests)[-2:])
        assert [tool["function"]["name"] for tool in first["tools"]] == ["apply_patch", "exec_command"]
        assert GRAMMAR in first["tools"][0]["function"]["description"]
        roles = [message["role"] for message in second["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
        assert second["messages"][-2]["reasoning_content"] == reasoning["content"][0]["text"]
        arguments = second["messages"][-2]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(arguments) == {"input": call["input"]}


async def test_openais_sdk_puts_a_custom_call_together_and_goes_on_from_what_is_kept(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with (
        open_house(tmp_path, engine) as house,
        openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as sdk,
    ):
        asked: Any = {"model": MODEL, "input": "Use the tool.", "tools": [APPLY_PATCH]}
        async with sdk.responses.stream(**asked) as stream:
            final = await stream.get_final_response()
        (call,) = final.output
        assert call.type == "custom_tool_call"
        whole = await sdk.responses.create(**asked)
        assert whole.output[0].to_dict() | {"id": "", "call_id": ""} == call.to_dict() | {"id": "", "call_id": ""}
        output: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Done."}
        after = await sdk.responses.create(model=MODEL, previous_response_id=final.id, input=[output])
        assert after.output_text == "The tool said: Done."
        made = [message.get("tool_calls") for message in engine.record.requests[-1].body["messages"]]
        assert json.loads(made[1][0]["function"]["arguments"]) == {"input": call.input}
