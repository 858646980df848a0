"""A node's agent takes up its invitation, once. From then on it may speak for its node, and for no other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from forebay import subjects
from forebay.clock import Clock
from forebay.database import Database
from forebay_admin.audit.audit_store import Act, Interface, record
from forebay_admin.changes import Changes
from forebay_admin.fleet.invitation_store import find_invitation, use_invitation
from forebay_admin.fleet.invitations import Invitation, demand_open, demand_public_nkey, token_sha256
from forebay_admin.fleet.registry_client import RegistryClient

_LONGEST_HOSTNAME = 255


@dataclass(frozen=True, slots=True)
class Admission:
    """What an agent is told so that it can begin."""

    node: str
    nats_url: str
    ca_pem: str | None
    """The CA of the bus's certificate; None when the bus speaks no TLS or a public CA signed it."""
    command_key: str = ""
    """What commands to it are signed with; empty: none are sent."""

    def as_json(self) -> dict[str, object]:
        return {
            "node": self.node,
            "nats_url": self.nats_url,
            "nats_user": self.node,
            "inbox_prefix": f"_INBOX_{self.node}",
            "ca_pem": self.ca_pem,
            "command_key": self.command_key,
            "subjects": {
                "telemetry": subjects.telemetry(self.node),
                "command": subjects.command(self.node),
                "answer": subjects.answer(self.node),
            },
        }


class Enrolment:
    def __init__(
        self,
        database: Database,
        changes: Changes,
        registry: RegistryClient,
        clock: Clock,
        *,
        nats_url: str,
        ca_file: Path | None,
    ) -> None:
        """`nats_url`: how agents on other machines reach the bus."""
        self._database = database
        self._changes = changes
        self._registry = registry
        self._clock = clock
        self._nats_url = nats_url
        self._ca_file = ca_file

    async def look(self, token: str) -> Invitation:
        """The invitation, without using it. Raises NotFound, Spent, Unavailable."""
        async with self._database.reading() as connection:
            return demand_open(await find_invitation(connection, token_sha256(token)), self._now())

    async def admit(self, token: str, public_nkey: str, hostname: str, joined_from: str = "") -> Admission:
        """Uses the invitation; whatever fails leaves it unused. The bus lets the agent in a moment later. `joined_from`: the
        address that the machine called from.

        Raises BadInput, NotFound, Spent, AlreadyExists, Unavailable."""
        digest, nkey, now = token_sha256(token), demand_public_nkey(public_nkey), self._now()
        host = "".join(letter for letter in hostname if letter.isprintable())[:_LONGEST_HOSTNAME]
        ca_pem = self._ca_file.read_text() if self._ca_file is not None else None
        command_key = await self._tell_registry(digest, nkey, now, joined_from)
        async with self._changes.make(self._database) as change:
            invitation = demand_open(await find_invitation(change.connection, digest, for_update=True), now, nkey)
            if invitation.used_at is None:
                before = await use_invitation(change, digest, invitation, public_nkey=nkey, hostname=host, now=now)
                act = Act(
                    f"node {invitation.node}",
                    "node.enrol",
                    invitation.node,
                    Interface.JOIN,
                    address=joined_from,
                    before={"public_nkey": before} if before else None,
                    after={"public_nkey": nkey, "hostname": host},
                )
                await record(change.connection, act, now)
        return Admission(invitation.node, self._nats_url, ca_pem, command_key)

    async def _tell_registry(self, digest: bytes, nkey: str, now: datetime, joined_from: str) -> str:
        """First, since it may be told twice and an invitation may not be used twice; and outside the transaction, which
        holds the counter that all changes wait for. What commands to the node are signed with."""
        async with self._database.reading() as connection:
            invitation = demand_open(await find_invitation(connection, digest), now, nkey)
        enrolled = await self._registry.enrol_node(f"node {invitation.node}", invitation.node, joined_from)
        return enrolled.command_key

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
