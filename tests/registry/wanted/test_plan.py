"""What an order makes of the desired state, told in the fields of a fleet file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.backend import EngineKind, NodeId
from forebay_registry.wanted.plan import Plan, plan, without
from forebay_registry.wanted.specs import FleetOrder, read_order
from forebay_registry.wanted.state import Edit, Kind, Version, Wanted, document, earlier, edit_between

NOTHING = Wanted(0, {}, {}, {}, {})
NUMBERS = itertools.count()
KINDS = {"nodes": Kind.NODE, "backends": Kind.BACKEND, "pools": Kind.POOL, "models": Kind.MODEL}


def order_of(**sections: Sequence[Mapping[str, Any]]) -> FleetOrder:
    order, problems = read_order({KINDS[name]: entries for name, entries in sections.items()})
    assert problems == []
    return order


def problems_of(**sections: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {p.path: p.why for p in read_order({KINDS[name]: entries for name, entries in sections.items()})[1]}


def planned(
    order: FleetOrder, before: Wanted = NOTHING, *, prune: bool = False, allow_link_local: bool = False
) -> Plan:
    return plan(
        order,
        before,
        prune=prune,
        actor="ada",
        now=before.version + 1.0,
        new_id=lambda prefix: f"{prefix}{next(NUMBERS)}",
        allow_link_local=allow_link_local,
    )


def made(order: FleetOrder, before: Wanted = NOTHING, *, prune: bool = False) -> tuple[Wanted, Edit | None]:
    done = planned(order, before, prune=prune)
    assert done.problems == ()
    edit = edit_between(before, done.after, actor="ada", at=1.0)
    return replace(done.after, version=edit.version if edit is not None else before.version), edit


WHOLE = order_of(
    nodes=[{"name": "gpu-1", "labels": {"rack": "a"}, "note": "the left one"}],
    backends=[
        {
            "name": "big",
            "url": "http://GPU-1:8000/v1",
            "kind": "vllm",
            "node": "gpu-1",
            "gpu_indices": [1, 0],
            "weight": 1.5,
            "kv_tokens": 100_000,
            "requests_per_minute": 60,
            "models_at_once": 2,
            "enabled": False,
            "labels": {"tier": "1"},
            "models": {"llama": "meta/llama"},
        },
        {"name": "cloud", "url": "https://api.anthropic.com", "pool": "lab"},
    ],
    pools=[{"name": "lab", "hosts": ["Lab.example.com"], "path_prefix": "/lab/", "required_models": ["llama"]}],
    models=[{"name": "llama", "capabilities": ["tools", "chat"], "context_length": 8192, "description": "Usual."}],
)


def test_a_whole_fleet_is_understood_and_told_again_in_the_same_words() -> None:
    after, edit = made(WHOLE)
    assert edit is not None
    assert [(c.kind, c.name, c.before) for c in edit.changes] == [
        ("node", "gpu-1", None),
        ("pool", "lab", None),
        ("model", "llama", None),
        ("backend", "big", None),
        ("backend", "cloud", None),
    ]
    assert document(after) == {
        Kind.NODE: {"gpu-1": {"name": "gpu-1", "labels": {"rack": "a"}, "note": "the left one"}},
        Kind.BACKEND: {
            "big": {
                "name": "big",
                "url": "http://gpu-1:8000",
                "kind": "vllm",
                "node": "gpu-1",
                "gpu_indices": [0, 1],
                "weight": 1.5,
                "kv_tokens": 100_000,
                "requests_per_minute": 60,
                "models_at_once": 2,
                "labels": {"tier": "1"},
                "models": {"llama": "meta/llama"},
                "enabled": False,
            },
            "cloud": {"name": "cloud", "url": "https://api.anthropic.com", "kind": "anthropic", "pool": "lab"},
        },
        Kind.POOL: {
            "lab": {
                "name": "lab",
                "hosts": ["lab.example.com"],
                "path_prefix": "/lab",
                "required_models": ["llama"],
            }
        },
        Kind.MODEL: {
            "llama": {
                "name": "llama",
                "capabilities": ["chat", "tools"],
                "context_length": 8192,
                "description": "Usual.",
            }
        },
    }


def test_the_same_order_again_changes_nothing_and_what_is_told_is_such_an_order() -> None:
    after, _ = made(WHOLE)
    assert made(WHOLE, after)[1] is None
    told = {kind: list(specs.values()) for kind, specs in document(after).items()}
    again, problems = read_order(told)
    assert problems == []
    assert made(again, after, prune=True)[1] is None


def test_an_entry_is_meant_whole_and_what_is_not_named_stays() -> None:
    before, _ = made(WHOLE)
    after, edit = made(order_of(backends=[{"name": "big", "url": "http://gpu-1:8000", "slots": 4}]), before)
    assert edit is not None
    (change,) = edit.changes
    assert change.after == {"name": "big", "url": "http://gpu-1:8000", "slots": 4}
    assert {b.name for b in after.backends.values()} == {"big", "cloud"}
    assert next(b for b in after.backends.values() if b.name == "big").id == next(
        b.id for b in before.backends.values() if b.name == "big"
    )


def test_with_prune_what_is_not_named_goes_except_a_node_that_has_an_agent() -> None:
    before, _ = made(WHOLE)
    agent = next(iter(before.nodes.values()))
    before = replace(
        before, nodes={**before.nodes, NodeId("own"): replace(agent, id=NodeId("own"), name="gpu-9", has_agent=True)}
    )
    order = order_of(backends=[{"name": "cloud", "url": "https://api.anthropic.com", "pool": "lab"}])
    after, edit = made(order, before, prune=True)
    assert edit is not None
    assert [(c.kind, c.name, c.after) for c in edit.changes] == [
        ("node", "gpu-1", None),
        ("pool", "lab", None),
        ("model", "llama", None),
        ("backend", "big", None),
    ]
    assert [n.name for n in after.nodes.values()] == ["gpu-9"]
    (note,) = planned(order, before, prune=True).notes
    assert "gpu-9" in note


def test_what_was_found_by_itself_is_not_the_files_to_remove_until_it_names_it() -> None:
    before, _ = made(order_of(backends=[{"name": "found", "url": "http://found"}]))
    before = replace(before, backends={i: replace(b, found_by="agent") for i, b in before.backends.items()})
    kept, edit = made(FleetOrder(), before, prune=True)
    assert edit is None
    named, edit = made(order_of(backends=[{"name": "found", "url": "http://found"}]), kept)
    assert edit is not None
    assert (edit.changes, [b.found_by for b in named.backends.values()]) == ((), [""])


def test_what_was_found_by_itself_on_a_node_that_goes_is_on_none() -> None:
    before, _ = made(order_of(nodes=[{"name": "n"}], backends=[{"name": "found", "url": "http://f", "node": "n"}]))
    before = replace(before, backends={i: replace(b, found_by="kubernetes") for i, b in before.backends.items()})
    after, edit = made(FleetOrder(), before, prune=True)
    assert edit is not None
    assert after.nodes == {}
    assert [(b.node_id, b.found_by) for b in after.backends.values()] == [(None, "kubernetes")]


def test_two_backends_may_change_places_in_one_order() -> None:
    before, _ = made(order_of(backends=[{"name": "a", "url": "http://a"}, {"name": "b", "url": "http://b"}]))
    after, _ = made(order_of(backends=[{"name": "a", "url": "http://b"}, {"name": "b", "url": "http://a"}]), before)
    assert {b.name: b.url for b in after.backends.values()} == {"a": "http://b", "b": "http://a"}


def test_every_conflict_is_told_at_once_with_its_place() -> None:
    before, _ = made(WHOLE)
    found = planned(
        order_of(
            backends=[
                {"name": "second", "url": "http://gpu-1:8000"},
                {"name": "lost", "url": "http://lost", "node": "gpu-7"},
                {"name": "cloudy", "url": "http://169.254.169.254"},
            ],
            pools=[
                {"name": "other", "hosts": ["lab.example.com"], "path_prefix": "/lab"},
            ],
        ),
        before,
    ).problems
    assert {p.path: p.why.split(";")[0] for p in found} == {
        "backends.second.url": "The backend big is at http://gpu-1:8000 already",
        "backends.lost.node": "There is no node 'gpu-7': name it under nodes, or enrol it first.",
        "backends.cloudy.url": found[-1].why,
        "pools.other.hosts": "lab.example.com leads to the pool lab already.",
        "pools.other.path_prefix": "/lab leads to the pool lab already.",
    }
    assert "metadata" in found[-1].why


def test_a_node_that_would_be_removed_cannot_be_run_on() -> None:
    before, _ = made(order_of(nodes=[{"name": "gpu-1"}]))
    order = order_of(backends=[{"name": "big", "url": "http://big", "node": "gpu-1"}])
    (problem,) = planned(order, before, prune=True).problems
    assert problem.why == "The node gpu-1 would be removed: name it under nodes as well."


def test_an_address_is_refused_when_it_is_new_and_not_when_it_stood_there() -> None:
    order = order_of(backends=[{"name": "odd", "url": "http://169.254.7.7"}])
    allowed = planned(order, allow_link_local=True)
    assert allowed.problems == ()
    assert planned(order, allowed.after).problems == ()
    assert len(planned(order).problems) == 1


def test_what_cannot_be_is_left_out_and_the_rest_goes_on() -> None:
    order = order_of(backends=[{"name": "a", "url": "http://a", "node": "none"}, {"name": "a.b", "url": "http://b"}])
    rest = without(order, planned(order).problems)
    assert [entry.backend.name for entry in rest.backends] == ["a.b"]


@pytest.mark.parametrize(
    ("section", "entry", "path", "sentence"),
    [
        ("backends", {"name": "a b", "url": "http://a"}, "backends.a b.name", "cannot be the name of a backend"),
        ("backends", {"name": "a\x1b", "url": "http://a"}, "backends.a\x1b.name", "cannot be the name"),
        ("backends", {"name": "a"}, "backends.a.url", "needs the address"),
        ("backends", {"name": "a", "url": "gpu:8000"}, "backends.a.url", "must begin with http"),
        ("backends", {"name": "a", "url": "http://a", "kind": "vlm"}, "backends.a.kind", "did you mean vllm?"),
        ("backends", {"name": "a", "url": "http://a", "gpu_indices": [0]}, "backends.a.gpu_indices", "on which node"),
        (
            "backends",
            {"name": "a", "url": "http://a", "node": "n", "gpu_indices": [0, 0]},
            "backends.a.gpu_indices",
            "twice",
        ),
        ("backends", {"name": "a", "url": "http://a", "weight": float("nan")}, "backends.a.weight", "A weight is"),
        ("backends", {"name": "a", "url": "http://a", "kv_tokens": 0}, "backends.a.kv_tokens", "from 1 to"),
        ("backends", {"name": "a", "url": "http://a", "models": {"../x": "y"}}, "backends.a.models", "leads out of"),
        ("backends", {"name": "a", "url": "http://a", "labels": {"-": ""}}, "backends.a.labels", "name of a label"),
        ("nodes", {"name": "gpu.1"}, "nodes.gpu.1.name", "cannot be the name of a node"),
        ("nodes", {"name": "n", "note": "a\x00b"}, "nodes.n.note", "control characters"),
        ("pools", {"name": "p", "hosts": ["http://x"]}, "pools.p.hosts", "is not a host name"),
        ("pools", {"name": "p", "path_prefix": "lab"}, "pools.p.path_prefix", "is not the beginning of a path"),
        ("pools", {"name": "p", "path_prefix": "/a/../b"}, "pools.p.path_prefix", "is not the beginning of a path"),
        ("pools", {"name": "p", "path_prefix": "/V1/x"}, "pools.p.path_prefix", "already"),
        ("pools", {"name": "p", "required_models": ["/etc/passwd"]}, "pools.p.required_models", "is a path"),
        ("pools", {"name": "p", "pull": "sometimes"}, "pools.p.pull", "there are auto, never"),
        ("models", {"name": "a/../../b"}, "models.a/../../b.name", "leads out of"),
        ("models", {"name": "http://x/y"}, "models.http://x/y.name", "is a path or an address"),
        ("models", {"name": "m", "capabilities": ["Chat!"]}, "models.m.capabilities", "is not a capability"),
        ("models", {}, "models.1.name", "needs a name"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(
    section: str, entry: dict[str, Any], path: str, sentence: str
) -> None:
    problems = problems_of(**{section: [entry]})
    assert sentence in problems[path]


def test_a_name_twice_is_a_problem() -> None:
    assert "stands here twice" in problems_of(nodes=[{"name": "n"}, {"name": "n"}])["nodes.n.name"]


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcde"), "url": st.sampled_from([f"http://{n}" for n in "vwxyz"])},
        optional={"slots": st.integers(0, 3), "kind": st.sampled_from([*EngineKind]), "enabled": st.booleans()},
    ),
    max_size=4,
    unique_by=(lambda e: e["name"], lambda e: e["url"]),
)


@settings(max_examples=30)
@given(st.lists(st.tuples(ENTRIES, st.booleans()), max_size=5))
def test_every_version_can_be_had_from_the_newest_one_and_the_changes_since(
    orders: list[tuple[list[dict[str, Any]], bool]],
) -> None:
    state, past, versions = NOTHING, {0: document(NOTHING)}, []
    for entries, prune in orders:
        done = planned(order_of(backends=entries), state, prune=prune)
        if done.problems:
            continue
        edit = edit_between(state, done.after, actor="ada", at=1.0)
        if edit is not None:
            state = replace(done.after, version=edit.version)
            past[state.version] = document(state)
            versions.append(Version(edit.version, 1.0, "ada", edit.changes))
    for number, then in past.items():
        assert earlier(document(state), [v for v in versions if v.number > number]) == then
