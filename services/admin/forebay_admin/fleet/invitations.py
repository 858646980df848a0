"""Invitations of nodes: a token that lets one machine in as one node, once, for a while. Pure; the store keeps only the
token's SHA-256."""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.errors import BadInput, ForebayError, NotFound

DEFAULT_LIFE = timedelta(hours=1)
LONGEST_LIFE = timedelta(days=7)

_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NKEY = re.compile(r"U[A-Z2-7]{55}")
_TOKEN = re.compile(r"[0-9a-f]{64}")


class Spent(ForebayError):
    """This invitation was used or has expired; make a new one with `forebay node enroll`."""


@dataclass(frozen=True, slots=True)
class Invitation:
    node: str
    expires_at: datetime
    used_at: datetime | None = None
    used_by_nkey: str | None = None


def demand_node_name(name: str) -> str:
    """Raises BadInput."""
    if not _NODE.fullmatch(name):
        raise BadInput(
            f"A node's name is 1 to 63 letters, digits and hyphens, with no hyphen at an end; {name!r} is not."
        )
    return name


def demand_public_nkey(nkey: str) -> str:
    """Raises BadInput."""
    if not _NKEY.fullmatch(nkey):
        raise BadInput("public_nkey must be the public nkey of a user: U and 55 letters or digits.")
    return nkey


def life_of(valid_s: int) -> timedelta:
    """0 is the default. Raises BadInput for more than a week: a forgotten command is an open door."""
    if valid_s > LONGEST_LIFE.total_seconds():
        raise BadInput("An invitation is valid for at most 7 days.")
    return timedelta(seconds=valid_s) if valid_s else DEFAULT_LIFE


def new_token() -> str:
    """256 random bits, in letters that no shell minds."""
    return secrets.token_hex(32)


def token_sha256(token: str) -> bytes:
    """Raises NotFound for what cannot be a token."""
    if not _TOKEN.fullmatch(token):
        raise NotFound("There is no such invitation.")
    return hashlib.sha256(token.encode()).digest()


def demand_open(invitation: Invitation | None, now: datetime, nkey: str | None = None) -> Invitation:
    """The invitation, when it still lets somebody in. Raises NotFound, Spent.

    Whoever used it may use it again with the same nkey: an answer that got lost on its way must not lock a node out, and it
    gives nothing to anyone else."""
    if invitation is None:
        raise NotFound("There is no such invitation.")
    if now >= invitation.expires_at:
        raise Spent(f"The invitation of {invitation.node} has expired; make a new one with `forebay node enroll`.")
    if invitation.used_at is not None and (nkey is None or nkey != invitation.used_by_nkey):
        raise Spent(f"The invitation of {invitation.node} was used; make a new one with `forebay node enroll`.")
    return invitation


def join_command(url: str, token: str, pin: str | None) -> str:
    """The line to paste on the machine that joins. With a pin, it trusts the server's public key and no CA."""
    trust = f"-fsSk --pinnedpubkey {shlex.quote(pin)}" if pin else "-fsS"
    return f"curl {trust} {shlex.quote(f'{url}/join/{token}')} | sh"
