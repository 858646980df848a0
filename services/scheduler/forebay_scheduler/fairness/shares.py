"""Who belongs where, and with what weight: what admin says of users, groups and keys, in the words of the fair tree.

Nested groups are paths from the outermost in. A chain of groups that closes on itself is cut at the edge that closes it (in
the order of their names), so each group has one place; `cycles` names the groups that were cut off."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from forebay_scheduler.request import GroupId, KeyId, Request, UserId
from forebay_scheduler.terms import SMALLEST_WEIGHT, GroupTerms, KeyTerms, UserTerms

_REMEMBERED_CHANGES = 64
"""A queue that is further behind looks at everyone it knows."""


def as_weight(told: float) -> float:
    """What is not positive (or not a number) is the smallest weight there is: nothing is ever divided by zero."""
    return told if told > SMALLEST_WEIGHT else SMALLEST_WEIGHT


@dataclass(frozen=True, slots=True)
class Touched:
    """Whom one change may have moved or weighed anew."""

    version: int
    users: frozenset[UserId]
    keys: frozenset[KeyId]
    has_groups: bool


class Shares:
    """Who is not known here has weight one, and is in the group that its gateway names."""

    def __init__(self) -> None:
        self._users: dict[UserId, UserTerms] = {}
        self._groups: dict[GroupId, GroupTerms] = {}
        self._keys: dict[KeyId, KeyTerms] = {}
        self._parents: dict[GroupId, GroupId] = {}
        """Without the edges that would close a cycle."""
        self._paths: dict[GroupId, tuple[GroupId, ...]] = {}
        self._recent: deque[Touched] = deque(maxlen=_REMEMBERED_CHANGES)
        self.cycles: tuple[GroupId, ...] = ()
        """Groups that stand outermost because their parent is, in the end, within them."""
        self.version = 0
        self._has_paused = False
        """Somebody is paused, or was."""

    def change(
        self,
        users: Iterable[UserTerms] = (),
        groups: Iterable[GroupTerms] = (),
        keys: Iterable[KeyTerms] = (),
        removed_users: Iterable[UserId] = (),
        removed_groups: Iterable[GroupId] = (),
        removed_keys: Iterable[KeyId] = (),
    ) -> None:
        """Take in what changed. Each queue follows at its next `reshape`."""
        touched_users = {terms.user: terms for terms in users}
        touched_keys = {terms.key: terms for terms in keys}
        touched_groups = {terms.group: terms for terms in groups}
        gone_users, gone_groups, gone_keys = list(removed_users), list(removed_groups), list(removed_keys)
        self._users.update(touched_users)
        self._keys.update(touched_keys)
        self._groups.update(touched_groups)
        for user in gone_users:
            self._users.pop(user, None)
        for key in gone_keys:
            self._keys.pop(key, None)
        for group in gone_groups:
            self._groups.pop(group, None)
        self._has_paused = (
            self._has_paused
            or any(user_terms.is_paused for user_terms in touched_users.values())
            or any(group_terms.is_paused for group_terms in touched_groups.values())
        )
        has_groups = bool(touched_groups or gone_groups)
        if has_groups:
            self._join_groups()
        self.version += 1
        self._recent.append(
            Touched(
                self.version,
                frozenset(touched_users).union(gone_users),
                frozenset(touched_keys).union(gone_keys),
                has_groups,
            )
        )

    def since(self, version: int) -> list[Touched] | None:
        """The changes after this version; None when not all of them are remembered."""
        later = [touched for touched in self._recent if touched.version > version]
        return later if len(later) == self.version - version else None

    def groups_of(self, request: Request) -> tuple[GroupId, ...]:
        """Outermost first; empty for a user without a group."""
        return self.path_of_user(request.user, request.group)

    def path_of_user(self, user: UserId, hint: GroupId) -> tuple[GroupId, ...]:
        """The same for a user whom a gateway takes for a member of `hint`."""
        terms = self._users.get(user)
        group = hint if terms is None else terms.group
        return self.path_of(group) if group else ()

    def path_of(self, group: GroupId) -> tuple[GroupId, ...]:
        path = self._paths.get(group)
        if path is None:
            reverse = [group]
            while (parent := self._parents.get(reverse[-1])) is not None:
                reverse.append(parent)
            path = tuple(reversed(reverse))
            if group in self._groups:  # names that only gateways know are not kept: they have no end
                self._paths[group] = path
        return path

    def knows(self, user: UserId) -> bool:
        return user in self._users

    def weight_of_user(self, user: UserId) -> float:
        terms = self._users.get(user)
        return 1.0 if terms is None else as_weight(terms.weight)

    def weight_of_group(self, group: GroupId) -> float:
        terms = self._groups.get(group)
        return 1.0 if terms is None else as_weight(terms.weight)

    def weight_of_key(self, key: KeyId) -> float:
        terms = self._keys.get(key)
        return 1.0 if terms is None else as_weight(terms.weight)

    def is_user_paused(self, user: UserId) -> bool:
        terms = self._users.get(user)
        return terms is not None and terms.is_paused

    def is_group_paused(self, group: GroupId) -> bool:
        terms = self._groups.get(group)
        return terms is not None and terms.is_paused

    def is_paused(self, request: Request) -> bool:
        """Its user, or a group around it."""
        if not self._has_paused:
            return False
        return self.is_user_paused(request.user) or any(map(self.is_group_paused, self.groups_of(request)))

    def _join_groups(self) -> None:
        """Take the edges in the order of the names, whatever the order in which they were told: a replay ends the same."""
        self._paths.clear()
        self._parents = {}
        cut = []
        for group, terms in sorted(self._groups.items()):
            if not terms.parent:
                continue
            above: GroupId | None = terms.parent
            while above is not None and above != group:
                above = self._parents.get(above)
            if above == group:
                cut.append(group)
            else:
                self._parents[group] = terms.parent
        self.cycles = tuple(cut)
