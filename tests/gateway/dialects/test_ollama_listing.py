"""Lists of models and versions, made of what several engines say."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import httpx
import ollama
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.dialects.ollama.listing import as_capabilities, least_version, running, shown, tags
from forebay_gateway.fleet import OfferedModel

SINCE = 1_767_225_600.0
"""The first moment of 2026."""


def offered(*names: str) -> list[OfferedModel]:
    return [OfferedModel(name, 4096) for name in names]


def page(*entries: Any) -> dict[str, Any]:
    return {"models": list(entries)}


def on_disk(name: str, modified_at: Any = "2026-02-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    return {"name": name, "model": name, "modified_at": modified_at, "size": 7, "digest": "d", **more}


def in_memory(name: str, expires_at: Any, size_vram: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "model": name, "expires_at": expires_at, "size_vram": size_vram, **more}


def names_of(told: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in told["models"]]


# --- tags -------------------------------------------------------------------------------------------------------------


def test_models_of_all_engines_are_one_list_with_the_newest_first() -> None:
    told = tags(
        offered("a:1", "b:1", "vllm"),
        [
            page(on_disk("a:1", "2026-03-01T00:00:00.123456789+02:00", new=1), on_disk("secret:1")),
            page(on_disk("b:1", "2026-04-01T00:00:00Z")),
        ],
        {"vllm": ["chat", "multimodal"]},
        SINCE,
    )
    assert names_of(told) == ["b:1", "a:1", "vllm"]
    assert told["models"][1]["new"] == 1


def test_of_the_same_model_on_two_engines_the_newest_is_told_of() -> None:
    pages = [
        page(on_disk("a", "2026-03-01T01:00:00+02:00", digest="old")),
        page(on_disk("a", "2026-03-01T00:00:00Z", digest="new")),
    ]
    for order in (pages, pages[::-1]):
        (entry,) = tags(offered("a"), order, {}, SINCE)["models"]
        assert entry["digest"] == "new"


def test_a_model_of_another_engine_looks_like_one_of_ollamas() -> None:
    assert tags(offered("vllm"), [], {"vllm": ["vision"]}, SINCE)["models"] == [
        {
            "name": "vllm",
            "model": "vllm",
            "modified_at": "2026-01-01T00:00:00.000000Z",
            "size": 0,
            "digest": sha256(b"vllm").hexdigest(),
            "details": {
                "parent_model": "",
                "format": "",
                "family": "",
                "families": [],
                "parameter_size": "",
                "quantization_level": "",
            },
            "capabilities": ["completion", "vision"],
        }
    ]


def test_no_models_are_an_empty_list() -> None:
    assert tags([], [page(on_disk("a"))], {}, SINCE) == {"models": []}
    assert running([], []) == {"models": []}


def test_a_time_that_is_none_is_the_gateways() -> None:
    for nonsense in (None, 1, "soon", "0001-01-01T00:00:00Z"):
        (entry,) = tags(offered("a"), [page(on_disk("a", nonsense))], {}, SINCE)["models"]
        assert entry["modified_at"] == "2026-01-01T00:00:00.000000Z"


# --- ps ---------------------------------------------------------------------------------------------------------------


def test_a_model_loaded_twice_is_told_of_once_with_its_last_end_and_most_memory() -> None:
    told = running(
        offered("a", "b"),
        [
            page(in_memory("a", "2026-01-01T00:05:00Z", 10), in_memory("b", "2026-01-01T00:06:00Z", 1)),
            page(in_memory("a", "2026-01-01T00:07:00Z", 5), in_memory("secret", "2026-01-01T00:09:00Z", 1)),
        ],
    )
    assert told["models"] == [
        in_memory("a", "2026-01-01T00:07:00Z", 10),
        in_memory("b", "2026-01-01T00:06:00Z", 1),
    ]


# --- show and version -------------------------------------------------------------------------------------------------


def test_a_model_of_another_engine_is_shown() -> None:
    told = shown(OfferedModel("vllm", 8192), ["chat", "function_calling"])
    assert told["model_info"] == {"general.architecture": "unknown", "unknown.context_length": 8192}
    assert told["capabilities"] == ["completion", "tools"]
    assert told["modelfile"].startswith("# ")
    assert shown(OfferedModel("vllm", None), [])["model_info"] == {"general.architecture": "unknown"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["completion"]),
        (["Multimodal", "chat", "audio", "unheard"], ["completion", "vision", "audio"]),
        (["embeddings"], ["embedding"]),
        (["embedding", "completion", "reasoning"], ["completion", "embedding", "thinking"]),
    ],
)
def test_capabilities_have_ollamas_words(words: list[str], told: list[str]) -> None:
    assert as_capabilities(words) == told


@pytest.mark.parametrize(
    ("told", "least"),
    [
        ([], "0.12.0"),
        (["0.9.1", "0.33.0", "0.10.0"], "0.9.1"),
        (["0.13.0", "0.13.0-rc2"], "0.13.0-rc2"),
        ([{"version": "0.14.1"}, {"version": 3}, None, "x", {}, "9" * 5000 + ".1"], "0.14.1"),
    ],
)
def test_the_lowest_version_is_told(told: list[Any], least: str) -> None:
    assert least_version(told) == least


# --- whatever engines say ---------------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["a", "b", "2026-01-01"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["name", "model", "modified_at", "expires_at", "size_vram"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
_PAGE = _VALUES | st.fixed_dictionaries({"models": st.lists(_VALUES, max_size=3) | _VALUES})


@given(told=st.lists(_PAGE, max_size=3))
def test_nonsense_is_passed_over(told: list[Any]) -> None:
    models = offered("a", "b")
    assert sorted(names_of(tags(models, told, {}, SINCE))) == ["a", "b"]
    assert set(names_of(running(models, told))) <= {"a", "b"}
    assert least_version(told)


# --- the official client ----------------------------------------------------------------------------------------------


def test_the_official_client_reads_the_lists() -> None:
    models = offered("a", "vllm")
    answers = {
        "/api/tags": tags(models, [page(on_disk("a"))], {}, SINCE),
        "/api/ps": running(models, [page(in_memory("a", "2026-01-01T00:05:00Z", 10))]),
        "/api/show": shown(models[1], ["tools"]),
    }
    client = ollama.Client(
        host="http://gateway",
        transport=httpx.MockTransport(lambda r: httpx.Response(200, content=orjson.dumps(answers[r.url.path]))),
    )
    assert [model.model for model in client.list().models] == ["a", "vllm"]
    assert [model.model for model in client.ps().models] == ["a"]
    told = client.show("vllm")
    assert told.capabilities == ["completion", "tools"]
    assert told.modelinfo == {"general.architecture": "unknown", "unknown.context_length": 4096}
