"""Who is told to do something with a model."""

from __future__ import annotations

import pytest

from forebay.errors import BadInput, NotFound, NotPossible
from forebay_registry.backend import EngineKind, Model
from forebay_registry.library.choosing import Choice, choose, choose_for_pin, name_at
from forebay_registry.library.job import Action
from tests.registry.library.views import NODE, view

OLLAMA = view("ollama", "tiny", node_id=NODE)
OTHER = view("other", "big", pool="lab", node_id=NODE)
VLLM = view("vllm", "base", kind=EngineKind.VLLM)
ROUTER = view("router", "gguf", kind=EngineKind.LLAMACPP)
UNKNOWN = view("new", kind=None)
FLEET = (OLLAMA, OTHER, VLLM, ROUTER, UNKNOWN)
NODES = {"gpu-box": NODE}


def chosen(action: Action, model: str, choice: Choice, *, has_source: bool = False) -> list[str]:
    return [v.name for v in choose(action, model, choice, FLEET, NODES, has_source=has_source).views]


def test_backends_are_chosen_by_name_pool_node_or_all_and_those_that_cannot_are_passed_over() -> None:
    assert chosen(Action.PULL, "m", Choice(backends=("other", "ollama", "other"))) == ["other", "ollama"]
    assert chosen(Action.PULL, "m", Choice(pool="lab")) == ["other"]
    assert chosen(Action.PULL, "m", Choice(node="gpu-box")) == ["ollama", "other"]
    everywhere = choose(Action.PULL, "m", Choice(everywhere=True), FLEET, NODES)
    assert [v.name for v in everywhere.views] == ["ollama", "other"]
    assert {p.backend: p.why for p in everywhere.passed} == {
        "vllm": "is vLLM, which cannot pull models",
        "router": "is llama.cpp, which cannot pull models",
        "new": "has not said yet which engine it is",
    }


def test_what_is_done_with_a_model_is_done_where_it_is() -> None:
    assert chosen(Action.DELETE, "tiny:latest", Choice(everywhere=True)) == ["ollama"]
    assert chosen(Action.PRELOAD, "gguf", Choice(everywhere=True)) == ["router"]
    assert chosen(Action.DELETE, "nosuch", Choice(backends=("ollama",))) == ["ollama"], "the engine itself says so"
    with pytest.raises(NotFound, match="None of these backends has the model nosuch"):
        chosen(Action.DELETE, "nosuch", Choice(everywhere=True))


@pytest.mark.parametrize(
    ("action", "choice", "kind", "sentence"),
    [
        (Action.PULL, Choice(), BadInput, "Say on which backends"),
        (Action.PULL, Choice(pool="default", node="gpu-box"), BadInput, "one of them"),
        (Action.PULL, Choice(backends=("nobody",)), NotFound, r"no backend 'nobody'\. There are: new, ollama"),
        (Action.PULL, Choice(pool="nowhere"), NotFound, "There are: default, lab"),
        (Action.PULL, Choice(node="nowhere"), NotFound, "no node 'nowhere'. There are: gpu-box"),
        (Action.PULL, Choice(backends=("vllm",)), NotPossible, "vllm is vLLM, which cannot pull models"),
        (Action.PRELOAD, Choice(backends=("vllm",)), NotPossible, "can load an adapter"),
        (Action.PULL, Choice(backends=("new",)), NotPossible, "has not said yet"),
    ],
)
def test_a_wrong_choice_is_said(action: Action, choice: Choice, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        chosen(action, "m", choice)


def test_adapters_go_to_engines_that_take_them() -> None:
    assert chosen(Action.PRELOAD, "lora", Choice(everywhere=True), has_source=True) == ["vllm"]
    with pytest.raises(NotPossible, match="loads no adapters"):
        chosen(Action.PRELOAD, "lora", Choice(backends=("ollama",)), has_source=True)


def test_only_ollama_is_pinned() -> None:
    assert [v.name for v in choose_for_pin(Choice(everywhere=True), FLEET, NODES).views] == ["ollama", "other"]
    with pytest.raises(NotPossible, match="vllm is vLLM"):
        choose_for_pin(Choice(backends=("ollama", "vllm")), FLEET, NODES)


def test_an_engine_is_told_its_own_name_of_a_model() -> None:
    named = view("a", Model("llama", engine_name="llama3.1:8b"), model_names=(("llama", "llama3.1:8b"), ("x", "y:1")))
    assert name_at(named, "llama") == "llama3.1:8b"
    assert name_at(named, "x") == "y:1", "also where it is yet to be fetched"
    assert name_at(named, "other") == "other"
