"""What an agent says of an engine, as the backend that it could be; and what one that lies gets for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.wire.v1 import types_pb2 as words
from forebay.wire.v1.discovery_pb2 import FoundEngine
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import EngineKind
from forebay_registry.discovery.facts import engines_in
from forebay_registry.discovery.offers import EngineFacts, Offer, Policy, Site, is_telling, name_of, offers_of

SITE = Site("gpu-1", joined_from="10.0.0.5")


def offer(listens_on: str = "0.0.0.0", *, site: Site = SITE, port: int = 8000) -> Offer:
    (one,) = offers_of(site, [EngineFacts(EngineKind.VLLM, port, listens_on, (0, 1), True)], Policy.SUGGEST)
    return one


def test_an_engine_is_where_its_node_is_known_to_be() -> None:
    one = offer()
    assert (one.name, one.url, one.node, one.gpu_indices) == (
        "gpu-1-vllm-8000",
        "http://10.0.0.5:8000",
        "gpu-1",
        (0, 1),
    )
    assert not one.is_auto
    named = offer(site=Site("gpu-1", Policy.AUTO, "lab", ("gpu-1.lan", "10.0.0.5"), joined_from="192.0.2.1"))
    assert (named.url, named.also_at) == ("http://gpu-1.lan:8000", ("http://10.0.0.5:8000",))
    assert (named.is_auto, named.pool) == (True, "lab")
    assert offer("10.0.0.5").url == "http://10.0.0.5:8000"
    assert offer("::", site=Site("n", addresses=("fd00::5",))).url == "http://[fd00::5]:8000"


@pytest.mark.parametrize(
    ("listens_on", "site", "why"),
    [
        ("127.0.0.1", SITE, "OLLAMA_HOST=0.0.0.0"),
        ("::1", SITE, "nothing outside its node reaches it"),
        ("10.0.0.6", SITE, "forebay node discovery gpu-1 --address 10.0.0.6"),
        ("169.254.169.254", SITE, "is not known to be there"),
        ("example.com", SITE, "does not say at which address"),
        ("", SITE, "does not say at which address"),
        ("0.0.0.0", Site("gpu-1"), "Where gpu-1 is reached is not known"),
        ("0.0.0.0", Site("gpu-1", joined_from="127.0.0.1"), "is not known"),
        ("0.0.0.0", Site("gpu-1", joined_from="169.254.169.254"), "is not known"),
        ("0.0.0.0", Site("gpu-1", addresses=("fd00::5",)), "IPv4 only"),
    ],
)
def test_one_that_cannot_be_reached_says_why_and_what_to_do(listens_on: str, site: Site, why: str) -> None:
    one = offer(listens_on, site=site)
    assert one.url == ""
    assert why in one.why_not


def test_an_engine_on_loopback_is_reached_where_an_operator_says_that_the_node_is_this_machine() -> None:
    one = offer("127.0.0.1", site=Site("gpu-1", addresses=("127.0.0.1",)))
    assert (one.url, one.why_not) == ("http://127.0.0.1:8000", "")


@settings(max_examples=30)
@given(st.text(max_size=30), st.integers(-1, 70_000))
def test_whatever_an_agent_says_it_points_at_its_own_node_or_nowhere(listens_on: str, port: int) -> None:
    engines = [EngineFacts(EngineKind.OLLAMA, port, listens_on)]
    for one in offers_of(SITE, engines, Policy.AUTO):
        assert one.url in ("", f"http://10.0.0.5:{port}", "http://10.0.0.5")


def test_forebays_own_ports_and_what_no_agent_finds_are_left_out() -> None:
    engines = [
        EngineFacts(EngineKind.VLLM, 8091, "0.0.0.0"),
        EngineFacts(EngineKind.OPENROUTER, 8000, "0.0.0.0"),
        EngineFacts(EngineKind.OLLAMA, 11434, "0.0.0.0"),
        EngineFacts(EngineKind.VLLM, 11434, "0.0.0.0"),
    ]
    assert [(one.port, one.kind) for one in offers_of(SITE, engines, Policy.AUTO)] == [(11434, EngineKind.VLLM)]
    assert offers_of(Site("gpu-1", Policy.OFF, joined_from="10.0.0.5"), engines, Policy.AUTO) == ()
    assert len(offers_of(SITE, [EngineFacts(None, 9000 + n, "0.0.0.0") for n in range(900)], Policy.AUTO)) == 64


def test_a_sample_is_read_with_care() -> None:
    sample = TelemetrySample(
        engines=[
            FoundEngine(kind=words.ENGINE_KIND_VLLM, port=8000, listens_on="0.0.0.0", gpu_indices=[3, 1, 3, 4_000_000]),
            FoundEngine(kind=words.ENGINE_KIND_ANTHROPIC, port=80, listens_on="x" * 900, version="1\n2"),
            FoundEngine(port=0),
            FoundEngine(port=70_000),
        ],
        engines_age_s=3,
    )
    assert engines_in(sample) == (
        EngineFacts(EngineKind.VLLM, 8000, "0.0.0.0", (1, 3)),
        EngineFacts(None, 80, ""),
    )
    sample.engines_age_s = 4_000_000
    assert engines_in(sample) is None


def test_names_fit_whatever_a_node_is_called() -> None:
    assert name_of("n" * 64, "llamacpp-8080") == "n" * 49 + "-llamacpp-8080"
    assert name_of("vllm-7d4f.pod", "") == "vllm-7d4f.pod"
    assert len(name_of("ä" * 200, "")) <= 63
    assert name_of("", "") == "engine"
    assert not is_telling("not an address")
