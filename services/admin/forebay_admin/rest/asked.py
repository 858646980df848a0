"""What was asked of an address: its path, query and body as the message that the call takes. Pure.

All that does not fit is told at once, each with its place, such as `window.begins_at`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from forebay.errors import BadInput
from forebay.plain_message import Problem, unknown_name
from forebay_admin.json_form import WHOLE, Field, is_map, is_time, name_of, read
from forebay_admin.rest.routes import Route

ACTOR = "actor"
"""Who asks is said by the key, and by nothing else."""

_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class BadFields(BadInput):
    """Some of this request does not fit."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" ({len(self.problems) - 1} more below)" if len(self.problems) > 1 else ""
        super().__init__(f"{first.path}: {first.why}{more}" if first.path else first.why)


def is_said(route: Route, place: str) -> bool:
    """Whether the address says this field, or some of it, by itself."""
    said = (ACTOR, *route.fixed, *placed(route).values(), *(route.pages.said if route.pages is not None else ()))
    return any(one == place or one.startswith(f"{place}.") for one in said)


def placed(route: Route) -> dict[str, str]:
    """Placeholder of the path → field."""
    names = re.findall(r"{(\w+)}", route.path)
    return {name: route.places.get(name, name) for name in names}


def queried(route: Route, descriptor: Any) -> dict[str, Field]:
    """What the query of this address may say: the fields of the request, those of its parts after a dot."""
    return {} if route.has_body else dict(_leaves(route, descriptor, ""))


def bodied(route: Route, descriptor: Any) -> tuple[Any, dict[str, Field]]:
    """The message that the body is, and which of its fields it may say."""
    inside = descriptor.fields_by_name[route.body].message_type if route.body else descriptor
    prefix = f"{route.body}." if route.body else ""
    return inside, {name_of(f): f for f in inside.fields if not is_said(route, f"{prefix}{f.name}")}


def assemble(
    route: Route, into: Message, path: Mapping[str, str], query: Iterable[tuple[str, str]], body: bytes | None
) -> None:
    """Raises BadFields. `into`: an empty request. `query`: without what is about pages."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    problems += _take_query(route, into.DESCRIPTOR, query, values)
    problems += _take_body(route, into.DESCRIPTOR, body, values)
    for name, place in placed(route).items():
        _put(values, place, path[name])
    inside = f"{route.body}." if route.body else ""
    problems += [Problem(one.path.removeprefix(inside), one.why) for one in read(into, values)]
    if problems:
        raise BadFields(problems)
    for name, value in route.fixed.items():
        setattr(into, name, value)


def read_json(body: bytes) -> Any:
    """Raises BadInput: also for a name that stands twice in one object, and for what JSON does not have."""
    try:
        return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise BadInput("The body is nested too deeply.") from error
    except UnicodeDecodeError as error:
        raise BadInput("The body is not UTF-8.") from error
    except ValueError as error:
        raise BadInput(f"The body is not JSON: {error}") from error


def _take_query(
    route: Route, descriptor: Any, query: Iterable[tuple[str, str]], values: dict[str, Any]
) -> list[Problem]:
    known = queried(route, descriptor)
    problems = []
    for name, text in query:
        field = known.get(name)
        if field is None:
            problems.append(Problem(name, unknown_name(name, known) if known else "Nothing is known here."))
            continue
        try:
            value = _from_text(field, text)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            continue
        if field.is_repeated:
            _listed(values, name).append(value)
        elif not _put(values, name, value):
            problems.append(Problem(name, "This stands here twice."))
    return problems


def _take_body(route: Route, descriptor: Any, body: bytes | None, values: dict[str, Any]) -> list[Problem]:
    if not body:
        return []
    if not route.has_body:
        raise BadInput(f"A {route.verb} has no body; what it says stands in the query.")
    told = read_json(body)
    if not isinstance(told, dict):
        raise BadInput("The body is not an object.")
    _, known = bodied(route, descriptor)
    problems = [Problem(name, unknown_name(name, known)) for name in told if name not in known]
    fitting = {name: value for name, value in told.items() if name in known}
    if not route.body:
        values.update(fitting)
    elif fitting:
        values[route.body] = fitting
    return problems


def _leaves(route: Route, descriptor: Any, prefix: str) -> Iterable[tuple[str, Field]]:
    for field in descriptor.fields:
        if is_said(route, f"{prefix}{field.name}"):
            continue
        if field.message_type is None:
            yield f"{prefix}{name_of(field)}", field
        elif not field.is_repeated and not is_map(field):
            yield from _leaves(route, field.message_type, f"{prefix}{field.name}.")


def _put(values: dict[str, Any], place: str, value: Any) -> bool:
    """False when something stands there already."""
    *outer, last = place.split(".")
    for name in outer:
        values = values.setdefault(name, {})
    if last in values:
        return False
    values[last] = value
    return True


def _listed(values: dict[str, Any], place: str) -> list[Any]:
    *outer, last = place.split(".")
    for name in outer:
        values = values.setdefault(name, {})
    found: list[Any] = values.setdefault(last, [])
    return found


def _from_text(field: Field, text: str) -> Any:
    """A value of the query as JSON would have it. Raises ValueError."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            raise ValueError(f"{text[:60]!r} is neither true nor false.")
        return text == "true"
    if field.type in WHOLE and not is_time(field):
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"{text[:60]!r} is not a whole number.")
        return int(text)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{text[:60]!r} is not a number.")
        return float(text)
    return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
