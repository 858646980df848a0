"""A set that can also be asked for its n-th member, so that one can be drawn at random. All of it O(1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Member = TypeVar("Member")


class IndexedSet(Generic[Member]):
    __slots__ = ("_position", "members")

    def __init__(self) -> None:
        self.members: list[Member] = []
        """To be read: in no order that means anything, but in the same one after the same calls."""
        self._position: dict[Member, int] = {}

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __contains__(self, member: object) -> bool:
        return member in self._position

    def __getitem__(self, position: int) -> Member:
        return self.members[position]

    def add(self, member: Member) -> None:
        if member not in self._position:
            self._position[member] = len(self.members)
            self.members.append(member)

    def discard(self, member: Member) -> None:
        position = self._position.pop(member, None)
        if position is None:
            return
        last = self.members.pop()
        if position < len(self.members):
            self.members[position] = last
            self._position[last] = position
