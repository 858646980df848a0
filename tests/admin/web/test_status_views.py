"""How the cluster is, as it is shown: words and numbers from what was told, and no name of anything within."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forebay.wire.v1 import alerts_pb2, registry_pb2, scheduler_pb2, usage_queries_pb2
from forebay_admin.money.prices import Prices, Tier
from forebay_admin.web.cluster_facts import ClusterFacts, Now, Point, Trends
from forebay_admin.web.snippets import snippets
from forebay_admin.web.status.models_view import models_view, price_words
from forebay_admin.web.status.status_view import incidents_view, plot, status_view, trends_view

HEALTHY, OFFLINE = registry_pb2.BACKEND_HEALTH_HEALTHY, registry_pb2.BACKEND_HEALTH_OFFLINE


def backend(name: str, health: Any = HEALTHY, **more: Any) -> registry_pb2.Backend:
    return registry_pb2.Backend(id=f"id-{name}", name=name, pool="default", enabled=True, health=health, **more)


def now(**more: Any) -> Now:
    told: dict[str, Any] = {
        "at": 1000.0,
        "backends": None,
        "queue": None,
        "minute": None,
        "lately": None,
        "users_of_day": None,
    }
    return Now(**{**told, **more})


# --- views -------------------------------------------------------------------------------------------------------------


def test_what_nobody_told_is_not_known_and_not_nothing() -> None:
    view = status_view(now())
    assert (view.tone, view.well, view.running, view.tokens_in_per_s, view.ttft_s) == ("warn", None, None, None, None)
    assert "not known" in view.word
    assert (view.knows_fleet, view.knows_queue) == (False, False)


@pytest.mark.parametrize(
    ("backends", "tone"),
    [
        ([], "info"),
        ([backend("a")], "good"),
        ([backend("a"), backend("b", OFFLINE)], "warn"),
        ([backend("a", OFFLINE)], "bad"),
        ([backend("a", draining=True)], "bad"),
    ],
)
def test_the_word_says_whether_it_is_well(backends: list[registry_pb2.Backend], tone: str) -> None:
    assert status_view(now(backends=backends)).tone == tone


def test_a_pool_without_an_engine_that_is_well_is_not_served() -> None:
    other = backend("b", OFFLINE)
    assert "by fewer engines" in status_view(now(backends=[backend("a"), other])).word
    other.pool = "big"
    assert "Not every pool" in status_view(now(backends=[backend("a"), other])).word


def test_pools_have_their_own_numbers_and_disabled_backends_count_nowhere() -> None:
    off = registry_pb2.Backend(id="off", name="off", pool="default", health=HEALTHY)
    queue = scheduler_pb2.ShowQueueResponse(
        held=[
            scheduler_pb2.HeldSlots(backend_id="id-a", cap=4, held=3),
            scheduler_pb2.HeldSlots(backend_id="id-b", cap=2, held=0),
        ],
        waiting=[scheduler_pb2.QueuedUser(pool="big", requests=5, oldest_ms=2500)],
    )
    other = backend("b", OFFLINE)
    other.pool = "big"
    view = status_view(now(backends=[backend("a"), other, off], queue=queue))
    assert (view.well, view.backends, view.running, view.slots, view.waiting, view.oldest_s) == (1, 2, 3, 6, 5, 2.5)
    assert [(pool.name, pool.well, pool.backends, pool.running, pool.waiting) for pool in view.pools] == [
        ("big", 0, 1, 0, 5),
        ("default", 1, 1, 3, 0),
    ]


def test_tokens_a_second_are_the_engines_own_or_the_ledgers_whichever_knows_more() -> None:
    fresh = registry_pb2.EngineLoad(prompt_tokens_per_s=40, completion_tokens_per_s=5)
    stale = registry_pb2.EngineLoad(completion_tokens_per_s=500, stale=True)
    lately = usage_queries_pb2.UsageSums(prompt_tokens=100, completion_tokens=900)
    view = status_view(now(backends=[backend("a", load=fresh), backend("b", load=stale)], lately=lately))
    assert (view.tokens_in_per_s, view.tokens_out_per_s) == (40, 90)


def test_the_time_to_the_first_token_is_the_mean_of_what_was_answered() -> None:
    minute = usage_queries_pb2.UsageSums(requests=9, answered=4, ttft_ms=2000)
    assert status_view(now(minute=minute)).ttft_s == 0.5


def test_incidents_name_nothing_and_leave_out_what_nobody_feels() -> None:
    critical, info = alerts_pb2.ALERT_SEVERITY_CRITICAL, alerts_pb2.ALERT_SEVERITY_INFO
    day = 86_400_000_000
    told: dict[str, Any] = {"subject": "backend/secret-name", "node": "secret-name", "summary": "secret-name is away"}
    alerts = [
        alerts_pb2.Alert(rule="backend_unhealthy", severity=critical, began_at_us=9 * day, **told),
        alerts_pb2.Alert(
            rule="node_silent", severity=critical, began_at_us=8 * day, closed_at_us=8 * day + 60_000_000, **told
        ),
        alerts_pb2.Alert(rule="node_silent", severity=critical, began_at_us=day, closed_at_us=2 * day, **told),
        alerts_pb2.Alert(rule="vram_full", severity=info, began_at_us=9 * day, **told),
        alerts_pb2.Alert(rule="command_refused", severity=critical, began_at_us=9 * day, **told),
    ]
    view = incidents_view(alerts, 10 * 86_400.0)
    assert [(one.what, one.severity, one.lasted_s) for one in view] == [
        ("An engine did not answer", "serious", None),
        ("A machine was silent", "serious", 60.0),
    ]
    assert "secret-name" not in repr(view)


def test_trends_are_drawn_with_their_gaps_and_read_without_them() -> None:
    trends = Trends(100.0, 60, (Point(0, 10, 1, 2, 1), Point(60), Point(120, 5, 5, 1, 1)))
    view = trends_view("hour", trends)
    assert (view.requests, view.prompt_tokens, view.completion_tokens) == (3, 15, 6)
    assert [point.at for point in view.points] == [120, 0]
    assert plot(trends, "requests") == {
        "t": [0, 60, 120],
        "series": [{"label": "Requests", "unit": "requests", "values": [2, 0, 1]}],
    }


MODELS = [
    registry_pb2.FleetModel(name="tiny", capabilities=["chat"], healthy_backends=1, backends=["b1"], context_length=10),
    registry_pb2.FleetModel(name="eyes", capabilities=["chat", "vision"], healthy_backends=1, description="Sees."),
    registry_pb2.FleetModel(name="gone", capabilities=["embedding"]),
]


def shown(**more: Any) -> list[str]:
    asked = {"eyes": 5, "tiny": 1}
    view = models_view(MODELS, asked=asked, price_of=None, with_backends=False, **more)
    return [model.name for model in view.models]


def test_models_are_looked_for_by_words_and_by_what_they_can() -> None:
    assert shown() == ["eyes", "tiny", "gone"]
    assert shown(text="SEES") == ["eyes"]
    assert shown(can="chat") == ["eyes", "tiny"]
    assert shown(can="vision", text="tiny") == []
    assert shown(sort="context") == ["tiny", "eyes", "gone"]
    assert shown(sort="nonsense") == shown()


def test_names_of_backends_and_prices_are_for_who_may_know_them() -> None:
    view = models_view(MODELS, asked=None, price_of=lambda _: Prices(2_000_000), with_backends=True)
    tiny = next(model for model in view.models if model.name == "tiny")
    assert (tiny.backends, tiny.price, tiny.requests) == (("b1",), (("Prompt", "2.00 for a million tokens"),), None)
    assert models_view(MODELS, asked=None, price_of=None, with_backends=False).models[0].backends == ()


def test_a_price_is_told_in_words() -> None:
    prices = Prices(1_000_000, 500_000, 3_000_000, 10, tiers=(Tier(200_000, 2_000_000, 1_000_000, 6_000_000),))
    assert dict(price_words(prices)) == {
        "Prompt": "1.00 for a million tokens",
        "Cached prompt": "0.50 for a million tokens",
        "Answer": "3.00 for a million tokens",
        "Request": "0.00001 each",
        "From 200k prompt tokens": "2.00 and 6.00 for a million tokens",
    }
    assert price_words(None) == ()


def test_snippets_survive_names_with_quotes() -> None:
    ready = {one.name: one.text for one in snippets("https://llm.example.org", "fb-k", 'it\'s a "model"')}
    assert set(ready) == {"curl", "python", "javascript", "ollama", "claude-code", "open-webui"}
    assert 'model="it\'s a \\"model\\""' in ready["python"]
    assert "OLLAMA_HOST=https://llm.example.org/k/fb-k ollama run" in ready["ollama"]
    assert "ANTHROPIC_BASE_URL=https://llm.example.org\n" in ready["claude-code"]
    compile(ready["python"], "snippet", "exec")


def test_a_model_that_only_embeds_is_asked_for_embeddings() -> None:
    ready = snippets("http://g", "fb-k", "e", ["embedding"])
    assert all("embeddings" in one.text for one in ready)


# --- facts -------------------------------------------------------------------------------------------------------------


class _Counting:
    """Whom the facts are asked of; it counts, and may be away."""

    def __init__(self) -> None:
        self.asked = 0

    async def backends(self) -> list[registry_pb2.Backend]:
        self.asked += 1
        await asyncio.sleep(0)
        return [backend("a")]

    async def models(self) -> list[registry_pb2.FleetModel]:
        return MODELS

    async def queue(self) -> scheduler_pb2.ShowQueueResponse:
        return scheduler_pb2.ShowQueueResponse()

    async def query(self, request: Any, actor: Any) -> usage_queries_pb2.QueryUsageResponse:
        return usage_queries_pb2.QueryUsageResponse()

    async def list(self, request: Any) -> alerts_pb2.ListAlertsResponse:
        return alerts_pb2.ListAlertsResponse()

    @property
    def book(self) -> Any:
        raise AssertionError


class _Still:
    at = 5000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


async def test_however_many_look_one_finds_out() -> None:
    source, clock = _Counting(), _Still()
    facts = ClusterFacts(source, source, source, source, source, clock)
    await asyncio.gather(*(facts.now() for _ in range(50)))
    assert source.asked == 1
    clock.at += 10
    await asyncio.gather(*(facts.now() for _ in range(50)))
    assert source.asked == 2


async def test_trends_have_every_step_of_their_span() -> None:
    source = _Counting()
    trends = await ClusterFacts(source, source, source, source, source, _Still()).trends("hour")
    assert len(trends.points) == 60
    assert trends.points[-1].at <= 5000 < trends.points[-1].at + 60
