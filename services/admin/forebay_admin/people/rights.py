"""What somebody may do: by their role, by the custom roles that they were given, and no more than what signs the call
allows. Pure.

Nobody gives what they do not have: whoever makes a role, a token, a key or a password for somebody could otherwise make
themselves more than they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.errors import NotAllowed
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import OWN, Permission
from forebay_admin.people.roles import Reach, calls, reach

_ORDER = {Reach.NONE: 0, Reach.OWN: 1, Reach.ALL: 2}
ALWAYS = frozenset({"WhoAmI"})
"""However narrow a credential is, its bearer may ask what it is."""


@dataclass(frozen=True, slots=True)
class Rights:
    role: Role
    given: tuple[Permission, ...] = ()
    """By custom roles."""
    within: tuple[Permission, ...] | None = None
    """A narrow token's permissions; None: all that its user may."""

    def reach(self, call: str) -> Reach:
        has = _widest((reach(self.role, call), *(one.reach(call) for one in self.given)))
        if self.within is None or call in ALWAYS:
            return has
        return min(has, _widest(one.reach(call) for one in self.within), key=_ORDER.__getitem__)

    def may(self) -> tuple[str, ...]:
        """The calls that may be made, those about one's own things only with :own; in the order of their names."""
        found = ((call, self.reach(call)) for call in sorted(calls()))
        return tuple(call if far is Reach.ALL else f"{call}{OWN}" for call, far in found if far is not Reach.NONE)


def too_wide(wanted: Rights, held: Rights) -> tuple[str, ...]:
    """What `wanted` has and `held` has not: calls, as `Rights.may` names them."""
    return tuple(
        call if wanted.reach(call) is Reach.ALL else f"{call}{OWN}"
        for call in sorted(calls())
        if _ORDER[wanted.reach(call)] > _ORDER[held.reach(call)]
    )


def demand_no_wider(wanted: Rights, held: Rights, what: str) -> None:
    """Raises NotAllowed. What every member may do with their own things is nobody's to keep from them."""
    anybody = Rights(Role.MEMBER)
    more = [one for one in too_wide(wanted, held) if one not in anybody.may()]
    if more:
        others = f" and {len(more) - 3} more" if len(more) > 3 else ""
        raise NotAllowed(f"{what} may do what you may not: {', '.join(more[:3])}{others}.")


def _widest(reaches: Iterable[Reach]) -> Reach:
    return max(reaches, key=_ORDER.__getitem__, default=Reach.NONE)
