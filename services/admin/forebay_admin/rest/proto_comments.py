"""What .proto files say of their messages and fields. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

_MESSAGES, _SERVICES = 4, 6  # numbers of these fields in FileDescriptorProto
_FIELDS, _NESTED, _METHODS = 2, 3, 2  # in DescriptorProto, and in ServiceDescriptorProto


def comments_of(compiled: FileDescriptorSet) -> dict[str, str]:
    """Full name → its comment, the one above and the one beside it in one line. The set must have been made with
    `--include_source_info`."""
    found: dict[str, str] = {}
    for file in compiled.file:
        for place in file.source_code_info.location:
            text = " ".join(f"{place.leading_comments} {place.trailing_comments}".split())
            name = _name(file, place.path)
            if text and name:
                found[name] = text
    return found


def _name(file: FileDescriptorProto, path: Sequence[int]) -> str | None:
    match list(path):
        case [kind, at, *rest] if kind == _MESSAGES:
            return _within(file.message_type[at], file.package, rest)
        case [kind, at, inside, method] if kind == _SERVICES and inside == _METHODS:
            service = file.service[at]
            return f"{file.package}.{service.name}.{service.method[method].name}"
    return None


def _within(message: DescriptorProto, outside: str, path: Sequence[int]) -> str | None:
    name = f"{outside}.{message.name}"
    match list(path):
        case []:
            return name
        case [inside, at] if inside == _FIELDS:
            return f"{name}.{message.field[at].name}"
        case [inside, at, *rest] if inside == _NESTED:
            return _within(message.nested_type[at], name, rest)
    return None
