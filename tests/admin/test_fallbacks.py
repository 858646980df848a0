"""Fallbacks of models, what engines call them, and the most that a prompt may hold: said, kept, told to gateways."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.models.fallbacks import MOST_OTHERS, Fallback, demand_fallback
from forebay_admin.people.people import Role
from tests.admin.replica import Running, Start
from tests.admin.test_cli import Invoke, forebay, told
from tests.admin.test_model_rules import next_of
from tests.admin.test_operator import query, refused, somebody

__all__ = ["forebay"]  # the fixture

CHEAPEST, SOONEST = admin_pb2.FALLBACK_ORDER_CHEAPEST, admin_pb2.FALLBACK_ORDER_SOONEST


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Fallback("", ("b",)), "'' is not the name of a model"),
        (Fallback("a", ("b ",)), "'b ' is not the name of a model"),
        (Fallback("a", ()), "Say which models are asked instead of a"),
        (Fallback("a", ("b", "b")), "Name each model once"),
        (Fallback("a", ("b", "a")), "Name each model once"),
        (Fallback("a", tuple(f"m{n}" for n in range(MOST_OTHERS + 1))), "At most 16 models"),
        (Fallback("a", ("b",), "x y"), "A pool's name is"),
        (Fallback("a", ("b",), after_ms=0), "from 0.001 to 86400 seconds"),
        (Fallback("a", ("b",), after_ms=86_400_001), "from 0.001 to 86400 seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: Fallback, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        demand_fallback(wanted)


async def test_gateways_hear_of_fallbacks_and_of_prices(start: Start) -> None:
    async with start() as here, start() as there:
        operator = await here.operator()
        stream = (await there.watcher("gateway")).WatchModelRules()
        first = await next_of(stream)
        assert (first.snapshot, list(first.fallbacks), list(first.prices)) == (True, [], [])

        wanted: dict[str, Any] = {"model": "big", "others": ["small", "tiny"], "order": CHEAPEST, "after_ms": 1500}
        made = await operator.SetModelFallback(fallback=wanted)
        update = await next_of(stream)
        assert update.version == made.version
        assert list(update.fallbacks) == [admin_pb2.ModelFallback(**wanted)]

        await operator.SetModelTerms(model="small", prompt_micros=150_000, completion_micros=600_000)
        update = await next_of(stream)
        assert (update.snapshot, len(update.fallbacks)) == (True, 1)
        assert [(p.model, p.prompt_micros, p.completion_micros) for p in update.prices] == [("small", 150_000, 600_000)]

        await operator.RemoveModelTerms(model="small")
        assert list((await next_of(stream)).prices) == [], "a price that is gone is not missed"

        await operator.SetModelFallback(fallback={"model": "big", "others": ["other"]})
        (changed,) = (await next_of(stream)).fallbacks
        assert (list(changed.others), changed.order, changed.HasField("after_ms")) == (
            ["other"],
            admin_pb2.FALLBACK_ORDER_LISTED,
            False,
        )
        await operator.RemoveModelFallback(model="big")
        assert list((await next_of(stream)).fallbacks) == []
        stream.cancel()


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("SetModelFallback", {}, "INVALID_ARGUMENT: '' is not the name of a model."),
    ("SetModelFallback", {"fallback": {"model": "a"}}, "INVALID_ARGUMENT: Say which models are asked"),
    (
        "SetModelFallback",
        {"fallback": {"model": "a", "others": ["b"], "order": 9}},
        "INVALID_ARGUMENT: There is no order 9; there are listed, cheapest, soonest.",
    ),
    ("RemoveModelFallback", {"model": "a"}, "NOT_FOUND: Nothing is asked instead of a in every pool."),
    ("RemoveModelFallback", {"model": "a", "pool": "p"}, "NOT_FOUND: Nothing is asked instead of a in the pool p."),
    ("NameBackendModels", {"name": "nobody", "put": {"a": "b"}}, "NOT_FOUND: There is no backend nobody."),
    (
        "SetModelRule",
        {"scope": {"everyone": True}, "max_context_tokens": {"most": 0}},
        "INVALID_ARGUMENT: max_context_tokens is from 1 to",
    ),
)


async def test_what_is_wrong_is_said_and_nothing_of_it_is_kept(admin: Running) -> None:
    operator = await admin.operator()
    before = (await query(admin, "SELECT value FROM admin.version"))[0]["value"]
    for call, fields, words in WRONG:
        said = await refused(getattr(operator, call)(**fields))
        assert said.startswith(words), (call, fields, said)
    assert (await query(admin, "SELECT value FROM admin.version"))[0]["value"] == before


async def test_changes_are_audited_with_who_and_how_it_was_before(admin: Running) -> None:
    operator = await admin.operator()
    olga = await somebody(admin, "olga", Role.OPERATOR)
    await operator.RegisterBackend(name="gpu", url="http://127.0.0.1:1", model_names={"llama": "meta/llama"})
    await olga.NameBackendModels(name="gpu", put={"qwen": "Qwen/Qwen3"}, removed=["llama"])
    await olga.SetModelFallback(fallback={"model": "big", "others": ["small"], "pool": "night"})
    await olga.SetModelFallback(fallback={"model": "big", "others": ["tiny"], "pool": "night", "order": SOONEST})
    await olga.RemoveModelFallback(model="big", pool="night")
    rows = await query(
        admin,
        "SELECT actor, subject, before, after FROM admin.audit_log WHERE action = 'model.fallback' ORDER BY id",
    )
    assert {(row["actor"], row["subject"]) for row in rows} == {("olga", "big")}
    facts = [(row["before"] and json.loads(row["before"]), row["after"] and json.loads(row["after"])) for row in rows]
    small = {"pool": "night", "others": ["small"], "order": "listed", "after_ms": None}
    tiny = {"pool": "night", "others": ["tiny"], "order": "soonest", "after_ms": None}
    assert facts == [(None, small), (small, tiny), (tiny, None)]
    (named,) = await query(admin, "SELECT actor, before, after FROM admin.audit_log WHERE action = 'backend.model'")
    assert (named["actor"], json.loads(named["before"]), json.loads(named["after"])) == (
        "olga",
        {"model_names": ["llama=meta/llama"]},
        {"model_names": ["qwen=Qwen/Qwen3"]},
    )


async def test_fallbacks_by_the_command_line(forebay: Invoke) -> None:
    assert (await forebay("model", "fallback", "list")).output.startswith("Nothing is asked instead of any model.")
    made = await forebay("model", "fallback", "set", "big", "small", "tiny", "--order", "cheapest", "--after", "1.5")
    assert made.output == (
        "Instead of big in every pool: small, tiny, the cheapest first. It waits 1.5 s for a slot before that.\n"
    )
    assert told(await forebay("model", "fallback", "set", "big", "other", "--pool", "night", "--json")) == {
        "model": "big",
        "pool": "night",
        "others": ["other"],
        "order": "listed",
        "after_ms": None,
    }
    await forebay("model", "price", "small", "--prompt", "0.15", "--completion", "0.60")
    shown = (await forebay("model", "fallback", "list")).output
    for words in ("cheapest", "1.5 s", "small (0.15 in, 0.60 out)", "tiny (no price)", "night"):
        assert words in shown
    every, night = told(await forebay("model", "fallback", "list", "--json"))
    assert (every["pool"], every["others"], every["after_ms"]) == ("", ["small", "tiny"], 1500)
    assert every["prices"]["small"]["prompt_micros"] == 150_000
    assert (night["pool"], night["prices"]) == ("night", {})
    gone = await forebay("model", "fallback", "remove", "big", "--pool", "night")
    assert gone.output == "Nothing is asked instead of big in the pool night any more.\n"
    assert isinstance((await forebay("model", "fallback", "remove", "big", "--pool", "night")).exception, NotFound)
    for seconds in ("soon", "0", "-1", "1e9", "nan"):
        wrong = await forebay("model", "fallback", "set", "big", "small", "--after", seconds)
        assert "is not a number of seconds" in str(wrong.exception), seconds


async def test_what_an_engine_calls_the_fleets_models_by_the_command_line(forebay: Invoke) -> None:
    url = "http://127.0.0.1:8000"
    added = await forebay("backend", "add", "gpu", url, "--model", "llama=meta/llama", "--model", "own", "--json")
    assert told(added)["backend"]["model_names"] == {"llama": "meta/llama", "own": "own"}
    changed = await forebay("backend", "model", "gpu", "qwen=Qwen/Qwen3", "--remove", "own")
    assert changed.output == "At gpu, llama is meta/llama, qwen is Qwen/Qwen3.\n"
    emptied = await forebay("backend", "model", "gpu", "--remove", "llama", "--remove", "qwen")
    assert emptied.output == "gpu has no names of its own for models.\n"
    for words in ("=x", "a=", " =x"):
        wrong = await forebay("backend", "model", "gpu", words)
        assert isinstance(wrong.exception, BadInput)
        assert "is not NAME=ITS_NAME" in str(wrong.exception)


async def test_the_most_that_a_prompt_may_hold_by_the_command_line(forebay: Invoke) -> None:
    made = await forebay("model", "rule", "set", "--pool", "night", "--max-context-tokens", "8192")
    assert made.output == "For pool night: at most 8,192 tokens in a prompt.\n"
    (rule,) = told(await forebay("model", "rule", "list", "--json"))
    assert rule["max_context_tokens"] == 8192
    gone = await forebay("model", "rule", "set", "--pool", "night", "--max-context-tokens", "none")
    assert "Nothing would be left of the rule" in str(gone.exception)
