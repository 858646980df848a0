"""Settings: one frozen dataclass per service, read once from `forebay.toml`, then the environment, then flags.

Each field is a setting: its default works on a laptop and the string under it is its documentation. Environment names are
FOREBAY_<SERVICE>_<FIELD>; a field may also honour a name that the world already uses (`setting(alias="NATS_URL")`).
A class may check what its fields mean together by raising ValueError in `__post_init__`.
Every problem is reported at once, before anything starts. Secrets are paths to files."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from forebay.errors import BadSettings, CannotStart

T = TypeVar("T")

_FOR_COMMANDS = {"FOREBAY_ADMIN_CA"}
"""What commands read: no setting of a service, though it begins like one."""
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def setting(default: Any = dataclasses.MISSING, *, alias: str | None = None) -> Any:
    """A field that also reads the environment variable `alias`, which wins over the file and loses to
    FOREBAY_<SERVICE>_<FIELD>."""
    return dataclasses.field(default=default, metadata={"alias": alias} if alias else {})


def read_file(path: Path | None) -> dict[str, Any]:
    """The tables of a `forebay.toml`; without a path, of the one in the working directory if there is one."""
    chosen = path or Path("forebay.toml")
    if path is None and not chosen.exists():
        return {}
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark before the text
    except OSError as error:
        raise BadSettings([f"{chosen} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise BadSettings([f"{chosen} is not valid TOML: it is not text in UTF-8 ({error.reason})"]) from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings([f"{chosen} is not valid TOML: {error}"]) from error


def read_settings(
    cls: type[T],
    service: str,
    *,
    file: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
) -> T:
    """The settings of one service. `file` holds the whole file's tables, `flags` maps field names to text.
    Raises BadSettings with every problem found."""
    table = file.get(service.replace("-", "_"), file.get(service, {}))
    problems: list[str] = []
    if not isinstance(table, Mapping):
        raise BadSettings([f"[{service}] in the configuration file must be a table"])
    flags = flags or {}
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            problems.append(f"[{service}] {name}: there is no such setting{_did_you_mean(name, fields)}")
    for name in flags:
        if name not in fields:
            problems.append(f"--set {service}.{name}: there is no such setting{_did_you_mean(name, fields)}")
    prefix = f"FOREBAY_{service.replace('-', '_').upper()}_"
    for name in environ:
        if name in _FOR_COMMANDS:
            continue
        if name.startswith(prefix) and name.removeprefix(prefix).lower() not in fields:
            problems.append(
                f"{name}: there is no such setting{_did_you_mean(name.removeprefix(prefix).lower(), fields)}"
            )
    values: dict[str, Any] = {}
    is_whole = True
    for name, field in fields.items():
        given = _find(name, field, prefix, table, environ, flags, service)
        if given is None:
            if not _has_default(field):
                is_whole = False
                problems.append(f"{prefix}{name.upper()} is required ([{service}] {name} in the file)")
            continue
        where, raw = given
        try:
            values[name] = _parse(hints[name], raw)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            is_whole = is_whole and _has_default(field)
    made = None
    if is_whole:  # what the class itself finds is told together with the rest
        try:
            made = cls(**values)
        except BadSettings as error:
            problems += error.problems
        except ValueError as error:
            problems.append(f"[{service}] {error}")
    if made is None or problems:
        raise BadSettings(problems)
    return made


def unknown_tables(file: Mapping[str, Any], services: Iterable[str]) -> list[str]:
    """What is wrong with the names of a file's tables: each must be that of a service."""
    known = {name.replace("-", "_"): name for name in services}
    return [
        f"[{table}]: there is no such service{_did_you_mean(table.replace('-', '_'), known)}"
        for table in file
        if table.replace("-", "_") not in known
    ]


def read_secret(path: Path) -> bytes:
    """The bytes of a secret file without its trailing newline; CannotStart says which file is missing or empty."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise CannotStart(f"The secret file {path} cannot be read: {error.strerror}.") from error
    if not secret:
        raise CannotStart(f"The secret file {path} is empty.")
    return secret


def parse_address(text: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` → (host, port). Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or "/" in host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _find(
    name: str,
    field: dataclasses.Field[Any],
    prefix: str,
    table: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    service: str,
) -> tuple[str, Any] | None:
    if name in flags:
        return f"--set {service}.{name}", flags[name]
    variable = prefix + name.upper()
    if variable in environ:
        return variable, environ[variable]
    alias = field.metadata.get("alias")
    if alias and environ.get(alias):
        return alias, environ[alias]
    if name in table:
        return f"[{service}] {name}", table[name]
    return None


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _parse(hint: Any, raw: Any) -> Any:
    """The value of type `hint` that `raw`, a TOML value or text, stands for. Raises ValueError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None or raw == "":
            return None
        return _parse(next(a for a in args if a is not type(None)), raw)
    if origin is tuple:
        items = [i.strip() for i in raw.split(",") if i.strip()] if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple):
            raise ValueError(f"{raw!r} is not a list")
        return tuple(_parse(args[0], item) for item in items)
    if origin is dict or hint is dict:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{raw!r} is not a table")
        return dict(raw)
    if hint is bool:
        return _parse_bool(raw)
    if hint is Path:
        if not isinstance(raw, str | Path) or not str(raw):
            raise ValueError(f"{raw!r} is not a path")
        return Path(raw).expanduser()
    if hint in (int, float):
        return _parse_number(hint, raw)
    if hint is str:
        if not isinstance(raw, str):
            raise ValueError(f"{raw!r} is not text")
        return raw
    raise ValueError(f"a setting of type {hint} cannot be read")


def _parse_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"{raw!r} is neither true nor false")


def _parse_number(hint: type[int] | type[float], raw: Any) -> int | float:
    kind = "a whole number" if hint is int else "a number"
    if isinstance(raw, bool) or (hint is int and isinstance(raw, float)):
        raise ValueError(f"{raw!r} is not {kind}")  # Python would take true for 1 and cut 2.5 to 2
    try:
        number = hint(raw)
    except (TypeError, ValueError):
        raise ValueError(f"{raw!r} is not {kind}") from None
    if math.isnan(number):
        raise ValueError(f"{raw!r} is not {kind}")
    if number < 0:
        raise ValueError(f"{raw!r} is below zero")
    return number


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
