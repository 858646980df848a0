"""The providers that people may sign in with, as their file tells them: read once, before anything starts.

[google]
kind = "google"                          # oidc (the default), google, entra, keycloak
issuer = "https://accounts.google.com"
client_id = "…"
client_secret_file = "/run/secrets/google"
domains = ["example.org"]                # whose people come in; required for google
default_group = "guests"                 # of whom no group of theirs says otherwise
default_limits = { requests_per_minute = 20, tokens_per_minute = 20000, concurrency = 2 }
groups_claim = "groups"                  # keycloak: also realm_access.roles
groups = { "ml-team" = "research" }      # theirs = ours; the first that fits
roles = { "forebay-admins" = "admin" }   # theirs = ours; then the provider decides who is what"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forebay.errors import BadInput, CannotStart
from forebay_admin.people.people import EVERYONE, Role, demand_name

_MOST_LIMIT = 1_000_000_000
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency")


class ProviderKind(StrEnum):
    OIDC = "oidc"
    GOOGLE = "google"
    ENTRA = "entra"
    KEYCLOAK = "keycloak"


_KNOWN = frozenset(
    {
        *(
            "kind",
            "title",
            "issuer",
            "client_id",
            "client_secret_file",
            "scopes",
            "name_claim",
            "groups_claim",
            "groups",
        ),
        *("roles", "domains", "default_group", "default_limits", "link_by_email", "graph_url"),
    }
)


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    """As it stands in addresses: /sign-in/with/<name>"""
    kind: ProviderKind
    title: str
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    """Empty: a public client, which PKCE alone protects."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = ""
    """Which claim is the user's name. Empty: the e-mail address, else preferred_username, else upn."""
    groups_claim: str = "groups"
    groups: Mapping[str, str] = field(default_factory=dict)
    """Theirs → ours, the first that fits."""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """Theirs → ours; with any, roles follow the provider."""
    domains: tuple[str, ...] = ()
    """Whose people come in; none: everybody whom the provider knows."""
    default_group: str = EVERYONE
    default_limits: Mapping[str, int] = field(default_factory=dict)
    """Of the default group, when it is made."""
    link_by_email: bool = False
    """Whether a user that an admin made, and nobody ever signed in as, is whoever has their name as an e-mail address."""
    graph_url: str = "https://graph.microsoft.com/v1.0"
    """Entra: where groups are asked for that were too many for a token."""

    @property
    def is_plain_http(self) -> bool:
        """For a provider on this machine."""
        return self.issuer.startswith("http://")


def read_providers(file: Path | None) -> dict[str, Provider]:
    """By name, in the order of the file. Raises CannotStart with all that is wrong."""
    if file is None:
        return {}
    try:
        told = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CannotStart(f"The file of providers {file} cannot be read: {error}") from error
    found: dict[str, Provider] = {}
    problems: list[str] = []
    for name, values in told.items():
        try:
            found[name] = _provider(name, values, file.parent)
        except BadInput as error:
            problems.append(f"[{name}] {error.message}")
    if problems:
        raise CannotStart("\n  ".join((f"The file of providers {file} has problems:", *problems)))
    return found


def _provider(name: str, told: Any, beside: Path) -> Provider:
    demand_name(name, "A provider's name")
    if not isinstance(told, dict):
        raise BadInput("is not a table.")
    for unknown in told.keys() - _KNOWN:
        raise BadInput(f"{unknown} is not known; there are {', '.join(sorted(_KNOWN))}.")
    kind = _kind(_text(told, "kind", "oidc"))
    issuer = _text(told, "issuer", "")
    _demand_url(issuer, "issuer")
    if kind is ProviderKind.ENTRA and any(word in issuer for word in ("/common", "/organizations", "/consumers")):
        raise BadInput("issuer must be of one tenant: https://login.microsoftonline.com/<tenant id>/v2.0")
    domains = tuple(domain.lower() for domain in _texts(told, "domains"))
    if kind is ProviderKind.GOOGLE and not domains:
        raise BadInput("domains must say whose people come in: everybody has an account at Google.")
    client_id = _text(told, "client_id", "")
    if not client_id:
        raise BadInput("client_id is missing.")
    graph_url = _text(told, "graph_url", "https://graph.microsoft.com/v1.0")
    _demand_url(graph_url, "graph_url")
    default_group = demand_name(_text(told, "default_group", EVERYONE), "default_group")
    default_limits = _limits(told.get("default_limits", {}))
    if default_limits and default_group == EVERYONE:
        raise BadInput(f"default_limits need a default_group of their own: {EVERYONE} has those that admins set.")
    return Provider(
        name=name,
        kind=kind,
        title=_text(told, "title", name),
        issuer=issuer,
        client_id=client_id,
        client_secret=_secret(_text(told, "client_secret_file", ""), beside),
        scopes=tuple(dict.fromkeys(("openid", *(_texts(told, "scopes") or ("profile", "email"))))),
        name_claim=_text(told, "name_claim", ""),
        groups_claim=_text(told, "groups_claim", "groups"),
        groups={theirs: demand_name(ours, f"groups.{theirs}") for theirs, ours in _mapping(told, "groups").items()},
        roles={theirs: _role(ours) for theirs, ours in _mapping(told, "roles").items()},
        domains=domains,
        default_group=default_group,
        default_limits=default_limits,
        link_by_email=_bool(told, "link_by_email"),
        graph_url=graph_url.rstrip("/"),
    )


def _text(told: Mapping[str, Any], name: str, usual: str) -> str:
    value = told.get(name, usual)
    if not isinstance(value, str):
        raise BadInput(f"{name} must be text.")
    return value


def _bool(told: Mapping[str, Any], name: str) -> bool:
    value = told.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false.")
    return value


def _texts(told: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = told.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise BadInput(f"{name} must be a list of texts.")
    return tuple(values)


def _mapping(told: Mapping[str, Any], name: str) -> dict[str, str]:
    values = told.get(name, {})
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise BadInput(f'{name} must be a table such as {{ "theirs" = "ours" }}.')
    return values


def _limits(values: Any) -> dict[str, int]:
    if not isinstance(values, dict):
        raise BadInput("default_limits must be a table.")
    for name, value in values.items():
        if name not in _LIMITS:
            raise BadInput(f"default_limits.{name} is not known; there are {', '.join(_LIMITS)}.")
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_LIMIT:
            raise BadInput(f"default_limits.{name} must be a whole number from 1 to {_MOST_LIMIT}.")
    return values


def _secret(path: str, beside: Path) -> str:
    if not path:
        return ""
    try:
        secret = (beside / path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"client_secret_file {path} cannot be read: {error}") from error
    if not secret:
        raise BadInput(f"client_secret_file {path} is empty.")
    return secret


def _kind(text: str) -> ProviderKind:
    try:
        return ProviderKind(text)
    except ValueError as error:
        raise BadInput(f"kind is one of {', '.join(ProviderKind)}.") from error


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no role; there are {', '.join(Role)}.") from error


def _demand_url(url: str, what: str) -> None:
    """https, or a machine's own address."""
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if (
        not (parts.scheme == "https" or is_local)
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise BadInput(f"{what} must be an address that begins with https:// and has no query.")
