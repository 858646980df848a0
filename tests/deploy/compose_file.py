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


def read_compose(values: Mapping[str, str] | None = None, *over: str) -> dict[str, Any]:
    """With these values of variables, and these files laid over it."""
    read: dict[str, Any] = {}
    for name in ("compose.yaml", *over):
        text = _VARIABLE.sub(lambda match: (values or {}).get(match[1], match[2]), (FOLDER / name).read_text())
        read = _laid_over(read, yaml.safe_load(text))
    return read


def _laid_over(below: Any, above: Any, key: str = "") -> Any:
    """As the specification has files merged, so far as files here need it."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {name: _laid_over(below.get(name), value, name) for name, value in above.items()}
    if isinstance(below, list) and isinstance(above, list) and key not in ("command", "entrypoint"):
        return below + above
    return above
