"""The compose file as a container engine reads it: variables replaced, shared parts merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
TOOLS = ROOT / "build" / "deploy" / "bin"
"""What `make test-deploy` installs."""

_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def variables() -> dict[str, str]:
    """What may be set in `.env` → what holds where it is not."""
    return dict(_VARIABLE.findall((FOLDER / "compose.yaml").read_text()))


def read_compose(values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """With these values of variables."""
    given = values or {}
    text = _VARIABLE.sub(lambda match: given.get(match[1], match[2]), (FOLDER / "compose.yaml").read_text())
    read: dict[str, Any] = yaml.safe_load(text)
    return read
