"""Who is told of alerts over HTTP: `[[registry.webhooks]]`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forebay.engine_addresses import refusal
from forebay_registry.alerts.rules import Rule, Severity

_FIELDS = ("name", "url", "secret_file", "severities", "rules")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


USUAL_SEVERITIES = frozenset({Severity.WARNING, Severity.CRITICAL})
ALL_RULES = frozenset(Rule)


@dataclass(frozen=True, slots=True)
class Webhook:
    name: str
    url: str
    secret_file: Path
    severities: frozenset[Severity] = USUAL_SEVERITIES
    rules: frozenset[Rule] = ALL_RULES

    def wants(self, rule: str, severity: Severity) -> bool:
        return rule in self.rules and severity in self.severities


def read_webhooks(tables: Iterable[Mapping[str, Any]], *, allow_link_local: bool) -> tuple[list[Webhook], list[str]]:
    """Those that can be, and what is wrong with the others, a sentence each."""
    found: dict[str, Webhook] = {}
    problems: list[str] = []
    for number, table in enumerate(tables, start=1):
        label = str(table.get("name") or number)
        wrong = _wrong(table, allow_link_local=allow_link_local)
        if table.get("name") in found:
            wrong.append("there are two of this name")
        problems += [f"{label}: {why}" for why in wrong]
        if wrong:
            continue
        severities = frozenset(Severity(word) for word in table.get("severities", ())) or USUAL_SEVERITIES
        rules = frozenset(Rule(word) for word in table.get("rules", ())) or ALL_RULES
        secret = Path(table["secret_file"]).expanduser()
        found[table["name"]] = Webhook(table["name"], table["url"], secret, severities, rules)
    return list(found.values()), problems


def _wrong(table: Mapping[str, Any], *, allow_link_local: bool) -> list[str]:
    problems = [f"{name}: there is no such setting" for name in table if name not in _FIELDS]
    name, url, secret = table.get("name"), table.get("url"), table.get("secret_file")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append("name must be a word of at most 63 letters, digits, dots, hyphens and underscores")
    if not isinstance(secret, str) or not secret:
        problems.append("secret_file must be the path of a file with the key that messages are signed with")
    if (why := _wrong_url(url, allow_link_local=allow_link_local)) is not None:
        problems.append(why)
    for field, words in (("severities", set(Severity)), ("rules", set(Rule))):
        told = table.get(field, [])
        if not isinstance(told, list) or not all(word in words for word in told):
            problems.append(f"{field} must be a list of {', '.join(sorted(words))}")
    return problems


def _wrong_url(url: Any, *, allow_link_local: bool) -> str | None:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        is_one = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        return "url must begin with http:// or https:// and name a host"
    if parts is not None and (parts.username or parts.password):
        return "url must hold no user and password: messages are signed instead"
    return None if allow_link_local else refusal(url)
