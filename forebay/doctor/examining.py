"""Which things are looked at: everything that the settings of some services name, and the machine under them. Settings are
recognised by what they are called (`…_file`, `…_dir`, `…_path`, `…listen`, `…_address`, `…_url`), so new ones are looked at
too."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forebay.config import parse_address, read_settings, unknown_tables
from forebay.doctor import clocks, files, looking, machine, network
from forebay.doctor.certificates import judge_certificate
from forebay.doctor.finding import Finding, Grade
from forebay.errors import BadSettings

_PAIRS = (
    ("tls_cert", "tls_key", None),
    ("internal_cert_file", "internal_key_file", "internal_ca_file"),
    ("nats_cert_file", "nats_key_file", None),
)
"""Names of a certificate's setting, its key's, and that of the authorities that signed it."""
_AUTHORITIES = ("internal_ca_file", "nats_ca_file", "ca_file", "admin_http_ca_file", "gateway_ca_file")


def examine_machine(directories: Sequence[Path] = ()) -> Iterator[Finding]:
    """`directories`: where services write, unless their settings say so."""
    yield machine.judge_python(sys.version_info[:2])
    yield machine.judge_open_files(*looking.open_files())
    memory = looking.memory()
    if memory is not None:
        yield machine.judge_memory(*memory)
    yield clocks.judge_synchronised(looking.is_clock_synchronised())
    yield from _rooms(directories)


def read_all(
    services: Sequence[Any], file: Mapping[str, Any], environ: Mapping[str, str], known: Sequence[str]
) -> tuple[dict[str, Any], list[Finding]]:
    """The settings of each service whose are right, and a finding for each problem. `known`: all services there are."""
    settings: dict[str, Any] = {}
    findings = [
        Finding("settings", "the file", Grade.FAIL, problem, "Mend it: services do not start with it.")
        for problem in unknown_tables(file, known)
    ]
    for service in services:
        try:
            settings[service.name] = read_settings(service.settings, service.name, file=file, environ=environ)
        except BadSettings as error:
            findings += [
                Finding(
                    "settings",
                    service.name,
                    Grade.FAIL,
                    problem,
                    f"services/{service.name}/{service.name}.toml shows every setting.",
                )
                for problem in error.problems
            ]
        else:
            findings.append(Finding("settings", service.name, Grade.OK, "each can be read"))
    return settings, findings


def examine_services(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """`settings` by service. Takes some seconds where peers are silent."""
    now = datetime.now(UTC)
    listeners: dict[str, str] = {}
    running: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    directories: list[Path] = []
    for service, told in settings.items():
        ops = looking.ask_ops(*_near(parse_address(told.ops_listen)))
        if ops is not None and ops.version is not None:
            running[ops.service] = ops.version
        for name, value in _fields(told):
            setting = f"{service}.{name}"
            if isinstance(value, Path):
                yield _path(setting, value)
                if name.endswith(("_dir", "_path")):
                    directories.append(value)
            elif name.endswith("listen") and value:
                listeners[setting] = value
                yield _port(setting, value, service, ops)
            elif not isinstance(value, str) or not value or (name, value) in seen:
                continue
            elif name == "nats_url":
                seen.add((name, value))
                yield from _nats(setting, value)
            elif name.endswith("_address"):
                seen.add((name, value))
                yield from _peers(setting, value, name.removesuffix("_address") in settings)
            elif name == "admin_http_url":
                yield from _clock_of(setting, value)
        yield from _certificates(service, told, now)
        yield from _database(service, told)
    yield from _rooms(directories)
    yield from network.judge_shared_ports(listeners)
    yield from network.judge_versions(version("forebay"), running)


def _fields(settings: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(settings):
        yield field.name, getattr(settings, field.name)


def _path(setting: str, path: Path) -> Finding:
    facts = looking.path_facts(path)
    if setting.endswith("_path"):
        return files.judge_place(setting, str(path), facts)
    if setting.endswith("_dir"):
        return files.judge_directory(setting, str(path), facts, looking.can_be_made(path))
    return files.judge_file(setting, str(path), facts)


def _rooms(directories: Sequence[Path]) -> Iterator[Finding]:
    """One for each file system."""
    for directory in {looking.file_system(path): path for path in reversed(directories)}.values():
        room = looking.room(directory)
        if room is not None:
            yield machine.judge_room(str(directory), *room)


def _port(setting: str, address: str, service: str, ops: looking.Told | None) -> Finding:
    host, port = parse_address(address)
    facts = looking.try_port(host, port)
    if not facts.is_free and ops is not None:
        facts = dataclasses.replace(facts, held_by=ops.service)
    return network.judge_port(setting, address, service, facts)


def _near(address: tuple[str, int]) -> tuple[str, int]:
    """Where one that listens everywhere is asked."""
    host, port = address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def _peers(setting: str, addresses: str, runs_here: bool) -> Iterator[Finding]:
    for address in filter(None, (part.strip() for part in addresses.split(","))):
        try:
            host, port = parse_address(address)
        except ValueError as error:
            yield Finding(
                "addresses", setting, Grade.FAIL, str(error), "Write HOST:PORT; of several, commas between them."
            )
            continue
        took_s, why = looking.reach(host, port)
        yield network.judge_reach(setting, address, took_s, why, runs_here=runs_here)


def _nats(setting: str, urls: str) -> Iterator[Finding]:
    if urls.startswith("memory:"):
        yield Finding("stores", setting, Grade.OK, "the bus inside one process")
        return
    for url in filter(None, (part.strip() for part in urls.split(","))):
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname or "127.0.0.1", parts.port or 4222
        yield from network.judge_nats(setting, f"{host}:{port}", looking.ask_nats(host, port))


def _database(service: str, settings: Any) -> Iterator[Finding]:
    if not hasattr(settings, "database_url"):
        return
    try:
        url = settings.database_url or (
            settings.database_url_file.read_text().strip() if settings.database_url_file else ""
        )
    except OSError:
        return  # told as a file that cannot be read
    setting = f"{service}.{'database_url' if settings.database_url else 'database_url_file'}"
    if not url:
        yield Finding(
            "stores", setting, Grade.FAIL, "no PostgreSQL is named", "Set database_url_file, or DATABASE_URL."
        )
        return
    parts = urlsplit(url)
    address = f"{parts.hostname or 'localhost'}:{parts.port or 5432}"  # not the URL, which has a password in it
    told = looking.ask_postgres(url)
    if isinstance(told, str):
        yield from network.judge_postgres(setting, address, told)
        return
    facts, ahead_s, uncertain_s = told
    yield from network.judge_postgres(setting, address, facts)
    yield clocks.judge_skew(f"PostgreSQL at {address}", ahead_s, uncertain_s)


def _clock_of(setting: str, url: str) -> Iterator[Finding]:
    told = looking.ask_time(url)
    if told is not None:
        yield clocks.judge_skew(f"{setting} ({url})", *told)


def _certificates(service: str, settings: Any, now: datetime) -> Iterator[Finding]:
    for certificate, key, ca in _PAIRS:
        path = getattr(settings, certificate, None)
        if path is not None and os.path.isfile(path):
            paths = [getattr(settings, name, None) if name else None for name in (key, ca)]
            facts = looking.certificate_facts(path, *paths)
            yield judge_certificate(f"{service}.{certificate}", str(path), facts, now)
    for name in _AUTHORITIES:
        path = getattr(settings, name, None)
        if path is not None and os.path.isfile(path):
            yield judge_certificate(f"{service}.{name}", str(path), looking.certificate_facts(path, None, None), now)
