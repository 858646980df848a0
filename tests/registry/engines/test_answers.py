"""What engines answer, as they really write it, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_registry.backend import EngineKind, Load, Model
from forebay_registry.engines import answers
from forebay_registry.engines.answers import BadAnswer

LLAMACPP = {
    "models": [{"name": "gemma", "model": "gemma", "capabilities": ["completion"]}],
    "object": "list",
    "data": [
        {
            "id": "gemma",
            "object": "model",
            "owned_by": "llamacpp",
            "meta": {"n_ctx": 2048, "n_ctx_train": 32768, "n_params": 268098176},
        }
    ],
}
VLLM = {"object": "list", "data": [{"id": "llama", "owned_by": "vllm", "root": "/m", "max_model_len": 4096}]}
OPENROUTER = {"data": [{"id": "a/b", "context_length": 200000}, {"id": "c/d"}]}

VLLM_METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 2.0
vllm:num_requests_running{engine="1",model_name="a} b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a} b"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
"""


def body(page: Any) -> bytes:
    return json.dumps(page).encode()


def test_llamacpp_tells_the_context_of_one_slot_not_what_the_model_was_trained_with() -> None:
    listed = answers.read_models(body(LLAMACPP))
    assert listed.kind is EngineKind.LLAMACPP
    assert listed.models == (Model("gemma", 2048, ("completion",)),)


def test_each_alias_of_a_model_is_a_name_for_it() -> None:
    entry = {**LLAMACPP["data"][0], "aliases": ["gemma", "demo"]}  # type: ignore[dict-item]
    listed = answers.read_models(body({**LLAMACPP, "data": [entry]}))
    assert listed.models == (Model("demo", 2048, ("completion",)), Model("gemma", 2048, ("completion",)))


def test_vllm_and_others_tell_their_context_in_their_own_field_or_not_at_all() -> None:
    assert answers.read_models(body(VLLM)) == answers.ModelList((Model("llama", 4096),), EngineKind.VLLM)
    assert answers.read_models(body(OPENROUTER)).models == (Model("a/b", 200000), Model("c/d", None))


def test_a_model_listed_once_per_replica_is_one_model() -> None:
    page = {"data": [{"id": "m"}, {"id": "m"}]}
    assert len(answers.read_models(body(page)).models) == 1


def test_ollama_tells_what_is_on_disk_and_what_is_loaded_with_which_context() -> None:
    tags = {"models": [{"name": "a:latest", "size": 1}, {"name": "b:7b", "size": 2}]}
    resident = {"models": [{"name": "b:7b", "context_length": 8192}]}
    models = answers.with_loaded(answers.read_ollama_tags(body(tags)), body(resident))
    assert models == (Model("a:latest", loaded=False), Model("b:7b", 8192, loaded=True))


def test_gauges_of_replicas_are_summed_and_the_fullest_cache_counts() -> None:
    assert answers.read_gauges(VLLM_METRICS, EngineKind.VLLM, 7.0) == Load(3, 5, 0.5, 7.0)
    assert answers.kind_of_gauges(VLLM_METRICS) is EngineKind.VLLM


def test_a_gauge_that_is_missing_is_unknown_not_zero() -> None:
    text = "llamacpp:requests_processing 1\n"
    assert answers.read_gauges(text, EngineKind.LLAMACPP, 7.0) == Load(1, None, None, 7.0)
    assert answers.read_gauges("other_total 3\n", EngineKind.LLAMACPP, 7.0) is None
    assert answers.read_gauges("vllm:num_requests_running NaN\n", EngineKind.VLLM, 7.0) is None


def test_the_older_name_of_vllms_cache_gauge_is_understood() -> None:
    text = 'vllm:gpu_cache_usage_perc{model_name="m"} 0.75\n'
    assert answers.read_gauges(text, EngineKind.VLLM, 7.0) == Load(None, None, 0.75, 7.0)


def test_llamacpps_slots_say_how_many_run_and_its_props_how_many_there_are() -> None:
    slots = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]
    assert answers.read_slots(body(slots), 7.0) == Load(1, None, None, 7.0)
    props = answers.read_props(
        body({"total_slots": 2, "endpoint_metrics": False, "chat_template": "x", "modalities": {"vision": True}})
    )
    assert (props.total_slots, props.has_slots_page, props.has_metrics_page) == (2, True, False)
    assert props.capabilities == ("chat", "vision")


def test_names_that_no_database_or_terminal_should_see_are_left_out() -> None:
    page = {"data": [{"id": "ok"}, {"id": "nul\x00"}, {"id": "esc\x1b[31m"}, {"id": "x" * 600}, {"id": 5}, "m", {}]}
    assert [m.name for m in answers.read_models(body(page)).models] == ["ok"]


@pytest.mark.parametrize("page", [b"", b"<html>login</html>", b"[]", b"{}", b'{"data": 3}', b'{"models": null}'])
def test_a_page_that_is_no_list_of_models_is_a_bad_answer(page: bytes) -> None:
    with pytest.raises(BadAnswer):
        answers.read_models(page)
    with pytest.raises(BadAnswer):
        answers.read_ollama_tags(page)


def test_an_errors_message_is_found_in_each_dialect() -> None:
    assert answers.read_error(body({"error": {"message": "Loading model"}})) == "Loading model"
    assert answers.read_error(body({"error": "no\nsuch"})) == "no such"
    assert answers.read_error(body({"detail": "Not here"})) == "Not here"
    assert answers.read_error(b"<html>") == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "models", "id", "name", "meta", "n_ctx", "capabilities", "is_processing"])
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON | st.dictionaries(st.sampled_from(["data", "models", "total_slots", "modalities"]), JSON))
def test_no_answer_of_any_shape_is_more_than_a_bad_answer(page: Any) -> None:
    for read in (
        answers.read_models,
        answers.read_ollama_tags,
        answers.read_props,
        lambda raw: answers.read_slots(raw, 1.0),
        lambda raw: answers.with_loaded((Model("m"),), raw),
        answers.read_error,
        answers.is_ollama_version,
    ):
        try:
            read(body(page))
        except BadAnswer:
            continue


@given(
    st.text()
    | st.lists(st.sampled_from(["vllm:", "num_requests_running", "{", "}", " ", "1", "\n", "#", '"'])).map("".join)
)
def test_no_text_of_any_shape_stops_the_reading_of_gauges(text: str) -> None:
    load = answers.read_gauges(text, EngineKind.VLLM, 1.0)
    assert load is None or load.measured_at == 1.0
