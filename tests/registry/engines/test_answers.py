"""What engines answer, as they really write it, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_registry.backend import EngineKind, Load, Model
from forebay_registry.engines import answers, ollama_answers, status_answers
from forebay_registry.engines.answers import BadAnswer
from forebay_registry.engines.ollama_answers import Shown
from forebay_registry.engines.status_answers import Started
from tests.registry.engines import engine_pages

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


def body(page: Any) -> bytes:
    return json.dumps(page).encode()


def test_llamacpp_tells_the_context_of_one_slot_not_what_the_model_was_trained_with() -> None:
    listed = answers.read_models(body(LLAMACPP))
    assert listed.kind is EngineKind.LLAMACPP
    assert listed.models == (Model("gemma", 2048, ("completion",), trained_context_length=32768),)


def test_each_alias_of_a_model_is_a_name_for_it() -> None:
    entry = {**LLAMACPP["data"][0], "aliases": ["gemma", "demo"]}  # type: ignore[dict-item]
    listed = answers.read_models(body({**LLAMACPP, "data": [entry]}))
    assert [(model.name, model.context_length) for model in listed.models] == [("demo", 2048), ("gemma", 2048)]


def test_vllm_and_others_tell_their_context_in_their_own_field_or_not_at_all() -> None:
    assert answers.read_models(body(VLLM)) == answers.ModelList((Model("llama", 4096),), EngineKind.VLLM)
    assert answers.read_models(body(OPENROUTER)).models == (Model("a/b", 200000), Model("c/d", None))


def test_a_model_listed_once_per_replica_is_one_model() -> None:
    page = {"data": [{"id": "m"}, {"id": "m"}]}
    assert len(answers.read_models(body(page)).models) == 1


def test_an_adapter_has_the_context_of_its_model_and_a_parent_that_is_not_there_is_none() -> None:
    page = {
        "data": [
            {"id": "llama", "owned_by": "vllm", "max_model_len": 4096, "parent": None},
            {"id": "sql", "owned_by": "vllm", "root": "/l", "parent": "llama"},
            {"id": "lost", "owned_by": "vllm", "parent": "../../etc"},
            {"id": "itself", "owned_by": "vllm", "parent": "itself"},
        ]
    }
    models = {model.name: model for model in answers.read_models(body(page)).models}
    assert (models["sql"].parent, models["sql"].context_length) == ("llama", 4096)
    assert {models[name].parent for name in ("llama", "lost", "itself")} == {""}


def test_llamacpps_router_tells_which_of_its_models_run_and_how_many_may() -> None:
    raw = body(engine_pages.ROUTER_MODELS)
    models = answers.read_models(raw).models
    assert [(model.name, model.loaded) for model in models] == [("large", False), ("naps", False), ("small", True)]
    assert models[2] == Model(
        "small", 4096, loaded=True, size_bytes=246587904, quantization="Q4_K - Medium", trained_context_length=32768
    )
    assert answers.read_routed(raw) == ("small",)
    props = answers.read_props(body(engine_pages.ROUTER_PROPS))
    assert (props.is_router, props.models_at_once, props.total_slots) == (True, 4, None)
    assert props.version == "b9999-7e4c0a9"


def test_ollama_tells_what_is_on_disk_and_what_is_loaded_how_and_until_when() -> None:
    details = {"family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
    tags = {
        "models": [
            {"name": "a:latest", "size": 1, "digest": "d1"},
            {"name": "b:7b", "size": 2, "digest": "d2", "details": details},
        ]
    }
    resident = {
        "models": [
            {
                "name": "b:7b",
                "size": 6_000_000_000,
                "size_vram": 0,
                "context_length": 8192,
                "expires_at": "2026-07-01T12:00:00.123456789+02:00",
            }
        ]
    }
    idle, loaded = ollama_answers.with_resident(ollama_answers.read_tags(body(tags)), body(resident))
    assert idle == Model("a:latest", loaded=False, disk_bytes=1, digest="d1")
    assert (loaded.loaded, loaded.context_length, loaded.size_bytes, loaded.vram_bytes) == (True, 8192, 6 * 10**9, 0)
    assert (loaded.family, loaded.parameter_size, loaded.quantization) == ("llama", "8.0B", "Q4_K_M")
    assert loaded.expires_at == 1782900000.123456


@pytest.mark.parametrize("said", ["0001-01-01T00:00:00Z", "soon", "2026-07-01T12:00:00", 5, None, "9" * 40])
def test_what_is_no_moment_is_no_expiry(said: Any) -> None:
    (model,) = ollama_answers.with_resident((Model("m"),), body({"models": [{"name": "m", "expires_at": said}]}))
    assert (model.loaded, model.expires_at) == (True, None)


def test_a_model_that_is_shown_tells_what_it_can_and_what_it_was_trained_for() -> None:
    page = {
        "details": {"family": "gemma3", "quantization_level": "Q8_0", "parameter_size": 270},
        "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 32768, "llama.context_length": 1},
        "capabilities": ["completion", "tools", "esc\x1b[31m"],
    }
    shown = ollama_answers.read_show(body(page))
    assert shown == Shown(("completion", "tools"), 32768, "gemma3", "", "Q8_0")
    model = ollama_answers.with_shown(Model("m", capabilities=("vision",), quantization="Q4"), shown)
    assert (model.capabilities, model.quantization, model.family) == (("vision",), "Q4", "gemma3")


def test_what_sglang_and_vllm_were_started_with_is_told_for_all_replicas() -> None:
    assert status_answers.read_sglang_info(body(engine_pages.SGLANG_INFO)) == Started(256, 100_000, "0.5.18")
    assert status_answers.read_sglang_info(body({"max_running_requests": 48})) == Started(48)
    config = {"scheduler_config": {"max_num_seqs": 128}, "parallel_config": {"data_parallel_size": 2}}
    assert status_answers.read_vllm_info(body({"vllm_config": config})) == Started(256)
    assert status_answers.read_vllm_info(body({"vllm_config": "model='m', …"})) == Started()


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
        ollama_answers.read_tags(page)


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


@given(
    JSON
    | st.dictionaries(
        st.sampled_from(["data", "models", "total_slots", "modalities", "internal_states", "vllm_config"]), JSON
    )
)
def test_no_answer_of_any_shape_is_more_than_a_bad_answer(page: Any) -> None:
    for read in (
        answers.read_models,
        answers.read_routed,
        ollama_answers.read_tags,
        ollama_answers.read_show,
        ollama_answers.read_version,
        status_answers.read_sglang_info,
        status_answers.read_vllm_info,
        answers.read_props,
        lambda raw: answers.read_slots(raw, 1.0),
        lambda raw: ollama_answers.with_resident((Model("m"),), raw),
        answers.read_error,
        answers.is_ollama_version,
    ):
        try:
            read(body(page))
        except BadAnswer:
            continue
