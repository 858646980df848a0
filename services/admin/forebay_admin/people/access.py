"""Who may call admin's gRPC port. Services come with their tokens, operators with a Forebay key; both are decided in memory,
so that a wrong key costs no query."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from forebay.clock import Clock
from forebay.errors import NotAllowed, NotAuthenticated, Unavailable
from forebay.keys import is_secret, parse_key
from forebay.rpc import ServiceTokens, caller
from forebay_admin.keys.keys import KeyState, Limits
from forebay_admin.people.directory import Directory
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, reach

ADMIN = "/forebay.wire.v1.Admin"
OPERATOR = "/forebay.wire.v1.Operator"
CONTENT = "/forebay.wire.v1.Content"
BATCHES = "/forebay.wire.v1.Batches"

SERVICE_RIGHTS = {
    f"{ADMIN}/WatchPrincipals": frozenset({"gateway"}),
    f"{ADMIN}/WatchPolicy": frozenset({"scheduler"}),
    f"{ADMIN}/WatchCredentials": frozenset({"gateway", "registry"}),
    f"{ADMIN}/WatchModelRules": frozenset({"gateway"}),
    # Gateways have checked whose request it is, and name that user.
    f"{CONTENT}/*": frozenset({"gateway"}),
    f"{BATCHES}/*": frozenset({"gateway"}),
    # `forebay up` adds the engines that it finds, before anybody holds a key.
    f"{OPERATOR}/*": frozenset({"up"}),
}

UP = "forebay up"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes an operator's call."""

    name: str
    role: Role
    user_id: str = ""
    """Empty for a part of Forebay, which is no user."""
    key_id: str = ""
    limits: Limits = field(default_factory=Limits)


class Access:
    """The authorisation of all of admin's gRPC services."""

    def __init__(self, services: ServiceTokens, directory: Directory, pepper: bytes, clock: Clock) -> None:
        self._services = services
        self._directory = directory
        self._pepper = pepper
        self._clock = clock

    def __call__(self, method: str, bearer: str | None) -> str:
        """The caller's name: a service's, or a key's public id with its prefix. Raises NotAuthenticated, NotAllowed."""
        service, _, call = method.rpartition("/")
        if service == OPERATOR and (bearer is None or bearer.startswith("fb-")):
            return self._demand_key(call, bearer)
        return self._services(method, bearer)

    def actor(self) -> Actor:
        """Who makes the call that is being answered."""
        name = caller.get()
        if not name.startswith("fb-"):
            return Actor(UP, Role.ADMIN)
        principal = self._directory.find(name.removeprefix("fb-"))
        if principal is None:
            raise NotAuthenticated("This key is not known here.")
        return Actor(principal.user_name, principal.role, principal.user_id, principal.key_id, principal.limits)

    def _demand_key(self, call: str, bearer: str | None) -> str:
        if bearer is None:
            raise NotAuthenticated("This call needs a Forebay key: set FOREBAY_TOKEN.")
        if not self._directory.is_loaded:
            raise Unavailable("Admin has not read its database yet; it usually takes seconds.", retry_after_s=1.0)
        key = parse_key(bearer)
        principal = self._directory.find(key.public_id) if key is not None else None
        if key is None or principal is None or not is_secret(self._pepper, key.secret, principal.secret_hmac):
            raise NotAuthenticated("This key is not known here.")
        if principal.state is KeyState.REVOKED:
            raise NotAuthenticated("This key was revoked.")
        if principal.state is KeyState.USER_DISABLED:
            raise NotAuthenticated(f"The user {principal.user_name} is disabled.")
        expires_at = principal.limits.expires_at
        if expires_at is not None and datetime.fromtimestamp(self._clock.now(), UTC) >= expires_at:
            raise NotAuthenticated("This key has expired.")
        if reach(principal.role, call) is Reach.NONE:
            raise NotAllowed(
                f"{principal.user_name} is {_article(principal.role)} {principal.role}, who may not do this."
            )
        return f"fb-{principal.key_id}"


def _article(role: Role) -> str:
    return "a" if role is Role.MEMBER else "an"
