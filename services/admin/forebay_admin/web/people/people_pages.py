"""The pages about people: users, groups, roles, keys, budgets, and what is asked for."""

from __future__ import annotations

from typing import Any

from forebay_admin.web.people.budgets import BudgetsPages
from forebay_admin.web.people.groups import GroupsPages
from forebay_admin.web.people.imports import ImportsPages
from forebay_admin.web.people.keys import KeysPages
from forebay_admin.web.people.limits import LimitsPages
from forebay_admin.web.people.requests import RequestsPages
from forebay_admin.web.people.roles import RolesPages
from forebay_admin.web.people.users import UsersPages
from forebay_admin.web.visit import Visits


def people_pages(visits: Visits) -> tuple[Any, ...]:
    return (
        UsersPages(visits),
        GroupsPages(visits),
        RolesPages(visits),
        KeysPages(visits),
        LimitsPages(visits),
        BudgetsPages(visits),
        RequestsPages(visits),
        ImportsPages(visits),
    )
