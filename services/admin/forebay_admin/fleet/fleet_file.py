"""A fleet file: YAML in, the message that admin takes and every problem with its line out. Pure.

Nothing in it is code or a secret: only plain values are read, and an engine's own key is named by the file that it is in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from forebay.plain_message import entry_name, plain_of, read_message
from forebay.wire.v1 import fleet_pb2

MOST_BYTES = 1024 * 1024
_MOST_VALUES = 200_000
"""A file whose names for parts of itself unfold into more than this is no fleet."""
_DEEPEST = 8
_KEY_FILE = "bearer_file"
_COLLECTIONS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, slots=True)
class FileProblem:
    path: str
    why: str
    line: int | None


@dataclass(frozen=True, slots=True)
class FleetFile:
    spec: fleet_pb2.FleetSpec
    """What could be read of it."""
    key_files: dict[str, str]
    """Backend → the file with its engine's own key."""
    problems: tuple[FileProblem, ...]
    lines: dict[str, int]
    """Path → the line where it stands."""

    def line_of(self, path: str) -> int | None:
        """Of that path, or of what it is in."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


def read_fleet_file(text: str) -> FleetFile:
    reading = _Reading()
    values = reading.document(text)
    if values is None and not reading.problems:
        reading.problems.append(
            FileProblem("", "The file is empty; it would have nodes, backends, pools or models.", 1)
        )
    key_files = _take_key_files(values, reading)
    spec, misfits = read_message(fleet_pb2.FleetSpec(), values if values is not None else {})
    file = FleetFile(spec, key_files, (), reading.lines)
    told = [FileProblem(misfit.path, misfit.why, file.line_of(misfit.path)) for misfit in misfits]
    return FleetFile(spec, key_files, (*reading.problems, *told), reading.lines)


def write_fleet_file(spec: fleet_pb2.FleetSpec) -> str:
    """YAML that `read_fleet_file` reads as that fleet."""
    text: str = yaml.safe_dump(plain_of(spec), sort_keys=False, allow_unicode=True, width=120)
    return text


def _take_key_files(values: Any, reading: _Reading) -> dict[str, str]:
    backends = values.get("backends") if isinstance(values, dict) else None
    key_files: dict[str, str] = {}
    for number, entry in enumerate(backends if isinstance(backends, list) else (), start=1):
        if not isinstance(entry, dict) or _KEY_FILE not in entry:
            continue
        told, name = entry.pop(_KEY_FILE), entry_name(entry, number)
        if isinstance(told, str) and told:
            key_files[name] = told
        else:
            path = f"backends.{name}.{_KEY_FILE}"
            reading.problem(path, "This is not the name of a file.")
    return key_files


class _Reading:
    """Plain values of YAML nodes, which know their lines."""

    def __init__(self) -> None:
        self.problems: list[FileProblem] = []
        self.lines: dict[str, int] = {}
        self._values = 0

    def document(self, text: str) -> Any:
        if len(text.encode(errors="replace")) > MOST_BYTES:
            self.problems.append(FileProblem("", f"The file is longer than {MOST_BYTES >> 20} MiB.", None))
            return None
        loader = yaml.SafeLoader("")
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            return self._read(root, "", loader, 0) if root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            why = f"This is not YAML: {error.problem or error.context or error}."
            self.problems.append(FileProblem("", why, mark.line + 1 if mark is not None else None))
        except yaml.YAMLError as error:
            self.problems.append(FileProblem("", f"This is not YAML: {' '.join(str(error).split())}.", None))
        except (RecursionError, _TooMuch):
            self.problems.append(FileProblem("", "This is nested too deeply, or unfolds into too much.", None))
        return None

    def problem(self, path: str, why: str) -> None:
        self.problems.append(FileProblem(path, why, self.lines.get(path)))

    def _read(self, node: yaml.Node, path: str, loader: yaml.SafeLoader, depth: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _DEEPEST:
            raise _TooMuch
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self.problem(path, f"{node.tag} is no kind of value that a fleet has.")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path, loader, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._read(item, f"{path}.{_name_in(item, number)}", loader, depth + 1)
                for number, item in enumerate(node.value, start=1)
            ]
        return self._scalar(node, loader)

    def _read_mapping(self, node: yaml.MappingNode, path: str, loader: yaml.SafeLoader, depth: int) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    line = key.start_mark.line + 1
                    self.problems.append(
                        FileProblem(f"{path}.{key.value}".lstrip("."), "This stands here twice.", line)
                    )
                seen.add(key.value)
        loader.flatten_mapping(node)
        values: dict[Any, Any] = {}
        for key, value in node.value:
            name = self._scalar(key, loader) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, Hashable) or name is None:
                line = key.start_mark.line + 1
                self.problems.append(FileProblem(path, "The name of a value is one word.", line))
                continue
            at = f"{path}.{name}".lstrip(".")
            values[name] = self._read(value, at, loader, depth + 1)
            self.lines[at] = key.start_mark.line + 1
        return values

    def _scalar(self, node: yaml.Node, loader: yaml.SafeLoader) -> Any:
        try:
            return loader.construct_object(node)
        except ValueError as error:  # a date that there is not, a number without end
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error


class _TooMuch(Exception):
    """More than a fleet has."""


def _name_in(item: yaml.Node, number: int) -> str:
    if isinstance(item, yaml.MappingNode):
        for key, value in item.value:
            if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode) and key.value == "name":
                return value.value or str(number)
    return str(number)
