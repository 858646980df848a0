"""Where a document breaks a JSON schema, and that neither of them can make it take long or fall over."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from forebay_gateway.canonical.json_schema import (
    MOST_WORK,
    USUAL_WORK,
    BadSchema,
    JsonSchema,
    TooMuchWork,
    compile_schema,
)
from forebay_gateway.canonical.schema_patterns import MOST_WAYS, plain_pattern
from forebay_gateway.canonical.schema_reading import MOST_BYTES, MOST_SCHEMAS

Json = dict[str, Any]
PERSON: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def compiled(schema: Any) -> JsonSchema:
    return compile_schema(orjson.dumps(schema))


def fault(schema: Any, document: Any) -> str:
    return str(compiled(schema).fault_in(document) or "")


# --- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"name": "Ada", "age": 36, "tags": ["a"]}, ""),
        ({"name": "Ada", "age": "36"}, "at `age`: '36' is not of type 'integer'"),
        ({"name": "Ada", "age": 36, "tags": ["a", 3]}, "at `tags[1]`: 3 is not of type 'string'"),
        ({"name": "Ada"}, "'age' is a required property"),
        ({"name": "Ada", "age": 1, "more": 1}, "'more' is not among the properties that it may have"),
        ([{"name": "Ada"}], "[…] is not of type 'object'"),
    ],
)
def test_the_first_fault_is_told_with_its_place(document: Any, told: str) -> None:
    assert fault(PERSON, document) == told


def test_of_alternatives_the_fault_of_the_one_that_fits_furthest_is_told() -> None:
    optional = {"anyOf": [{"type": "null"}, PERSON]}
    assert fault(optional, {"name": "Ada", "age": "x"}) == "at `age`: 'x' is not of type 'integer'"
    assert fault(optional, 3) == "3 is none of what it can be"
    one = {"oneOf": [{"type": "integer"}, {"minimum": 5}]}
    assert [fault(one, 3), fault(one, 5.5), fault(one, 7)] == ["", "", "7 is 2 of the things of which it can be one"]


def test_what_a_document_says_at_length_is_told_in_short() -> None:
    told = fault({"properties": {"a": {"type": "integer"}}}, {"a": "long " * 1000})
    assert told.startswith("at `a`: 'long long ")
    assert len(told) < 150


def test_a_schema_may_refer_to_itself() -> None:
    tree = {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"properties": {"in": {"items": {"$ref": "#/$defs/n"}}, "v": {"type": "null"}}}},
    }
    assert fault(tree, {"in": [{"in": [{"v": None}]}]}) == ""
    assert fault(tree, {"in": [{"in": [{"v": 1}]}]}) == "at `in[0].in[0].v`: 1 is not of type 'null'"


def test_draft_7_is_read_where_a_schema_says_so() -> None:
    pair = {"items": [{"type": "string"}, {"type": "integer"}]}
    old = {"$schema": "http://json-schema.org/draft-07/schema#", **pair}
    assert fault(old, ["a", "b"]) == "at `[1]`: 'b' is not of type 'integer'"
    with pytest.raises(BadSchema, match="items"):
        compiled(pair)


def test_numbers_and_flags_are_what_they_are_in_json() -> None:
    unique = {"uniqueItems": True}
    assert fault(unique, [1, True, "1", [1], {"a": 1}]) == ""
    assert fault(unique, [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]) == "[…] has the same item twice"
    assert fault({"type": "integer"}, 1.0) == ""
    assert fault({"enum": [1]}, True) == "True is not one of […]"


# --- schemas that are none -------------------------------------------------------------------------------------------

BAD: list[tuple[Any, str, str]] = [
    ({"type": "strin"}, "type", "'strin' is not valid"),
    ({"properties": {"a": {"type": 3}}}, "properties.a.type", "3 is not valid"),
    ({"items": {"$ref": "#/$defs/none"}}, "items.$ref", "there is nothing at '#/$defs/none'"),
    ({"anyOf": [{"$ref": "http://127.0.0.1:1/x"}]}, "anyOf[0].$ref", "not within the schema, and nothing is fetched"),
    ({"properties": {"a": {"$ref": "other.json"}}}, "properties.a.$ref", "not within the schema"),
    ({"description": "x" * MOST_BYTES}, "", "no more than 65536 can be checked"),
    ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "$ref", "only the way is followed here, such as `#/$defs/x`"),
    ({"items": {"$dynamicRef": "#a"}}, "items.$dynamicRef", "cannot be followed here; use `$ref`"),
    ({"items": {"$id": "b", "items": {"$ref": "#"}}}, "items.items.$ref", "an `$id` of its own"),
    ({"$ref": "#/x/0", "x": [{"$id": "b", "items": {"$ref": "#"}}]}, "x[0].items.$ref", "an `$id` of its own"),
    (
        {"$ref": "#/x/y", "x": {"y": {"minLength": -1}}},
        "x.y.minLength",
        "-1 is not valid: it must be a number of things",
    ),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": 3}, "$ref", "3 is not valid: it must be a string"),
    ({"allOf": []}, "allOf", "[] is not valid: it must be a list of schemas"),
    ({"required": ["a", "a"]}, "required", "a list of names, each of them once"),
    ({"allOf": [{}] * MOST_SCHEMAS}, "", "more than 2000 schemas"),
    ({"allOf": [True] * MOST_SCHEMAS + [{"type": 3}]}, "", "more than 2000 schemas"),
]


@pytest.mark.parametrize(("schema", "path", "why"), BAD)
def test_a_schema_that_cannot_be_used_is_refused_with_the_place(schema: Any, path: str, why: str) -> None:
    with pytest.raises(BadSchema) as refused:
        compiled(schema)
    assert refused.value.path == path
    assert why in refused.value.why


def test_one_that_is_too_deep_is_refused() -> None:
    deep: Json = {}
    for _ in range(70):
        deep = {"items": deep}
    with pytest.raises(BadSchema, match="deeper than 64"):
        compiled(deep)
    with pytest.raises(BadSchema, match="deeper than 64"):
        compile_schema(b'{"items":' * 2000 + b"{}" + b"}" * 2000)


def cpu_s(work: Callable[[], object]) -> float:
    """The least of three times: in one of them, the collector may go through all that is loaded."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(3))


CHAIN: Json = {"$defs": {f"d{at}": {"$anchor": f"a{at}", "$ref": f"#a{at + 1}"} for at in range(1500)}}
WIDE: list[tuple[str, Any]] = [
    ("anchors", CHAIN),
    ("empty", {"allOf": [{}] * 20_000}),
    ("most", {"allOf": [{"$ref": f"#/allOf/{at + 1}"} for at in range(MOST_SCHEMAS - 2)] + [{}]}),
    ("names", {"required": [f"{at}" for at in range(8_000)]}),
    ("values", {"enum": [[at] for at in range(7_000)]}),
    ("patterns", {"patternProperties": {f"^{at}[a-z]{{1,9}}$": {} for at in range(MOST_SCHEMAS - 1)}}),
    ("way", {"allOf": [{"$ref": "#" + "/a" * 30_000}]}),
]


@pytest.mark.parametrize("schema", [schema for _, schema in WIDE], ids=[name for name, _ in WIDE])
def test_the_largest_schema_is_read_soon(schema: Any) -> None:
    def read() -> None:
        with contextlib.suppress(BadSchema):
            compiled(schema)

    assert cpu_s(read) < 0.25


def test_a_schema_within_that_calls_itself_older_is_as_bounded_as_the_rest() -> None:
    inner = {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}
    document = {"a": "a" * 40 + "b"}
    assert fault({"properties": {"a": inner}}, document) == ""
    assert cpu_s(lambda: fault({"properties": {"a": inner}}, document)) < 0.1


def test_a_property_may_be_called_like_a_reference() -> None:
    assert fault({"properties": {"$ref": {"type": "string"}}}, {"$ref": "http://x"}) == ""


# --- what it may take ------------------------------------------------------------------------------------------------


def doubling(levels: int) -> Json:
    steps = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{levels}": {"type": "null"}}}


KINDS = ["array", "boolean", "integer", "null", "number", "object"]
ALIKE = [[(-1, -2)[at >> bit & 1] for bit in range(14)] for at in range(1 << 14)]
"""Python keeps all of them at the same place of a set."""
COUNTED = {f"{at}": 1 for at in range(3000)}
GREEDY: list[tuple[Any, Any]] = [
    (doubling(60), 1),
    ({"$ref": "#"}, 1),
    ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
    ({"items": {"enum": list(range(2000))}}, [-1.5] + list(range(2000)) * 5),
    ({"anyOf": [{"items": {"not": {}}}] * 200}, [[]] * 2000),
    ({"items": {"anyOf": [{"maxLength": 1}] * 500}}, ["x" * 100_000] * 50),
    ({"anyOf": [{"enum": ["b"]}] * 1900}, "\n" * 1_000_000),
    ({"anyOf": [{"enum": ["b"]}] * 1900}, {"x" * 500_000: "\u2028" * 1000}),
    ({"anyOf": [{"const": ["b"]}] * 1900}, [[]] * 100),
    ({"anyOf": [{"uniqueItems": True, "minItems": 1 << 20}] * 300}, ALIKE),
    ({"anyOf": [{"uniqueItems": True, "minItems": 1 << 20}] * 300}, [0.1 * at for at in range(30_000)]),
    ({"items": {"dependentRequired": {f"{at}": ["0"] for at in range(3000)}}}, [COUNTED] * 50),
    ({"items": {"required": [*COUNTED, "none"]}}, [{**COUNTED, "none": 1}] * 500),
    ({"items": {"properties": dict.fromkeys([*COUNTED][:1900], True)}}, [{}] * 20_000),
    ({"items": {"not": {"not": {"type": KINDS}}}}, [1] * 100_000),
    ({"items": {"anyOf": [{"pattern": "[a-z]{90}b"}] * 300}}, ["a" * 1000] * 300),
    ({"items": {"anyOf": [{"pattern": "a{999}a{999}a{999}b"}] * 300}}, ["a" * 5000] * 300),
    ({"items": {"anyOf": [{"pattern": "[^b]*[^b]*c"}] * 300}}, ["a" * 300] * 300),
    ({"patternProperties": {f"^{at}[a-z]{{1,9}}$": {} for at in range(1900)}}, {"q": 1}),
]


@pytest.mark.parametrize(("schema", "document"), GREEDY)
def test_what_would_take_too_long_is_given_up(schema: Any, document: Any) -> None:
    """On a machine of no great strength, 20 ms and half a second; here, with room for a busy one."""
    judge = compiled(schema)
    for most_work, most_s in ((USUAL_WORK, 0.04), (MOST_WORK, 0.75)):

        def judge_it(most_work: int = most_work) -> None:
            with contextlib.suppress(TooMuchWork):
                judge.fault_in(document, most_work)

        assert cpu_s(judge_it) < most_s


def test_a_long_list_is_judged_when_more_work_is_allowed() -> None:
    people = {"items": PERSON}
    document = [{"name": "Ada", "age": 1}] * 3000
    with pytest.raises(TooMuchWork):
        compiled(people).fault_in(document)
    assert compiled(people).fault_in(document, MOST_WORK) is None


TERRIBLE = ["(a+)+$", "^(a|a)*$", "(.*)*x", "^(?=a)", r"(a)\1", "a++", "a+?", "x" * 1000, "[a--b]+", "[[:alpha:]]"]


@pytest.mark.parametrize("pattern", TERRIBLE)
def test_patterns_that_may_take_for_ever_are_not_tried(pattern: str) -> None:
    assert plain_pattern(pattern) is None
    assert fault({"pattern": pattern}, "a" * 5000 + "b") == ""


@pytest.mark.parametrize(
    ("pattern", "kept", "broken"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2026-01-02", "2026-01-02\n"),
        ("^[A-Z]{2,3}$", "ABC", "ABCD"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]+$", "ada@example.org", "ada at example"),
        ("colou?r", "the color", "the colr"),
        (r"^[\w.\-]*$", "a.b-c", "a/b"),
        (r"^\d+$", "12", "٣"),
    ],
)
def test_plain_patterns_are_tried(pattern: str, kept: str, broken: str) -> None:
    assert fault({"pattern": pattern}, kept) == ""
    assert "does not match" in fault({"pattern": pattern}, broken)


def test_a_plain_pattern_is_not_tried_on_a_text_that_is_long_for_it() -> None:
    plain = plain_pattern("a*a*a*b")
    assert plain is not None
    assert plain.ways("a" * 10) < MOST_WAYS < plain.ways("a" * 40)
    assert fault({"pattern": "a*a*a*b"}, "a" * 5000) == ""


def test_a_property_that_a_pattern_may_mean_is_not_one_too_many() -> None:
    schema = {"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}
    assert fault(schema, {"x-a": 1}) == ""
    assert fault(schema, {"x-a": "1"}) == "at `x-a`: '1' is not of type 'integer'"
    assert "'y' is not among" in fault(schema, {"y": 1})
    assert fault({"patternProperties": {"(y+)+": {}}, "additionalProperties": False}, {"z": 1}) == ""


# --- whatever comes --------------------------------------------------------------------------------------------------

KEYS = ("a", "b", "$ref", "x-y")
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text("ab1$", max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
COUNTS = st.integers(0, 4)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    named, listed = st.dictionaries(st.sampled_from(KEYS), inner, max_size=3), st.lists(inner, min_size=1, max_size=3)
    kinds = st.sampled_from(("object", "array", "string", "integer", "number", "boolean", "null"))
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=2, unique=True),
            "properties": named,
            "patternProperties": st.dictionaries(st.sampled_from(("^a", "(a+)+$", "b*b*", "[")), inner, max_size=2),
            "additionalProperties": inner,
            "required": st.lists(st.sampled_from(KEYS), unique=True, max_size=2),
            "items": inner,
            "prefixItems": listed,
            "contains": inner,
            "uniqueItems": st.booleans(),
            "anyOf": listed,
            "oneOf": listed,
            "allOf": listed,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "enum": st.lists(DOCUMENTS, min_size=1, max_size=3),
            "const": DOCUMENTS,
            "minimum": COUNTS,
            "multipleOf": st.floats(1e-300, 10),
            "maxLength": COUNTS,
            "minItems": COUNTS,
            "pattern": st.sampled_from(("^a", "(a+)+$", "a*a*b", "[", "\\d+")),
            "$ref": st.sampled_from(("#", "#/$defs/s", "#/properties/a", "#/anyOf/0")),
            "$defs": st.fixed_dictionaries({"s": inner}),
            "unevaluatedProperties": inner,
            "dependentSchemas": named,
            "$id": st.sampled_from(("http://x/y", "z")),
        },
    )


SCHEMAS: st.SearchStrategy[Any] = st.recursive(st.booleans() | st.just({}), _objects, max_leaves=8).filter(
    lambda s: isinstance(s, dict)
)


def ending(schema: Any, document: Any) -> str:
    """In one word, how judging ends."""
    try:
        judge = compiled(schema)
    except BadSchema as error:
        return "refused" if error.why else ""
    try:
        found = judge.fault_in(document)
    except TooMuchWork:
        return "given up"
    return "kept" if found is None else "broken" if found.why else ""


@settings(suppress_health_check=list(HealthCheck))
@given(SCHEMAS, DOCUMENTS)
def test_whatever_comes_it_ends_soon_and_in_one_of_four_ways(schema: Any, document: Any) -> None:
    began = time.thread_time()
    assert ending(schema, orjson.loads(orjson.dumps(document))) in ("refused", "given up", "kept", "broken")
    assert time.thread_time() - began < 2.0


ORACLES = (Draft202012Validator, Draft7Validator)
_UNLIKE = ("pattern", "patternProperties", "unevaluatedProperties", "$id")
"""Where ours leaves more to the engine, or follows less."""


def _without(schema: Any, names: tuple[str, ...]) -> Any:
    if isinstance(schema, dict):
        return {name: _without(inner, names) for name, inner in schema.items() if name not in names}
    return [_without(inner, names) for inner in schema] if isinstance(schema, list) else schema


@settings(suppress_health_check=list(HealthCheck))
@given(SCHEMAS, DOCUMENTS, st.sampled_from(ORACLES))
def test_what_is_kept_and_what_is_broken_is_what_another_says(schema: Any, document: Any, oracle: Any) -> None:
    schema = orjson.loads(orjson.dumps({**_without(schema, _UNLIKE), "$schema": oracle.META_SCHEMA["$schema"]}))
    document = orjson.loads(orjson.dumps(document))
    found = ending(schema, document)
    assume(found in ("kept", "broken"))
    try:
        expected = oracle(schema).is_valid(document)
    except (RecursionError, ArithmeticError):
        return
    assert (found == "kept") == expected


LEAVES: st.SearchStrategy[Any] = st.none() | st.integers() | st.text(max_size=5)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))


@settings(deadline=None, max_examples=30)
@given(ANYTHING)
def test_whatever_is_sent_as_a_schema_it_is_taken_or_refused(sent: Any) -> None:
    try:
        schema = orjson.dumps({"$defs": sent, "properties": sent})
    except TypeError:  # texts and numbers that JSON cannot hold
        return
    assert ending(orjson.loads(schema), {"a": 1}) in ("refused", "given up", "kept", "broken")


@given(
    st.from_regex(r"\^?([ab.]|\[ab\]|\\d)([*+?]|\{1,3\})?([ab.]|\[ab\])([*+?]|\{2\})?\$?", fullmatch=True),
    st.text("ab1", max_size=30),
)
def test_a_plain_pattern_is_found_where_pythons_own_is_and_in_the_ways_that_were_said(pattern: str, text: str) -> None:
    plain = plain_pattern(pattern)
    assert plain is not None
    assert plain.is_in(text) == (re.search(pattern, text, re.ASCII) is not None)
    assert 1 <= plain.ways(text) < math.inf
