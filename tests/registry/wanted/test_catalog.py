"""What operators may do to the fleet, and the sentences they get when they may not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import AlreadyExists, BadInput, NotFound
from forebay_registry.backend import BackendId, Condition, Desired, EngineKind, Model, Node, NodeId, Observed, Seen
from forebay_registry.fleet.fleet import View, view_of
from forebay_registry.wanted import catalog
from forebay_registry.wanted.catalog import Added, models_of, normal_url, parse_add

NODES = {NodeId("no-1"): Node(NodeId("no-1"), "gpu-1", 1.0, "ada")}


def add(there: Mapping[BackendId, Desired], name: str, url: str, **more: object) -> Added:
    order = parse_add(actor="ada", name=name, url=url, **more)  # type: ignore[arg-type]
    return catalog.add(order, there, NODES, new_id=BackendId(f"new-{len(there)}"), now=5.0)


def fleet_of(*names: str) -> dict[BackendId, Desired]:
    there: dict[BackendId, Desired] = {}
    for name in names:
        added = add(there, name, f"http://{name}:8000").backend
        there[added.id] = added
    return there


def test_a_backend_is_added_with_its_address_in_one_form_and_the_default_pool() -> None:
    added = add({}, "big", " HTTP://GPU-1.Example:80/v1/ ", slots=3, node="gpu-1", kind=EngineKind.VLLM)
    assert added.created
    assert added.changed
    assert added.backend == Desired(
        BackendId("new-0"),
        "big",
        "http://gpu-1.example",
        EngineKind.VLLM,
        "default",
        3,
        NodeId("no-1"),
        changed_by="ada",
        changed_at=5.0,
    )


def test_a_backend_has_the_gpus_that_are_named_and_keeps_them_where_none_is() -> None:
    added = add({}, "big", "http://big:8000", node="gpu-1", gpu_indices=(3, 1)).backend
    assert added.gpu_indices == (1, 3)
    again = add({added.id: added}, "big", "http://big:8000", node="gpu-1", slots=2, replace=True).backend
    assert (again.gpu_indices, again.slots) == ((1, 3), 2)
    for wrong, why in (((1, 1), "twice"), ((64_000,), "counted from 0")):
        with pytest.raises(BadInput, match=why):
            add({}, "big", "http://big:8000", node="gpu-1", gpu_indices=wrong)
    with pytest.raises(BadInput, match="GPUs belong to a node"):
        add({}, "big", "http://big:8000", gpu_indices=(0,))


def test_the_same_order_again_changes_nothing() -> None:
    there = fleet_of("big")
    again = add(there, "big", "http://big:8000/v1")
    assert (again.created, again.changed) == (False, False)
    assert again.backend is next(iter(there.values()))


def test_a_different_order_under_the_same_name_needs_the_word_replace_and_keeps_the_id() -> None:
    there = fleet_of("big")
    with pytest.raises(AlreadyExists, match="There is a backend big already, at http://big:8000; say replace"):
        add(there, "big", "http://elsewhere:8000")
    changed = add(there, "big", "http://elsewhere:8000", slots=7, replace=True)
    assert (changed.created, changed.changed) == (False, True)
    assert (changed.backend.id, changed.backend.url, changed.backend.slots) == ("new-0", "http://elsewhere:8000", 7)


def test_one_engine_cannot_give_its_slots_away_under_two_names() -> None:
    there = fleet_of("big", "small")
    with pytest.raises(AlreadyExists, match="The backend big is at http://big:8000 already"):
        add(there, "second", "http://BIG:8000/v1")
    with pytest.raises(AlreadyExists, match="The backend big is at"):
        add(there, "small", "http://big:8000", replace=True)


def test_a_node_must_be_enrolled_before_a_backend_runs_on_it() -> None:
    with pytest.raises(NotFound, match=r"There is no node 'gpu-2'; enrol it first\. There are: gpu-1\."):
        add({}, "big", "http://big:8000", node="gpu-2")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("gpu:8000", "must begin with http"),
        ("localhost", "did you mean http://localhost"),
        ("ftp://gpu", "must begin with http"),
        ("http://", "no usable host"),
        ("http://a b", "no usable host"),
        ("http://gpu:99999", "is not a URL"),
        ("http://key@gpu:8000", "credential out of the address"),
        ("http://gpu:8000/v1?x=1", "without '\\?'"),
        ("http://[::1", "is not a URL"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_a_reason(url: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        normal_url(url)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("http://gpu:8000/v1", "http://gpu:8000"),
        ("https://api.example.com:443/", "https://api.example.com"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://GPU:80", "http://gpu"),
    ],
)
def test_an_address_has_one_form(url: str, normal: str) -> None:
    assert normal_url(url) == normal
    assert normal_url(normal) == normal


@given(st.text(max_size=60))
def test_any_text_is_an_address_in_its_one_form_or_is_refused(text: str) -> None:
    try:
        normal = normal_url(text)
    except BadInput:
        return
    assert normal_url(normal) == normal


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 64, "ä"])
def test_names_are_plain_words(name: str) -> None:
    with pytest.raises(BadInput, match="cannot be the name of a backend"):
        parse_add(actor="ada", name=name, url="http://x")
    with pytest.raises(BadInput):
        parse_add(actor="ada", name="ok", url="http://x", slots=-1)


def test_removing_what_is_not_there_says_what_is() -> None:
    there = fleet_of("big", "small")
    assert catalog.remove("small", there).name == "small"
    with pytest.raises(NotFound, match=r"There is no backend 'tiny'\. There are: big, small\."):
        catalog.remove("tiny", there)
    with pytest.raises(NotFound, match="There are none"):
        catalog.remove("tiny", {})


def test_enrolling_a_node_again_gives_the_same_node() -> None:
    node, is_new = catalog.enrol("gpu-2", NODES, actor="ada", new_id=NodeId("no-2"), now=2.0)
    assert (node, is_new) == (Node(NodeId("no-2"), "gpu-2", 2.0, "ada"), True)
    again, is_new = catalog.enrol("gpu-1", NODES, actor="bob", new_id=NodeId("no-3"), now=3.0)
    assert (again, is_new) == (NODES[NodeId("no-1")], False)
    with pytest.raises(BadInput, match="cannot be the name of a node"):
        catalog.enrol("gpu.1", NODES, actor="ada", new_id=NodeId("no-4"), now=4.0)


def serving(name: str, condition: Condition, *models: Model, pool: str = "default") -> View:
    wanted = Desired(BackendId(name), name, f"http://{name}", None, pool, 1, None, changed_by="ada", changed_at=1.0)
    return view_of(wanted, Observed(condition, seen=Seen(models=models)), has_credential=False)


def test_models_are_summed_over_backends_and_the_smallest_healthy_context_counts() -> None:
    views = [
        serving("a", Condition.HEALTHY, Model("m", 8192, ("chat",)), Model("only-a")),
        serving("b", Condition.HEALTHY, Model("m", 4096, ("vision",)), pool="lab"),
        serving("c", Condition.UNHEALTHY, Model("m", 1024)),
    ]
    models = {m.name: m for m in models_of(views)}
    assert models["m"].pools == ("default", "lab")
    assert models["m"].backends == ("a", "b", "c")
    assert models["m"].healthy_backends == 2
    assert models["m"].context_length == 4096
    assert models["m"].capabilities == ("chat", "vision")
    assert models["only-a"].context_length is None
    assert models_of([replace(views[0], enabled=False)]) == ()
