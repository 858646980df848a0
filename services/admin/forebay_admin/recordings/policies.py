"""Of whose requests what is kept: a key says so itself, or the innermost group that says something, or what is said of
everybody. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from forebay.errors import BadInput
from forebay_admin.keys.key_terms import AuditPolicy

EVERYBODY = ""
USUAL_PERMILLE = 100
"""Of samples, where nobody said how many."""


@dataclass(frozen=True, slots=True)
class Policy:
    audit: AuditPolicy
    permille: int = USUAL_PERMILLE


def of_group(group_id: str, policies: Mapping[str, Policy], parents: Mapping[str, str | None]) -> Policy | None:
    """`policies`: by group, EVERYBODY among them. `parents`: the group around each. None: nobody says anything."""
    seen: set[str] = set()
    at: str | None = group_id
    while at is not None and at not in seen:
        if at in policies:
            return policies[at]
        seen.add(at)
        at = parents.get(at)
    return policies.get(EVERYBODY)


def groups_within(group_id: str, parents: Mapping[str, str | None]) -> Collection[str]:
    """It, and all groups within it; for EVERYBODY all there are."""
    if group_id == EVERYBODY:
        return set(parents)
    return {one for one in parents if group_id in _around(one, parents)}


def demand_permille(permille: int) -> int:
    """0 is the usual. Raises BadInput."""
    if permille > 1000:
        raise BadInput(f"Of a thousand requests no {permille} can be kept.")
    return permille or USUAL_PERMILLE


def _around(group_id: str, parents: Mapping[str, str | None]) -> set[str]:
    found: set[str] = set()
    at: str | None = group_id
    while at is not None and at not in found:
        found.add(at)
        at = parents.get(at)
    return found
