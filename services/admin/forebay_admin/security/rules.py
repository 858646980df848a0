"""Lists of addresses, when somebody is banned, and that nobody locks themselves out with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from forebay.address_gate import AddressGate, Ban, Mode
from forebay.brute_force import BanPolicy, next_strike
from forebay.client_addresses import Network, parse_network
from forebay.errors import BadInput, NotPossible

MOST_RULES = 1000
MOST_MANUAL_BANS = 1000
MOST_BANS = 20_000
"""That Forebay makes by itself and that hold at once."""
LONGEST_TEXT = 300
_LONGEST_S = 10 * 365 * 86_400
_LOOPBACK = ("127.0.0.1", "::1")


class Listed(StrEnum):
    DENY = "deny"
    ALLOW = "allow"


class LocksOut(NotPossible):
    """This would lock out whoever asks for it."""


@dataclass(frozen=True, slots=True)
class Rule:
    list: Listed
    network: Network
    note: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    mode: Mode = Mode.PERMISSIVE
    bans: BanPolicy = field(default_factory=BanPolicy)


@dataclass(frozen=True, slots=True)
class HeldBan:
    network: Network
    begun_at: datetime
    until: datetime | None
    """None: until it is taken back."""
    reason: str
    made_by: str
    """Empty: Forebay."""
    strikes: int = 1
    spares_valid: bool = True
    lifted_at: datetime | None = None
    lifted_by: str = ""

    def holds(self, now: datetime) -> bool:
        return self.lifted_at is None and (self.until is None or now < self.until)

    def as_ban(self) -> Ban:
        until = self.until.timestamp() if self.until is not None else None
        return Ban(self.network, until, self.reason, self.spares_valid)


@dataclass(frozen=True, slots=True)
class Lists:
    policy: Policy = field(default_factory=Policy)
    rules: tuple[Rule, ...] = ()

    def of(self, which: Listed) -> list[Network]:
        return [rule.network for rule in self.rules if rule.list is which]

    def find(self, which: Listed, network: Network) -> Rule | None:
        return next((rule for rule in self.rules if rule.list is which and rule.network == network), None)


def gate_of(lists: Lists, bans: Iterable[HeldBan] = ()) -> AddressGate:
    gate = AddressGate()
    gate.set_lists(lists.policy.mode, lists.of(Listed.DENY), lists.of(Listed.ALLOW))
    gate.replace_bans(ban.as_ban() for ban in bans if ban.lifted_at is None)
    return gate


def demand_nobody_locked_out(before: AddressGate, after: AddressGate, maker: str, now: datetime) -> None:
    """`maker`: from where it is asked for; empty: from no network. Raises LocksOut."""
    for address in (maker, *_LOOPBACK):
        moment = now.timestamp()
        if address and before.look(address, moment) is None and after.look(address, moment) is not None:
            whom = f"you, who come from {address}" if address == maker else f"this machine itself ({address})"
            raise LocksOut(
                f"This would lock out {whom}. Allow that address first, or say that it is meant: --force, or "
                '"force": true.'
            )


def demand_network(text: str) -> Network:
    """Raises BadInput."""
    network = parse_network(text.strip())
    if network is None:
        raise BadInput(f"{text[:60]!r} is neither an address nor a network, such as 192.0.2.0/24.")
    return network


def demand_text(text: str, what: str) -> str:
    """Raises BadInput."""
    cleaned = " ".join(text.split())
    if len(cleaned) > LONGEST_TEXT or not cleaned.isprintable():
        raise BadInput(f"A {what} is a line of at most {LONGEST_TEXT} letters.")
    return cleaned


def demand_policy(policy: Policy) -> Policy:
    """Raises BadInput."""
    bans = policy.bans
    for name, value, least in (
        ("window", bans.window_s, 1),
        ("first ban", bans.first_s, 1),
        ("longest ban", bans.longest_s, bans.first_s),
    ):
        if not least <= value <= _LONGEST_S:
            raise BadInput(f"The {name} lasts {least} to {_LONGEST_S} seconds, not {value}.")
    if bans.after > 1_000_000:
        raise BadInput(f"Somebody is banned after 1 to 1000000 failures, or, with 0, never; not after {bans.after}.")
    return policy


def demand_length(lasts_s: int) -> int:
    """Raises BadInput."""
    if lasts_s > _LONGEST_S:
        raise BadInput(f"A ban lasts at most {_LONGEST_S} seconds, or, with 0, until it is taken back.")
    return lasts_s


def next_ban(before: HeldBan | None, network: Network, failures: int, now: datetime, policy: BanPolicy) -> HeldBan:
    """That Forebay makes, of a network that is not banned now."""
    strikes = 1
    if before is not None and not before.made_by and before.lifted_at is None and before.until is not None:
        strikes = next_strike(before.strikes, before.until.timestamp(), now.timestamp())
    until = datetime.fromtimestamp(now.timestamp() + policy.lasts_s(strikes), UTC)
    return HeldBan(network, now, until, f"{failures} wrong keys or passwords", "", strikes)
