"""Whatever JSON a client puts together from the words of its dialect: an answer or a clear refusal, never a failure."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.wire.v1 import types_pb2
from tests.compatibility.accepting_engine import AcceptingEngine, demand_rest, open_accepting_house
from tests.compatibility.addresses import (
    DELETE,
    KEEPS,
    TAKES_JSON,
    Address,
    Told,
    demand_no_leak,
    demand_refusal,
    demand_rows,
    told_for,
)
from tests.gateway.house import MODEL, House

T = TypeVar("T")

_WORDS = (
    *("documents", "input", "max_tokens", "messages", "prompt", "query", "text_1", "text_2", "voice"),
    *("content", "dimensions", "encoding_format", "format", "function", "functions", "image", "images", "include"),
    *("input_schema", "instructions", "json_schema", "keep_alive", "logprobs", "max_completion_tokens", "metadata"),
    *("max_output_tokens", "n", "name", "num_ctx", "num_predict", "options", "parameters", "previous_response_id"),
    *("raw", "reasoning", "response_format", "role", "schema", "seed", "source", "stop", "stop_sequences", "store"),
    *("stream", "stream_options", "suffix", "system", "temperature", "text", "think", "thinking", "tool_calls"),
    *("completion_window", "destination", "endpoint", "files", "from", "input_file_id", "items", "purpose", "insecure"),
    *("tool_choice", "tool_use_id", "tools", "top_k", "top_logprobs", "top_n", "type", "url", "user"),
)
_MEANINGFUL = (
    *("assistant", "auto", "base64", "custom", "document", "float", "function", "function_call", "image", "image_url"),
    *("function_call_output", "input_text", "json", "json_object", "json_schema", "message", "none", "output_text"),
    *("reasoning", "required", "system", "text", "thinking", "tool", "tool_result", "tool_use", "user"),
)

_names = st.sampled_from(_WORDS)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_MEANINGFUL),
    st.sampled_from((0, 1, -1, 2, 128, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e300, -0.0)),
    st.sampled_from(("", MODEL, "5m", "data:image/png;base64,AAAA", "iVBORw0KGgo", "\0", "\u2028", "💧", "x" * 3000)),
    st.text(max_size=8).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)),
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_names, inner, max_size=5)),
    max_leaves=12,
)
_extras = st.dictionaries(_names, _values, max_size=4)


class Standing:
    """A house on a loop of its own, while examples come and go on the test's thread."""

    def __init__(self, directory: Path, kind: types_pb2.EngineKind.ValueType) -> None:
        self._directory, self._kind = directory, kind
        self._stands: Future[tuple[House, AcceptingEngine]] = Future()
        self._may_end = asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._stand(),), daemon=True)

    def __enter__(self) -> Standing:
        self._thread.start()
        self.house, self.engine = self._stands.result(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._may_end.set)
        self._thread.join(20)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _stand(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with open_accepting_house(self._directory, self._kind) as stands:
                self._stands.set_result(stands)
                await self._may_end.wait()
        except BaseException as error:
            if not self._stands.done():
                self._stands.set_exception(error)
            raise


@pytest.fixture(params=[types_pb2.ENGINE_KIND_VLLM, types_pb2.ENGINE_KIND_LLAMACPP, types_pb2.ENGINE_KIND_OLLAMA])
def standing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Standing]:
    with Standing(tmp_path, request.param) as standing:
        yield standing


def test_whatever_a_client_says_it_gets_an_answer_or_a_clear_refusal(standing: Standing) -> None:
    seen: list[tuple[Address, Told]] = []
    house = standing.house

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(TAKES_JSON), _extras)
    def ask(address: Address, extras: dict[str, Any]) -> None:
        told = standing.do(told_for(house, address, address.body(**extras)))
        seen.append((address, told))
        assert told.status < 500, f"{address} {json.dumps(extras)}: {told}"
        if told.status >= 400:
            demand_refusal(told, address, house)
        elif told.headers["content-type"].startswith("text/event-stream"):
            demand_no_leak(told, house)
            assert b'"error"' not in told.body.replace(b'"error":null', b""), f"{address} {json.dumps(extras)}: {told}"

    ask()
    assert any(told.status == 200 for _, told in seen)
    standing.do(demand_rest(house, standing.engine))
    standing.do(demand_rows(house, [told for address, told in seen if address.has_row]))


def test_what_keeps_and_manages_answers_or_refuses_whatever_it_is_told(standing: Standing) -> None:
    seen: list[Told] = []
    house = standing.house

    def ask(address: Address, body: bytes) -> None:
        told = standing.do(told_for(house, address, body, method="DELETE" if address is DELETE else "POST"))
        seen.append(told)
        assert told.status < 500, f"{address} {body!r}: {told}"
        if told.status >= 400:
            demand_refusal(told, address, house)
        else:
            demand_no_leak(told, house)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(KEEPS), _extras, st.booleans())
    def ask_anything(address: Address, extras: dict[str, Any], is_whole: bool) -> None:
        ask(address, address.body(**extras) if is_whole else json.dumps(extras).encode())

    for address in KEEPS:
        ask(address, address.body())
    assert any(told.status == 200 for told in seen)
    ask_anything()
    standing.do(demand_rest(house, standing.engine))
