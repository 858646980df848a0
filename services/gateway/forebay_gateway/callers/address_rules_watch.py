"""Lists of addresses, bans, and when somebody is banned, from admin. The last ones told are kept: without admin they go on
to hold, and bans end by this gateway's own clock."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from google.protobuf.message import DecodeError

from forebay.address_gate import Ban, Mode
from forebay.brute_force import BanPolicy
from forebay.client_addresses import Network, parse_network
from forebay.clock import Clock, micros
from forebay.rpc import Peer
from forebay.wire.v1 import security_pb2, security_pb2_grpc
from forebay_gateway.callers.guard import Guard


class AddressRulesWatch:
    name = "address_rules"
    owner = "admin"

    def __init__(self, peer: Peer, guard: Guard, clock: Clock) -> None:
        self._stub: Any = security_pb2_grpc.SecurityStub(peer.channel)
        self._metadata = peer.metadata
        self._guard = guard
        self._clock = clock
        self._version = 0
        self._lists = security_pb2.AddressRulesUpdate()
        self._bans: dict[str, security_pb2.AddressBan] = {}

    def watch(self) -> AsyncIterable[security_pb2.AddressRulesUpdate]:
        request = security_pb2.WatchAddressRulesRequest(known_version=self._version)
        calls: AsyncIterable[security_pb2.AddressRulesUpdate] = self._stub.WatchAddressRules(
            request, metadata=self._metadata
        )
        return calls

    def apply(self, update: security_pb2.AddressRulesUpdate) -> None:
        self._version = update.version
        if update.HasField("policy"):
            self._lists = security_pb2.AddressRulesUpdate(policy=update.policy, rules=update.rules)
            self._take_lists(update)
        if update.snapshot:
            self._bans.clear()
        if update.bans:
            self._forget_ended()
        for ban in update.bans:
            if ban.HasField("lifted_at_us"):
                self._bans.pop(ban.network, None)
            else:
                self._bans[ban.network] = ban
        if update.snapshot:
            self._guard.gate.replace_bans(_bans(self._bans.values()))
        elif update.bans:
            lifted = [network for ban in update.bans if (network := _lifted(ban)) is not None]
            self._guard.gate.change_bans(_bans(b for b in update.bans if not b.HasField("lifted_at_us")), lifted)

    def dump(self) -> bytes:
        kept = security_pb2.AddressRulesUpdate(version=self._version, snapshot=True, bans=self._bans.values())
        kept.MergeFrom(self._lists)
        return kept.SerializeToString()

    def restore(self, kept: bytes) -> None:
        try:
            update = security_pb2.AddressRulesUpdate.FromString(kept)
        except DecodeError as error:
            raise ValueError(str(error)) from error
        self.apply(update)

    def _forget_ended(self) -> None:
        now = self._clock.now()
        now_us = micros(now)
        for network in [n for n, ban in self._bans.items() if ban.HasField("until_us") and ban.until_us <= now_us]:
            del self._bans[network]
        self._guard.gate.forget(now)

    def _take_lists(self, update: security_pb2.AddressRulesUpdate) -> None:
        policy = update.policy
        is_restrictive = policy.mode == security_pb2.ADDRESS_MODE_RESTRICTIVE
        self._guard.policy = BanPolicy(
            policy.ban_after, policy.ban_window_s or 60, policy.ban_first_s or 60, policy.ban_longest_s or 3600
        )
        self._guard.gate.set_lists(
            Mode.RESTRICTIVE if is_restrictive else Mode.PERMISSIVE,
            _listed(update, security_pb2.ADDRESS_LIST_DENY),
            _listed(update, security_pb2.ADDRESS_LIST_ALLOW),
        )


def _listed(update: security_pb2.AddressRulesUpdate, of: security_pb2.AddressList.ValueType) -> list[Network]:
    networks = (parse_network(rule.network) for rule in update.rules if rule.list == of)
    return [network for network in networks if network is not None]


def _lifted(ban: security_pb2.AddressBan) -> Network | None:
    return parse_network(ban.network) if ban.HasField("lifted_at_us") else None


def _bans(told: Any) -> list[Ban]:
    made = []
    for ban in told:
        network = parse_network(ban.network)
        if network is not None:
            until = ban.until_us / 1_000_000 if ban.HasField("until_us") else None
            made.append(Ban(network, until, ban.reason, ban.spares_valid))
    return made
