"""Where the API of Kubernetes is and what is watched there: the table `[registry.kubernetes]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forebay.errors import BadInput

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What a pod is given to speak to the API with."""
_FIELDS = {"enabled", "api", "token_file", "ca_file", "namespaces", "selector", "forget_s"}
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ALL_NAMESPACES = "*"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    api: str
    """Without a slash at the end."""
    token_file: Path | None
    """Read again for each call: tokens are renewed."""
    ca_file: Path | None
    """None: a public CA, or no TLS."""
    namespaces: tuple[str, ...]
    """`*` alone: all of them."""
    selector: str
    """Of the Services, and with them of their slices, which carry their labels."""
    forget_s: float
    """How long a backend stays that the cluster does not name any more."""


def read_kubernetes(
    table: Mapping[str, Any], environ: Mapping[str, str], *, account: Path = ACCOUNT
) -> KubernetesSettings | None:
    """None: it is not asked for. In a pod nothing but `enabled = true` is needed. Raises BadInput."""
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise BadInput(f"there is no such setting: {', '.join(unknown)}.")
    if not table.get("enabled", bool(table.get("api"))):
        return None
    api = str(table.get("api", "") or _in_cluster(environ)).rstrip("/")
    parts = urlsplit(api)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(
            "api must be the address of Kubernetes' API (https://HOST:6443); outside of a pod it must be given."
        )
    told = table.get("namespaces", [])
    namespaces = tuple(told) if isinstance(told, list) and told else (_own_namespace(account),)
    if not all(isinstance(n, str) and (n == ALL_NAMESPACES or _NAMESPACE.fullmatch(n)) for n in namespaces):
        raise BadInput("namespaces must be a list of names of namespaces, or ['*'] for all.")
    forget_s = table.get("forget_s", 60.0)
    if isinstance(forget_s, bool) or not isinstance(forget_s, int | float) or forget_s < 0:
        raise BadInput("forget_s must be a number of seconds.")
    return KubernetesSettings(
        api,
        _path(table.get("token_file"), account / "token"),
        _path(table.get("ca_file"), account / "ca.crt") if parts.scheme == "https" else None,
        (ALL_NAMESPACES,) if ALL_NAMESPACES in namespaces else namespaces,
        str(table.get("selector", "forebay.io/backend=true")),
        float(forget_s),
    )


def _in_cluster(environ: Mapping[str, str]) -> str:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else ""


def _own_namespace(account: Path) -> str:
    try:
        return (account / "namespace").read_text().strip() or "default"
    except OSError:
        return "default"


def _path(told: Any, usual: Path) -> Path | None:
    if told:
        return Path(str(told)).expanduser()
    return usual if usual.exists() else None
