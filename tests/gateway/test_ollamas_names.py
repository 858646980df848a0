"""Models of Ollama's engines are found by every name that Ollama itself would take for theirs."""

from __future__ import annotations

from pathlib import Path

import anthropic
import openai
import pytest

from forebay_gateway.callers.principals import Principal
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.rules.catalogue import find_model, offered_as
from forebay_gateway.rules.model_rules import Alias, ModelRules
from tests.gateway.house import MODEL
from tests.gateway.test_model_management import open_shop

OURS = ("llama3:latest", "Qwen:0.5b", "acme/tool:latest", "hf.co/One/Model:Q4", "twin", "TWIN:latest")


def fleet_of(kind: EngineKind = EngineKind.OLLAMA, *names: str) -> Fleet:
    fleet = Fleet()
    models = {name: ModelOnBackend(name) for name in names or OURS}
    others = {name: ModelOnBackend(name) for name in ("org/Big", "small")}
    fleet.replace_all(
        [
            Backend("b1", "one", "http://one", kind, models=models),
            Backend("b2", "two", "http://two", EngineKind.VLLM, models=others),
        ]
    )
    return fleet


def rules_of(*aliases: Alias) -> ModelRules:
    rules = ModelRules()
    rules.replace_all(aliases, (), 1)
    return rules


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("llama3", "llama3:latest"),
        ("LLAMA3", "llama3:latest"),
        ("Llama3:Latest", "llama3:latest"),
        ("library/llama3", "llama3:latest"),
        ("registry.ollama.ai/library/llama3:latest", "llama3:latest"),
        ("Registry.Ollama.AI/Library/LLAMA3", "llama3:latest"),
        ("qwen:0.5B", "Qwen:0.5b"),
        ("qwen", None),
        ("ACME/Tool", "acme/tool:latest"),
        ("registry.ollama.ai/acme/tool", "acme/tool:latest"),
        ("library/acme/tool", None),  # of three parts the first is a registry
        ("registry.ollama.ai/llama3", None),  # and of two a folder
        ("tool", None),
        ("hf.co/one/model:q4", "hf.co/One/Model:Q4"),
        ("twin", "twin"),
        ("TWIN", "TWIN:latest"),
        ("Twin", None),
        ("other.registry/library/llama3", None),
        ("org/big", None),
        ("SMALL", None),
        ("", None),
        ("library/", None),
    ],
)
def test_a_name_is_found_if_it_can_mean_one_model_only(asked: str, model: str | None) -> None:
    assert find_model(asked, "default", fleet_of(), rules_of()) == model


def test_models_of_other_engines_have_their_own_names_alone() -> None:
    assert find_model("LLAMA3", "default", fleet_of(EngineKind.VLLM), rules_of()) is None
    assert find_model("LLAMA3", "night", fleet_of(), rules_of()) is None


def test_an_alias_goes_first_and_may_point_to_such_a_name() -> None:
    rules = rules_of(Alias("LLAMA3", "small"), Alias("gpt-4o", "library/LLAMA3"))
    assert find_model("LLAMA3", "default", fleet_of(), rules) == "small"
    assert find_model("gpt-4o", "default", fleet_of(), rules) == "llama3:latest"


def test_what_is_found_follows_the_fleet_and_made_up_names_are_not_remembered() -> None:
    fleet = fleet_of()
    before = len(fleet._ollamas)
    for number in range(100):
        assert fleet.ollamas_name_of(f"made-up-{number}", "default") is None
    assert len(fleet._ollamas) - before == 1
    assert sum(map(len, fleet._ollamas.values())) < len(OURS)
    models = {"new:latest": ModelOnBackend("new:latest")}
    fleet.change([Backend("b3", "three", "http://three", EngineKind.OLLAMA, models=models)], ["b1"])
    assert fleet.ollamas_name_of("NEW", "default") == "new:latest"
    assert fleet.ollamas_name_of("LLAMA3", "default") is None


def test_one_is_shown_by_the_name_that_the_list_has() -> None:
    fleet, rules = fleet_of(), rules_of(Alias("gpt-4o", "small"))

    def shown(asked: str, *allowed: str) -> str | None:
        model = offered_as(Principal("k", "u", allowed_models=frozenset(allowed)), asked, fleet, rules)
        return model.name if model is not None else None

    asked = ("LLAMA3", "llama3", "gpt-4o", "gpt-4o:latest", "small:latest", "nothing")
    names = ["llama3:latest", "llama3:latest", "gpt-4o", "small", "small", None]
    assert [shown(name) for name in asked] == names
    assert shown("gpt-4o:latest", "gpt-4o") == "gpt-4o"
    assert shown("LLAMA3", "small") is None


async def test_every_kind_of_client_finds_it(tmp_path: Path) -> None:
    asked = f"Registry.Ollama.ai/library/{MODEL.upper()}"
    async with open_shop(tmp_path, 1) as shop:
        house = shop.house
        chat = {"model": asked, "messages": [{"role": "user", "content": "hello"}]}
        async with house.post(chat) as answer:
            assert (answer.status, (await answer.json())["model"]) == (200, asked)
            assert answer.headers["x-forebay-model"] == MODEL
        async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key)) as sdk:
            assert (await sdk.models.retrieve(MODEL.upper())).id == MODEL
            with pytest.raises(openai.NotFoundError):
                await sdk.models.retrieve("nothing")
        async with anthropic.AsyncAnthropic(base_url=house.url, api_key=str(house.key)) as claude:
            assert (await claude.models.retrieve(asked)).id == MODEL
        shown = await shop.client.show(MODEL.upper())
        assert shown.model_dump()
        assert {row.model for row in await house.rows(1)} == {MODEL}
