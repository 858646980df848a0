"""Services and EndpointSlices, read into backends."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.errors import BadInput
from forebay_registry.backend import EngineKind
from forebay_registry.discovery.kubernetes.collection import Collection, Expired, NotTheApi, read_list
from forebay_registry.discovery.kubernetes.objects import MOST_BACKENDS, Key, Named, named_by, read_wish
from tests.registry.discovery.objects import endpoint, slice_of, wanted_service

VLLM = Key("ml", "vllm")


def named(service: Any, *slices: Any) -> Named:
    return named_by({VLLM: service}, {Key("ml", f"s{n}"): one for n, one in enumerate(slices)})


def test_each_endpoint_of_a_service_is_a_backend_as_its_annotations_say() -> None:
    service = wanted_service(
        labels={"forebay.io/pool": "lab"},
        annotations={
            "forebay.io/kind": "vllm",
            "forebay.io/slots": "16",
            "forebay.io/models": "llama=meta/Llama-3, mistral",
        },
    )
    told = named(service, slice_of(endpoint("10.1.0.1", "vllm-a", node="gpu-1"), endpoint("10.1.0.2", "vllm-b")))
    assert told.problems == {}
    one, other = told.offers
    assert (one.name, one.url, one.node, one.port) == ("vllm-a", "http://10.1.0.1:8000", "gpu-1", 8000)
    assert (one.pool, one.kind, one.slots, one.is_auto) == ("lab", EngineKind.VLLM, 16, True)
    assert one.model_names == (("llama", "meta/Llama-3"), ("mistral", "mistral"))
    assert other.url == "http://10.1.0.2:8000"


def test_a_pod_that_is_being_ended_goes_and_one_that_is_not_ready_yet_counts() -> None:
    going = endpoint("10.1.0.1", "a", conditions={"ready": False, "serving": True, "terminating": True})
    coming = endpoint("10.1.0.2", "b", conditions={"ready": False})
    assert [one.name for one in named(wanted_service(), slice_of(going, coming)).offers] == ["b"]


def test_a_pod_with_two_families_of_addresses_is_one_backend() -> None:
    v6 = slice_of(endpoint("fd00::1", "a"), family="IPv6")
    v4 = slice_of(endpoint("10.1.0.1", "a"))
    assert [one.url for one in named(wanted_service(), v6, v4).offers] == ["http://10.1.0.1:8000"]
    assert [one.url for one in named(wanted_service(), v6).offers] == ["http://[fd00::1]:8000"]


def test_the_port_is_the_one_that_is_said_else_the_only_one_else_one_with_a_usual_name() -> None:
    ports = [
        {"name": "metrics", "port": 9000},
        {"name": "http", "port": 8000},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    two = slice_of(endpoint("10.1.0.1", "a"), ports=ports)
    assert named(wanted_service(), two).offers[0].port == 8000
    assert named(wanted_service(annotations={"forebay.io/port": "metrics"}), two).offers[0].port == 9000
    assert named(wanted_service(annotations={"forebay.io/port": "7000"}), two).offers[0].port == 7000
    lost = named(wanted_service(annotations={"forebay.io/port": "web"}), two)
    assert (lost.offers, list(lost.problems)) == ((), [VLLM])
    assert "it has 'metrics', 'http'" in lost.problems[VLLM]


def test_an_external_name_is_a_backend_of_its_own() -> None:
    service = wanted_service(
        annotations={"forebay.io/scheme": "https"}, type="ExternalName", externalName="gpu.example.com"
    )
    (one,) = named(service).offers
    assert (one.name, one.url) == ("ml-vllm", "https://gpu.example.com")


def test_one_service_that_says_nonsense_leaves_the_others_alone() -> None:
    other = Key("ml", "ollama")
    services = {VLLM: wanted_service(annotations={"forebay.io/kind": "gpt"}), other: wanted_service("ollama")}
    slices = {
        Key("ml", "a"): slice_of(endpoint("10.1.0.1", "a")),
        Key("ml", "b"): slice_of(endpoint("10.1.0.2", "b"), service="ollama"),
    }
    told = named_by(services, slices)
    assert [one.name for one in told.offers] == ["b"]
    assert "there are openai, ollama" in told.problems[VLLM]


@pytest.mark.parametrize(
    "annotations",
    [
        {"forebay.io/slots": "many"},
        {"forebay.io/slots": "-1"},
        {"forebay.io/scheme": "ftp"},
        {"forebay.io/port": "²"},
        {"forebay.io/port": "70000"},
        {"forebay.io/pool": "no pool"},
        {"forebay.io/models": "a=b\x00"},
    ],
)
def test_what_cannot_be_meant_is_said(annotations: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        read_wish(wanted_service(annotations=annotations))


@pytest.mark.parametrize(
    "thing", [None, 7, "x", [], {}, {"metadata": 3}, {"metadata": {}, "endpoints": [None, {"addresses": 3}]}]
)
def test_strange_objects_are_no_backends(thing: Any) -> None:
    assert named_by({VLLM: thing}, {Key("ml", "a"): thing}).offers == ()


def test_a_watch_changes_what_was_listed() -> None:
    held = Collection()
    held.begin([wanted_service(), None, {"metadata": {"name": 3}}], "5")
    assert list(held.objects) == [VLLM]
    assert held.take(b'{"type":"ADDED","object":{"metadata":{"namespace":"ml","name":"b","resourceVersion":"7"}}}')
    assert not held.take(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}')
    assert held.version == "9"
    assert held.take(
        b'{"type":"DELETED","object":{"metadata":{"namespace":"ml","name":"vllm","resourceVersion":"10"}}}'
    )
    assert [key.name for key in held.objects] == ["b"]
    with pytest.raises(Expired):
        held.take(b'{"type":"ERROR","object":{"kind":"Status","code":410}}')
    for line in (b"<html>", b"[]", b'{"type":"ADDED"}', b'{"type":"ERROR","object":{"code":500,"message":"no"}}'):
        with pytest.raises(NotTheApi):
            held.take(line)


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"items":{},"metadata":{"resourceVersion":"1"}}', b'{"items":[]}']
)
def test_a_list_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(NotTheApi):
        read_list(body)
    assert read_list(b'{"items":null,"metadata":{"resourceVersion":"1"}}') == ([], "1", "")


@pytest.mark.parametrize("name", ["slots", "port"])
def test_a_number_of_five_thousand_digits_is_no_number(name: str) -> None:
    service = wanted_service(annotations={f"forebay.io/{name}": "9" * 5000})
    told = named(service, slice_of(endpoint("10.1.0.1", "a")))
    assert (told.offers, list(told.problems)) == ((), [VLLM])
    assert len(told.problems[VLLM]) < 300


def test_more_backends_than_are_taken_are_told_as_such() -> None:
    endpoints = [endpoint(f"10.{n >> 8}.{n & 255}.1", f"p-{n}") for n in range(MOST_BACKENDS + 1)]
    assert named(wanted_service(), slice_of(*endpoints[1:])).is_whole
    told = named(wanted_service(), slice_of(*endpoints))
    assert (len(told.offers), told.is_whole) == (MOST_BACKENDS, False)
