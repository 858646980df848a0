"""Messages as JSON Schema, as `json_form` reads and writes them. Pure.

What is told has every name, so all are required; what is asked for may leave out each. A message that occurs in both has two
schemas therefore: `Pool`, and `PoolInput`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from forebay_admin.json_form import WHOLE, Field, is_map, is_time, name_of, words_of

Schema = dict[str, Any]

_FORMATS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}
_TIME_NAME = re.compile(r"\b([a-z]\w*)_us\b", re.ASCII)
_TEXT: Schema = {"type": "string", "pattern": r"^[^\u0000]*$"}


class Schemas:
    """Collects the schemas that others refer to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        """`comments`: full name of a message or field → what its .proto says of it."""
        self._comments = comments
        self.found: dict[str, Schema] = {}

    def told(self, message: Any) -> Schema:
        """A reference to the schema of a message in an answer."""
        return self._reference(message, message.name, is_told=True)

    def asked(self, message: Any, fields: Mapping[str, Field]) -> Schema:
        """The schema of a body: those fields of the message."""
        return self._object(message, fields, is_told=False)

    def asked_field(self, field: Field) -> Schema:
        """Of one value in a query or path."""
        return self._single(field, is_told=False)

    def comment(self, name: str) -> str:
        """In the words of JSON, where a time has no _us and what is unspecified is not there."""
        text = _TIME_NAME.sub(r"\1", self._comments.get(name, ""))
        return text.replace("unspecified:", "absent:")

    def _reference(self, message: Any, name: str, *, is_told: bool) -> Schema:
        if name not in self.found:
            self.found[name] = {}  # before its fields, which may refer to it
            fields = {name_of(field): field for field in message.fields}
            self.found[name] = self._object(message, fields, is_told=is_told)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, message: Any, fields: Mapping[str, Field], *, is_told: bool) -> Schema:
        schema: Schema = {
            "type": "object",
            "properties": {name: self._field(field, is_told=is_told) for name, field in fields.items()},
            "additionalProperties": False,
        }
        if is_told and fields:
            schema["required"] = list(fields)
        if text := self.comment(message.full_name):
            schema["description"] = text
        return schema

    def _field(self, field: Field, *, is_told: bool) -> Schema:
        if is_map(field):
            schema: Schema = {"type": "object", "additionalProperties": _TEXT}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, is_told=is_told)}
        else:
            schema = self._single(field, is_told=is_told)
        if not is_told or _may_be_null(field):
            schema = _or_null(schema)
        text = self.comment(field.full_name)
        return {**schema, "description": text} if text else schema

    def _single(self, field: Field, *, is_told: bool) -> Schema:
        if field.message_type is not None:
            name = field.message_type.name if is_told else f"{field.message_type.name}Input"
            return self._reference(field.message_type, name, is_told=is_told)
        if field.enum_type is not None:
            return {"type": "string", "enum": list(words_of(field.enum_type))}
        if is_time(field):
            return {"type": "string", "format": "date-time"}
        if field.type in WHOLE:
            least, most = WHOLE[field.type]
            return {"type": "integer", "format": _FORMATS[field.type], "minimum": least, "maximum": most}
        match field.type:
            case FieldDescriptor.TYPE_BOOL:
                return {"type": "boolean"}
            case FieldDescriptor.TYPE_DOUBLE:
                number: Schema = {"type": "number", "format": "double"}
                return _or_null(number) if is_told and field.is_repeated else number
            case FieldDescriptor.TYPE_BYTES:
                return {"type": "string", "pattern": "^([0-9a-fA-F]{2})*$"}
        return dict(_TEXT)


def _may_be_null(field: Field) -> bool:
    if field.is_repeated:
        return False
    is_number_that_may_be_none = field.type == FieldDescriptor.TYPE_DOUBLE
    return field.has_presence or is_time(field) or field.enum_type is not None or is_number_that_may_be_none


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    wider = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        wider["enum"] = [*schema["enum"], None]
    return wider
