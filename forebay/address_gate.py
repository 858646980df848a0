"""Who is let in by where they come from: lists of networks, and bans. Pure: time is an argument.

A look costs a comparison while there is nothing to look for, and else one in a dict: what was found of an address is
remembered until something changes, of so many addresses at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

from forebay.client_addresses import Address, Network, parse_address

MOST_REMEMBERED = 20_000
MOST_OWN_BANS = 10_000
"""Made here and not told yet; of more the oldest are forgotten."""

_FORGET_EVERY_S = 1.0
"""All are looked through for it: not for each of many that end one after the other."""

T = TypeVar("T")


class Mode(StrEnum):
    PERMISSIVE = "permissive"
    """Everybody is let in but those that are denied."""
    RESTRICTIVE = "restrictive"
    """Nobody is let in but those that are allowed, and not denied."""


@dataclass(frozen=True, slots=True)
class Ban:
    network: Network
    until: float | None
    """Seconds since the epoch; None: until it is taken back."""
    reason: str = ""
    spares_valid: bool = True
    """Whoever has a valid key is let in all the same."""

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until


class Denied(Enum):
    BY_LIST = "by_list"
    """It is denied, or not allowed where only those are let in that are."""


class Networks(Generic[T]):
    """Networks, each with something; found by an address in as many steps as there are lengths of their prefixes."""

    def __init__(self) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, T]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, network: Network, what: T) -> None:
        at = self._by_prefix.setdefault((network.version, network.prefixlen), {})
        self._size += int(network.network_address) not in at
        at[int(network.network_address)] = what

    def remove(self, network: Network) -> None:
        prefix = network.version, network.prefixlen
        at = self._by_prefix.get(prefix, {})
        if at.pop(int(network.network_address), None) is not None:
            self._size -= 1
        if not at:
            self._by_prefix.pop(prefix, None)

    def containing(self, address: Address) -> Iterator[T]:
        number = int(address)
        for (version, length), at in self._by_prefix.items():
            if version == address.version:
                shift = address.max_prefixlen - length
                found = at.get(number >> shift << shift)
                if found is not None:
                    yield found

    def all(self) -> Iterator[T]:
        for at in self._by_prefix.values():
            yield from at.values()


class AddressGate:
    def __init__(self) -> None:
        self._mode = Mode.PERMISSIVE
        self._denied: Networks[Network] = Networks()
        self._allowed: Networks[Network] = Networks()
        self._told: Networks[Ban] = Networks()
        self._own: dict[Network, Ban] = {}
        self._own_by_network: Networks[Ban] = Networks()
        self._remembered: dict[str, Ban | Denied | None] = {}
        self.is_open = True
        """Nothing speaks against anybody."""
        self._forgot_at = float("-inf")

    @property
    def bans(self) -> int:
        """That are known, ended ones among them until they are forgotten."""
        return len(self._told) + len(self._own)

    def set_lists(self, mode: Mode, denied: Iterable[Network], allowed: Iterable[Network]) -> None:
        self._mode, self._denied, self._allowed = mode, _set_of(denied), _set_of(allowed)
        self._changed()

    def replace_bans(self, bans: Iterable[Ban]) -> None:
        """All that hold, as they were told."""
        self._told = Networks()
        self.change_bans(bans, ())

    def change_bans(self, bans: Iterable[Ban], lifted: Iterable[Network]) -> None:
        """As they were told: what was made here of the same networks is over with it."""
        for ban in bans:
            self._told.put(ban.network, ban)
            self._drop_own(ban.network)
        for network in lifted:
            self._told.remove(network)
            self._drop_own(network)
        self._changed()

    def ban(self, ban: Ban) -> None:
        """Made here, until somebody tells of it."""
        self._drop_own(ban.network)
        if len(self._own) >= MOST_OWN_BANS:
            self._drop_own(next(iter(self._own)))
        self._own[ban.network] = ban
        self._own_by_network.put(ban.network, ban)
        self._changed()

    def is_allowed_by_name(self, address: str) -> bool:
        """It stands in the list of those that are allowed: Forebay bans nobody of these."""
        parsed = parse_address(address)
        return parsed is not None and any(True for _ in self._allowed.containing(parsed))

    def look(self, address: str, now: float) -> Ban | Denied | None:
        """What speaks against it; None: nothing."""
        if self.is_open:
            return None
        try:
            found = self._remembered[address]
        except KeyError:
            found = self._judge(address, now)
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[address] = found
        if isinstance(found, Ban) and not found.holds(now):
            self._remembered.pop(address, None)
            if not 0 <= now - self._forgot_at < _FORGET_EVERY_S:
                self.forget(now)
            return self.look(address, now)
        return found

    def forget(self, now: float) -> None:
        """Bans that are over."""
        self._forgot_at = now
        over = [ban for ban in self._own.values() if not ban.holds(now)]
        for ban in over:
            self._drop_own(ban.network)
        told_over = [ban for ban in self._told.all() if not ban.holds(now)]
        for ban in told_over:
            self._told.remove(ban.network)
        if over or told_over:
            self._changed()

    def _judge(self, address: str, now: float) -> Ban | Denied | None:
        parsed = parse_address(address)
        if parsed is None:  # of no network: nothing can be said of it, and nothing allows it
            return Denied.BY_LIST if self._mode is Mode.RESTRICTIVE else None
        if any(True for _ in self._denied.containing(parsed)):
            return Denied.BY_LIST
        is_allowed = any(True for _ in self._allowed.containing(parsed))
        if self._mode is Mode.RESTRICTIVE and not is_allowed:
            return Denied.BY_LIST
        bans = [*self._told.containing(parsed), *self._own_by_network.containing(parsed)]
        # Whoever is allowed by name may have a neighbour who guesses.
        holding = [ban for ban in bans if ban.holds(now) and not (is_allowed and ban.spares_valid)]
        return max(holding, key=_weight, default=None)

    def _drop_own(self, network: Network) -> None:
        if self._own.pop(network, None) is not None:
            self._own_by_network.remove(network)

    def _changed(self) -> None:
        self._remembered.clear()
        self.is_open = self._mode is Mode.PERMISSIVE and not (self._denied or self._told or self._own)


def _weight(ban: Ban) -> tuple[bool, float]:
    """One that spares nobody before others, and then the longest."""
    return not ban.spares_valid, float("inf") if ban.until is None else ban.until


def _set_of(networks: Iterable[Network]) -> Networks[Network]:
    made: Networks[Network] = Networks()
    for network in networks:
        made.put(network, network)
    return made
