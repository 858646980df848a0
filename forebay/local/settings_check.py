"""The settings of all services, looked at before anything starts. Each service would find its own problems, but one by one,
late, and in a log of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from forebay.config import read_settings, unknown_tables
from forebay.errors import BadSettings, CannotStart

Told = Sequence[tuple[str, Mapping[str, str]]]
"""For each service the variables that `forebay up` gives it. They win over the environment and over the file."""


def demand_good_settings(tables: Mapping[str, Any], environ: Mapping[str, str], told: Told) -> None:
    """`tables` are those of the settings file. Raises BadSettings with the problems of all services."""
    if not tables and not any(name.startswith(_prefix(service)) for service, _ in told for name in environ):
        return  # what only we say is right: no need to load the services
    known = {entry.name: entry for entry in entry_points(group="forebay.services")}
    problems = unknown_tables(tables, known)
    for service, variables in told:
        try:
            settings = known[service].load().settings
            read_settings(settings, service, file=tables, environ={**environ, **variables})
        except BadSettings as error:
            problems += error.problems
        except ModuleNotFoundError as error:
            raise CannotStart(f"{error.name} is not installed here: pip install 'forebay[{service}]'.") from error
    if problems:
        raise BadSettings(list(dict.fromkeys(problems)))  # two gateways have the same ones


def without_effect(tables: Mapping[str, Any], environ: Mapping[str, str], told: Told) -> list[str]:
    """The names of settings that somebody has given and `forebay up` decides otherwise."""
    found = []
    for service, variables in told:
        table = tables.get(service.replace("-", "_"), tables.get(service, {}))
        values = {name.removeprefix(_prefix(service)).lower(): value for name, value in variables.items()}
        if "database_url_file" in values:
            values["database_url"] = ""  # the file wins
        for field, value in sorted(values.items()):
            variable = _prefix(service) + field.upper()
            if str(table.get(field, value)) != value:
                found.append(f"[{service}] {field}")
            if environ.get(variable, value) != value:
                found.append(variable)
    return list(dict.fromkeys(found))


def _prefix(service: str) -> str:
    return f"FOREBAY_{service.replace('-', '_').upper()}_"
