"""Who may call admin's gRPC port. Services come with their tokens, operators with a Forebay key, a session or a narrow
token; all are decided in memory, so that a wrong one costs no query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from forebay.clock import Clock
from forebay.errors import ForebayError, NotAllowed, NotAuthenticated, Unavailable
from forebay.keys import is_one_of, parse_key
from forebay.rpc import ServiceTokens, caller, caller_address
from forebay_admin.keys.key_terms import is_from
from forebay_admin.keys.keys import KeyState, Limits, Principal
from forebay_admin.people.directory import Directory
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import Permission
from forebay_admin.people.rights import Rights
from forebay_admin.people.roles import Reach
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import BearerKind, signs_calls
from forebay_admin.sign_in.sessions import Badge

ADMIN = "/forebay.wire.v1.Admin"
OPERATOR = "/forebay.wire.v1.Operator"
CONTENT = "/forebay.wire.v1.Content"
BATCHES = "/forebay.wire.v1.Batches"
EPHEMERAL_KEYS = "/forebay.wire.v1.EphemeralKeys"
SECURITY = "/forebay.wire.v1.Security"

SERVICE_RIGHTS = {
    f"{ADMIN}/WatchPrincipals": frozenset({"gateway"}),
    f"{ADMIN}/WatchPolicy": frozenset({"scheduler"}),
    f"{ADMIN}/WatchCredentials": frozenset({"gateway", "registry"}),
    f"{ADMIN}/WatchModelRules": frozenset({"gateway"}),
    # Gateways have checked whose request it is, and name that user.
    f"{CONTENT}/*": frozenset({"gateway"}),
    f"{BATCHES}/*": frozenset({"gateway"}),
    f"{EPHEMERAL_KEYS}/*": frozenset({"gateway"}),
    f"{SECURITY}/*": frozenset({"gateway"}),
    # `forebay up` adds the engines that it finds, before anybody holds a key.
    f"{OPERATOR}/*": frozenset({"up"}),
}

UP = "forebay up"


class Credential(StrEnum):
    """What signs a call."""

    KEY = "key"
    TOKEN = "token"
    SESSION = "session"
    SERVICE = "service"


_CREDENTIALS = {BearerKind.TOKEN: Credential.TOKEN, BearerKind.SESSION: Credential.SESSION}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes an operator's call."""

    name: str
    role: Role
    user_id: str = ""
    """Empty for a part of Forebay, which is no user."""
    key_id: str = ""
    """What signed the call: a key's public id, or the name of a session or token, such as fbses-0123456789ab."""
    limits: Limits = field(default_factory=Limits)
    given: tuple[Permission, ...] = ()
    """By custom roles."""
    within: tuple[Permission, ...] | None = None
    """What a narrow token may; None: all that its user may."""
    credential: Credential = Credential.SERVICE
    expires_at: datetime | None = None
    """When what signed the call expires."""

    @property
    def rights(self) -> Rights:
        return Rights(self.role, self.given, self.within)

    def reach(self, call: str) -> Reach:
        return self.rights.reach(call)


class UnknownKey(NotAuthenticated):
    """This key is not known here."""


class Access:
    """The authorisation of all of admin's gRPC services."""

    def __init__(
        self,
        services: ServiceTokens,
        directory: Directory,
        badges: Badges,
        pepper: bytes,
        clock: Clock,
        on_refused: Callable[[str | None, ForebayError], None] = lambda bearer, error: None,
    ) -> None:
        """`on_refused`: hears of each refusal, with what the call was signed with."""
        self._on_refused = on_refused
        self._services = services
        self._directory = directory
        self._badges = badges
        self._pepper = pepper
        self._clock = clock

    def __call__(self, method: str, bearer: str | None) -> str:
        """The caller's name: a service's, or the id of a key, session or token with its prefix. Raises NotAuthenticated,
        NotAllowed."""
        try:
            return self._admit(method, bearer)
        except (NotAuthenticated, NotAllowed) as error:
            if bearer is not None:
                self._on_refused(bearer, error)
            raise

    def of_people(self, method: str, bearer: str | None) -> str:
        """The same for a port that asks for no certificate: a service's token is nothing there."""
        if bearer is not None and not (bearer.startswith("fb-") or signs_calls(bearer)):
            raise NotAuthenticated("This port is for people's keys and sessions; parts of Forebay call the other one.")
        return self(method, bearer)

    def lets_in(self, bearer: str) -> bool:
        """Whether it signs any call of operators; nobody hears of it where it does not."""
        try:
            self._admit(f"{OPERATOR}/WhoAmI", bearer)
        except (NotAuthenticated, NotAllowed, Unavailable):
            return False
        return True

    def look(self, bearer: str) -> str:
        """The name of a session or token, of which this is no use: for what goes on without anybody's doing. Raises
        NotAuthenticated, Unavailable."""
        return self._badges.demand(bearer, is_use=False).name

    def _admit(self, method: str, bearer: str | None) -> str:
        service, _, call = method.rpartition("/")
        if service == OPERATOR and (bearer is None or bearer.startswith("fb-")):
            return self._demand_key(call, bearer)
        if service == OPERATOR and bearer is not None and signs_calls(bearer):
            badge = self._badges.demand(bearer)
            _demand_right(_of_badge(badge, self._badges), call)
            return badge.name
        return self._services(method, bearer)

    def actor(self) -> Actor:
        """Who makes the call that is being answered."""
        name = caller.get()
        if signs_calls(name):
            badge = self._badges.find(name)
            if badge is None:
                raise NotAuthenticated("This session or token has ended.")
            return _of_badge(badge, self._badges)
        if name == "up":
            return Actor(UP, Role.ADMIN)
        if not name.startswith("fb-"):
            raise NotAllowed(f"{name or 'Nobody'} makes no operators' calls.")
        principal = self._directory.find(name.removeprefix("fb-"))
        if principal is None:
            raise NotAuthenticated("This key is not known here.")
        return _of_key(principal, self._badges)

    def demand_still(self, call: str) -> None:
        """Of a call that goes on and on: whoever made it may still. Raises NotAuthenticated, NotAllowed."""
        actor, now = self.actor(), datetime.fromtimestamp(self._clock.now(), UTC)
        principal = self._directory.find(actor.key_id) if actor.credential is Credential.KEY else None
        if principal is not None:
            _demand_working(principal, now)
        badge = self._badges.find(actor.key_id)
        if badge is not None and (badge.is_disabled or (actor.expires_at is not None and now >= actor.expires_at)):
            raise NotAuthenticated("This session or token has ended.")
        if actor.name != UP:
            _demand_right(actor, call)

    def _demand_key(self, call: str, bearer: str | None) -> str:
        if bearer is None:
            raise NotAuthenticated("This call needs a Forebay key: set FOREBAY_TOKEN.")
        if not self._directory.is_loaded:
            raise Unavailable("Admin has not read its database yet; it usually takes seconds.", retry_after_s=1.0)
        key = parse_key(bearer)
        principal = self._directory.find(key.public_id) if key is not None else None
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        if key is None or principal is None or not is_one_of(self._pepper, key.secret, principal.secrets(now)):
            raise UnknownKey
        _demand_working(principal, now)
        if not is_from(caller_address.get(), principal.limits.terms.addresses):
            raise NotAllowed(f"This key may not be used from {caller_address.get() or 'an unknown address'}.")
        _demand_right(_of_key(principal, self._badges), call)
        return f"fb-{principal.key_id}"


def _demand_working(principal: Principal, now: datetime) -> None:
    if principal.state is KeyState.REVOKED:
        raise NotAuthenticated("This key was revoked.")
    if principal.state is KeyState.USER_DISABLED:
        raise NotAuthenticated(f"The user {principal.user_name} is disabled.")
    block, expires_at = principal.block, principal.limits.expires_at
    if block is not None and block.holds(now):
        raise NotAllowed(f"This key is blocked: {block.reason}")
    if expires_at is not None and now >= expires_at:
        raise NotAuthenticated("This key has expired.")


def _of_key(principal: Principal, badges: Badges) -> Actor:
    return Actor(
        principal.user_name,
        principal.role,
        principal.user_id,
        principal.key_id,
        principal.limits,
        badges.given(principal.user_id),
        credential=Credential.KEY,
        expires_at=principal.limits.expires_at,
    )


def _of_badge(badge: Badge, badges: Badges) -> Actor:
    return Actor(
        badge.user_name,
        badge.role,
        badge.user_id,
        badge.name,
        given=badges.given(badge.user_id),
        within=badge.within,
        credential=_CREDENTIALS[badge.kind],
        expires_at=badge.expires_at,
    )


def _demand_right(actor: Actor, call: str) -> None:
    if actor.reach(call) is not Reach.NONE:
        return
    if actor.within is not None and Rights(actor.role, actor.given).reach(call) is not Reach.NONE:
        raise NotAllowed("This token was not given the permission for that.")
    raise NotAllowed(f"{actor.name} is {_article(actor.role)} {actor.role}, who may not do this.")


def _article(role: Role) -> str:
    return "a" if role is Role.MEMBER else "an"
