"""Plain values into messages and back, with every misfit told where it stands."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.plain_message import nul_place, plain_of, read_message
from forebay.wire.v1.fleet_pb2 import FleetSpec

WHOLE = {
    "nodes": [{"name": "gpu-1", "labels": {"rack": "a"}}],
    "backends": [{"name": "big", "url": "http://x", "gpu_indices": [0, 1], "weight": 1.5, "enabled": False}],
    "pools": [{"name": "lab", "hosts": ["a", "b"], "sticky": False}],
}


def test_what_fits_comes_back_as_it_was() -> None:
    message, problems = read_message(FleetSpec(), WHOLE)
    assert problems == []
    assert plain_of(message) == WHOLE


def test_what_is_not_said_is_not_told_and_zero_is_where_it_differs_from_nothing() -> None:
    message, _ = read_message(FleetSpec(), {"backends": [{"name": "big", "kv_tokens": 0, "slots": 0, "kind": None}]})
    assert plain_of(message) == {"backends": [{"name": "big", "kv_tokens": 0}]}


def test_every_misfit_is_told_with_its_place_and_the_rest_is_read() -> None:
    message, problems = read_message(
        FleetSpec(),
        {
            "backend": [],
            "nodes": "gpu-1",
            "backends": [
                {
                    "name": "big",
                    "slots": -1,
                    "weight": "much",
                    "enabled": "yes",
                    "gpu_indices": [0, "x"],
                    "labels": {"a": 1},
                },
                {"slots": 2**40, "models": ["a"]},
                "big",
            ],
            7: "x",
        },
    )
    assert {p.path: p.why for p in problems} == {
        "backend": "'backend' is not known here; did you mean backends?",
        "nodes": "'gpu-1' is not a list.",
        "backends.big.slots": "-1 is not a number from 0 to 4294967295.",
        "backends.big.weight": "'much' is not a number.",
        "backends.big.enabled": "'yes' is neither true nor false.",
        "backends.big.gpu_indices.2": "'x' is not a whole number.",
        "backends.big.labels.a": "1 is not text; put quotes around it.",
        "backends.2.slots": "1099511627776 is not a number from 0 to 4294967295.",
        "backends.2.models": "['a'] is not a table of names and texts.",
        "backends.3": "'big' is not a table of names and values.",
        "7": "7 is not known here; there are nodes, backends, pools, models.",
    }
    assert plain_of(message) == {"backends": [{"name": "big", "gpu_indices": [0]}, {}, {}]}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["backends", "name", "slots", "labels", "weight"]) | st.integers(), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=30)
@given(PLAIN)
def test_no_value_whatever_breaks_the_reading(values: object) -> None:
    message, problems = read_message(FleetSpec(), values)
    again, none = read_message(FleetSpec(), plain_of(message))
    assert none == []
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert all(problem.why for problem in problems)


def test_a_nul_character_is_found_wherever_it_is() -> None:
    nothing, _ = read_message(FleetSpec(), WHOLE)
    assert nul_place(nothing) == ""
    for values, place in (
        ({"pools": [{"name": "lab"}, {"name": "a\0"}]}, "pools.2.name"),
        ({"pools": [{"name": "lab", "hosts": ["a", "\0b"]}]}, "pools.1.hosts.2"),
        ({"nodes": [{"name": "gpu-1", "labels": {"rack": "a\0"}}]}, "nodes.1.labels.rack"),
        ({"nodes": [{"name": "gpu-1", "labels": {"a\0": "b"}}]}, "nodes.1.labels"),
    ):
        message, problems = read_message(FleetSpec(), values)
        assert problems == []
        assert nul_place(message) == place
