"""OpenAI's chat and embeddings as Gemini's: said in its words, and never so that its API would refuse them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.dialects.openai.embedding import parse_embedding
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField
from tests.fakes.provider_gemini import check_request

Json = dict[str, Any]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Json = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
CLOCK: Json = {"type": "function", "function": {"name": "clock"}}
OLDER, NEWER = "gemini-2.5-flash", "gemini-3-pro-preview"


def asked(*messages: Json, model: str = NEWER, **fields: Any) -> Asked:
    said = messages or ({"role": "user", "content": "Hello."},)
    return parse_chat(json.dumps({"model": model, "messages": said, **fields}).encode())


def told(*messages: Json, model: str = NEWER, **fields: Any) -> Any:
    speech = asked(*messages, model=model, **fields).speech(EngineKind.GEMINI)
    body = json.loads(speech.body(streamed=False, ask_usage=True))  # type: ignore[arg-type]
    check_request(body, model)
    return body


def refused(*messages: Json, **fields: Any) -> BadField:
    with pytest.raises(BadField) as raised:
        told(*messages, **fields)
    return raised.value


def call(name: str, id: str, arguments: str = "{}", **more: Any) -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def test_the_address_names_the_model_and_whether_to_stream_and_has_no_key() -> None:
    speech = asked(model="my model/x").speech(EngineKind.GEMINI)
    assert speech.path == "/v1beta/models/my%20model%2Fx:generateContent"
    assert speech.streamed_path == "/v1beta/models/my%20model%2Fx:streamGenerateContent?alt=sse"


def test_a_question_needs_nothing_else() -> None:
    assert told() == {"contents": [{"role": "user", "parts": [{"text": "Hello."}]}]}


def test_how_to_answer_is_said_in_geminis_words_and_what_only_openai_knows_is_left_out() -> None:
    sampling: Json = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "seed": 7,
        "presence_penalty": 1,
        "frequency_penalty": 0.5,
    }
    body = told(**sampling, n=2, max_tokens=9, stop="END", user="alice", store=True, stream_options={})
    assert body["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 5,
        "seed": 7,
        "presencePenalty": 1,
        "frequencyPenalty": 0.5,
        "maxOutputTokens": 9,
        "stopSequences": ["END"],
        "candidateCount": 2,
    }
    assert refused(n=9).param == "n"


def test_system_messages_are_an_instruction_and_turns_of_one_role_are_one() -> None:
    body = told(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "Three", "reasoning_content": "dropped"},
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "One"}, {"text": "two"}]},
        {"role": "model", "parts": [{"text": "Three"}]},
    ]
    assert told({"role": "system", "content": "Go."})["contents"] == [{"role": "user", "parts": [{"text": "Go."}]}]
    assert told({"role": "assistant", "content": "Once"})["contents"][0]["role"] == "user"
    assert refused({"role": "user", "content": ""}).param == "messages"


def test_calls_carry_their_signatures_and_results_are_told_by_name_in_a_turn_of_their_own() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "CtUBAVSoXO4="}}}
    history = (
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [call("weather", "c1", '{"city": "Rome"}', **signed), call("clock", "c2")]},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
        {"role": "user", "content": "And?"},
    )
    contents = told(*history, tools=[WEATHER, CLOCK])["contents"]
    assert contents[1]["parts"] == [
        {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "CtUBAVSoXO4="},
        {"functionCall": {"id": "c2", "name": "clock", "args": {}}},
    ]
    assert contents[2]["parts"] == [
        {"functionResponse": {"id": "c2", "name": "clock", "response": {"output": "noon"}}},
        {"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "sunny"}}},
    ]
    assert contents[3] == {"role": "user", "parts": [{"text": "And?"}]}
    assert refused({"role": "tool", "tool_call_id": "c9", "content": "x"}).param == "messages[0].tool_call_id"


def test_a_call_whose_signature_was_lost_is_marked_so_for_the_models_that_want_one() -> None:
    history = (
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "tool_calls": [call("clock", "c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    )
    assert told(*history, tools=[CLOCK])["contents"][1]["parts"][0]["thoughtSignature"].startswith("skip_")
    assert "thoughtSignature" not in told(*history, tools=[CLOCK], model=OLDER)["contents"][1]["parts"][0]


def test_pictures_are_told_by_their_bytes() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    (part,) = told({"role": "user", "content": [url]})["contents"][0]["parts"]
    assert part == {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def test_tools_and_which_of_them_may_be_called() -> None:
    body = told(tools=[WEATHER, CLOCK])
    declared = [{"name": "weather", "description": "The weather.", "parametersJsonSchema": CITY}, {"name": "clock"}]
    assert body["tools"] == [{"functionDeclarations": declared}]
    assert "toolConfig" not in body
    named = {"type": "function", "function": {"name": "clock"}}
    for choice, said in (
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (named, {"mode": "ANY", "allowedFunctionNames": ["clock"]}),
    ):
        assert told(tools=[CLOCK], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": said}
    assert "toolConfig" not in told(tool_choice="none")
    assert refused(tools=[CLOCK], parallel_tool_calls=False).param == "parallel_tool_calls"


def test_a_schema_goes_as_it_is_and_any_object_is_json_alone() -> None:
    config = told(response_format={"type": "json_schema", "json_schema": {"schema": CITY}})["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": CITY}
    assert told(response_format={"type": "json_object"})["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("effort", "budget", "level"),
    [
        ("none", 0, "low"),
        ("minimal", 1024, "low"),
        ("low", 1024, "low"),
        ("medium", 8192, "medium"),
        ("high", 24576, "high"),
    ],
)
def test_older_models_get_a_budget_and_newer_ones_a_level(effort: str, budget: int, level: str) -> None:
    shows = effort != "none"
    assert told(model=OLDER, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == {
        "includeThoughts": shows,
        "thinkingBudget": budget,
    }
    assert told(reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == {
        "includeThoughts": shows,
        "thinkingLevel": level,
    }


@pytest.mark.parametrize(("name", "value"), [("logprobs", True), ("logit_bias", {"1": 1}), ("audio", {"voice": "x"})])
def test_what_would_make_another_answer_and_cannot_be_said_is_refused_by_name(name: str, value: Any) -> None:
    assert refused(**{name: value}).param == name


def test_texts_to_embed_go_as_one_batch() -> None:
    speech = parse_embedding(b'{"model": "emb", "input": ["a", "b"], "dimensions": 4}').speech(EngineKind.GEMINI)
    assert speech.path == "/v1beta/models/emb:batchEmbedContents"
    assert json.loads(speech.body(streamed=False, ask_usage=False)) == {  # type: ignore[arg-type]
        "requests": [
            {"model": "models/emb", "content": {"parts": [{"text": text}]}, "outputDimensionality": 4} for text in "ab"
        ]
    }
    for wrong in ([1, 2], ["x"] * 101):
        body = json.dumps({"model": "emb", "input": wrong}).encode()
        with pytest.raises(BadField, match="Gemini takes"):
            parse_embedding(body).speech(EngineKind.GEMINI).body(streamed=False, ask_usage=False)


def test_what_has_no_words_there_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadField, match="Google's, whose API has nothing like /v1/completions"):
        parse_completion(b'{"model": "m", "prompt": "x"}').speech(EngineKind.GEMINI).body(
            streamed=False, ask_usage=False
        )


_texts = st.sampled_from(["", " ", "a"])


@st.composite
def _chats(draw: st.DrawFn) -> list[Json]:
    """Such as a client may have had: each call is answered directly."""
    messages: list[Json] = [{"role": draw(st.sampled_from(["user", "system", "assistant"])), "content": "x"}]
    for turn in range(draw(st.integers(0, 5))):
        role = draw(st.sampled_from(["user", "system", "assistant"]))
        message: Json = {"role": role, "content": draw(_texts)}
        messages.append(message)
        if role == "assistant" and (names := draw(st.lists(st.sampled_from(["weather", "clock"]), max_size=2))):
            message["tool_calls"] = [call(name, f"c{turn}-{n}") for n, name in enumerate(names)]
            messages += [
                {"role": "tool", "tool_call_id": c["id"], "content": draw(_texts)} for c in message["tool_calls"]
            ]
    return messages


@given(_chats(), st.sampled_from([None, "none", "high"]), st.sampled_from([OLDER, NEWER]))
def test_whatever_the_chat_gemini_would_take_it(messages: list[Json], effort: str | None, model: str) -> None:
    told(*messages, model=model, reasoning_effort=effort, tools=[WEATHER, CLOCK])
