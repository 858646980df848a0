"""What `forebay up` itself needs to know of the settings that services will read."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.config import read_file

_DRAIN_S = 30.0  # somebody waits at a terminal; services by themselves give streams ten minutes


@dataclass(frozen=True, slots=True)
class SettingsFile:
    path: Path | None
    """As a child must be told, which works in another folder; None: there is no file."""
    tables: Mapping[str, Any]
    """All that it says."""
    names_engines: bool
    drain_s: float
    """How long a gateway that is told to stop lets requests go on."""
    node: str
    """Under which this machine's own agent reports."""


def read_settings_file(given: Path | None, environ: Mapping[str, str] = os.environ) -> SettingsFile:
    """Of the file given, else of `./forebay.toml` when there is one. Raises BadSettings."""
    tables = read_file(given)
    chosen = given or Path("forebay.toml")
    drain = environ.get("FOREBAY_GATEWAY_DRAIN_S", _table(tables, "gateway").get("drain_s", _DRAIN_S))
    try:
        drain_s = float(drain)
    except (TypeError, ValueError):
        drain_s = _DRAIN_S  # `settings_check` refuses it, together with whatever else is wrong
    return SettingsFile(
        path=chosen.absolute() if chosen.exists() else None,
        tables=tables,
        names_engines=bool(_table(tables, "registry").get("backends")),
        drain_s=drain_s,
        node=str(environ.get("FOREBAY_GPU_AGENT_NODE") or _table(tables, "gpu-agent").get("node") or _host_as_node()),
    )


def _table(tables: Mapping[str, Any], service: str) -> Mapping[str, Any]:
    table = tables.get(service.replace("-", "_"), tables.get(service))
    return table if isinstance(table, Mapping) else {}


def _host_as_node() -> str:
    """The host's name without its domain, as a node may be called."""
    return re.sub(r"[^A-Za-z0-9]+", "-", platform.node().partition(".")[0])[:63].strip("-") or "node"
