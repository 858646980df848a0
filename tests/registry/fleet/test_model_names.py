"""What engines call the fleet's models: one queue serves a model over engines that call it differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput, NotFound
from forebay_registry.backend import EngineKind, Model
from forebay_registry.fleet.model_names import Names, as_the_fleet_calls, changed, demand_names

VLLM, OLLAMA, OPENAI = EngineKind.VLLM, EngineKind.OLLAMA, EngineKind.OPENAI
NAME = st.sampled_from(["a", "b", "c", "d:latest", "d"])


def told(models: tuple[Model, ...]) -> dict[str, str]:
    return {model.name: model.engine_name for model in models}


def test_a_model_with_a_name_is_known_by_it_and_keeps_what_the_engine_says_of_it() -> None:
    listed = (Model("meta-llama/Llama-3.1-8B", 8192, ("chat",), True), Model("other"))
    named = as_the_fleet_calls(listed, (("llama", "meta-llama/Llama-3.1-8B"),), VLLM)
    assert named == (Model("llama", 8192, ("chat",), True, "meta-llama/Llama-3.1-8B"), Model("other"))


@pytest.mark.parametrize(
    ("listed", "kind", "offered"),
    [
        (
            ("gpt-4o",),
            OPENAI,
            {"gpt-4o": "", "ours": "deployment-7"},
        ),  # what a provider lists is not what one account serves
        ((), OPENAI, {"ours": "deployment-7"}),
        ((), VLLM, {"ours": "deployment-7"}),  # not looked at yet, or it lists nothing
        (("gpt-4o",), VLLM, {"gpt-4o": ""}),
        (("deployment-7:latest",), OLLAMA, {"ours": "deployment-7:latest"}),
    ],
)
def test_a_model_that_is_not_listed_counts_where_lists_are_not_to_be_relied_on(
    listed: tuple[str, ...], kind: EngineKind, offered: dict[str, str]
) -> None:
    assert told(as_the_fleet_calls(map(Model, listed), (("ours", "deployment-7"),), kind)) == offered


def test_two_names_for_one_model_and_one_name_for_itself() -> None:
    names = (("a", "x"), ("b", "x"), ("y", "y"))
    assert told(as_the_fleet_calls((Model("x"), Model("y")), names, VLLM)) == {"a": "x", "b": "x", "y": ""}


@given(st.lists(NAME, unique=True), st.dictionaries(NAME, NAME), st.sampled_from([*EngineKind, None]))
def test_whatever_is_said_every_name_is_there_once_and_names_a_model_that_was_listed_or_declared(
    listed: list[str], names: dict[str, str], kind: EngineKind | None
) -> None:
    models = as_the_fleet_calls(map(Model, listed), demand_names(names), kind)
    assert len({model.name for model in models}) == len(models)
    for model in models:
        assert (model.engine_name or model.name) in {*listed, *names.values()}
        assert model.engine_name != model.name


def test_names_are_put_and_taken_away() -> None:
    before: Names = (("a", "x"), ("b", "y"))
    assert changed(before, {"c": "z", "a": "w"}, ["b"]) == (("a", "w"), ("c", "z"))
    with pytest.raises(NotFound):
        changed(before, {}, ["nobody"])
    with pytest.raises(BadInput):
        changed(before, {}, [])


@pytest.mark.parametrize("name", ["", " a", "a\n", "x" * 300])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        demand_names({"a": name})
    with pytest.raises(BadInput):
        demand_names({name: "a"})
