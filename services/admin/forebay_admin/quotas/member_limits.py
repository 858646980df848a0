"""What a new user of a group starts with: limits, and budgets of their own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from forebay.errors import BadInput
from forebay_admin.people.groups import Group, ancestors
from forebay_admin.quotas.periods import Period
from forebay_admin.quotas.quotas import BudgetPlan, BudgetUnit, Caps, demand_caps

MOST_BUDGETS = 16


@dataclass(frozen=True, slots=True)
class MemberLimits:
    caps: Caps = field(default_factory=Caps)
    budgets: tuple[BudgetPlan, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For the audit log."""
        return {**asdict(self.caps), "budgets": plans_to_json(self.budgets)}


NO_LIMITS = MemberLimits()


def changed(before: MemberLimits, caps: Caps, added: Iterable[BudgetPlan], *, drops_budgets: bool) -> MemberLimits:
    """Raises BadInput."""
    kept = () if drops_budgets else before.budgets
    after = replace(before, caps=demand_caps(caps), budgets=(*kept, *added))
    if len(after.budgets) > MOST_BUDGETS:
        raise BadInput(f"A new member starts with at most {MOST_BUDGETS} budgets.")
    return after


def limits_for(
    groups: Mapping[str, Group], of_groups: Mapping[str, MemberLimits], group_id: str
) -> tuple[str, MemberLimits] | None:
    """Those of the closest group around a new member that has any, and its name."""
    for group in ancestors(groups, group_id):
        if group.id in of_groups:
            return group.name, of_groups[group.id]
    return None


def plans_to_json(plans: Sequence[BudgetPlan]) -> list[dict[str, Any]]:
    return [asdict(plan) for plan in plans]


def plans_from_json(kept: Iterable[Mapping[str, Any]]) -> tuple[BudgetPlan, ...]:
    return tuple(
        BudgetPlan(
            BudgetUnit(one["unit"]),
            one["amount"],
            Period(one["period"]),
            one["time_zone"],
            one["window_s"],
            one["carry_most"],
        )
        for one in kept
    )
