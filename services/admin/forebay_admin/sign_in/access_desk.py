"""Operators' calls about what lets people in: narrow tokens, sessions, passwords, and who one is."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed, NotFound
from forebay.keys import seal_secret
from forebay.wire.v1 import identity_pb2
from forebay_admin.audit.audit import Note
from forebay_admin.audit.audit_store import Facts
from forebay_admin.changes import Changes
from forebay_admin.people.access import Actor, Credential
from forebay_admin.people.people import Role, User
from forebay_admin.people.people_desk import whose
from forebay_admin.people.people_store import user_named
from forebay_admin.people.permissions import parse_permissions
from forebay_admin.people.rights import Rights, demand_no_wider, too_wide
from forebay_admin.people.role_store import rights_of, roles_of
from forebay_admin.people.roles import Reach
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import BearerKind, new_bearer
from forebay_admin.sign_in.door import Door
from forebay_admin.sign_in.password_store import forgive, set_reset
from forebay_admin.sign_in.passwords import RESET_LIFE
from forebay_admin.sign_in.session_store import (
    add_token,
    end_session,
    end_sessions,
    list_sessions,
    list_tokens,
    revoke_token,
    session_with_id,
    token_with_id,
)
from forebay_admin.sign_in.sessions import Lives, Session, SessionKind, Token, token_expiry, token_name
from forebay_admin.wire_forms import moment_us

_CREDENTIALS = {
    Credential.KEY: identity_pb2.CREDENTIAL_KIND_KEY,
    Credential.TOKEN: identity_pb2.CREDENTIAL_KIND_TOKEN,
    Credential.SESSION: identity_pb2.CREDENTIAL_KIND_SESSION,
    Credential.SERVICE: identity_pb2.CREDENTIAL_KIND_SERVICE,
}
_KINDS = {SessionKind.WEB: identity_pb2.SESSION_KIND_WEB, SessionKind.PROGRAM: identity_pb2.SESSION_KIND_PROGRAM}


class AccessDesk:
    def __init__(
        self,
        database: Database,
        changes: Changes,
        badges: Badges,
        door: Door,
        lives: Lives,
        pepper: bytes,
        clock: Clock,
        *,
        reset_url: str,
    ) -> None:
        """`reset_url`: the page where a password is set, to which a token is added."""
        self._database = database
        self._changes = changes
        self._badges = badges
        self._door = door
        self._lives = lives
        self._pepper = pepper
        self._clock = clock
        self._note = Note(clock)
        self._reset_url = reset_url

    async def who_am_i(self, actor: Actor) -> identity_pb2.WhoAmIResponse:
        async with self._database.reading() as connection:
            roles = await roles_of(connection, actor.user_id) if actor.user_id else ()
        return identity_pb2.WhoAmIResponse(
            user=actor.name if actor.user_id else "",
            role=actor.role.value,
            custom_roles=roles,
            credential=_CREDENTIALS[actor.credential],
            credential_id=actor.key_id,
            expires_at_us=moment_us(actor.expires_at) if actor.expires_at is not None else None,
            may=actor.rights.may(),
        )

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def create_token(
        self, request: identity_pb2.CreateTokenRequest, actor: Actor
    ) -> identity_pb2.CreateTokenResponse:
        now = self._now()
        name = token_name(request.name)
        permissions = parse_permissions(request.permissions)
        expires_at = token_expiry(request.expires_in_s if request.HasField("expires_in_s") else None, now)
        if actor.expires_at is not None and actor.credential is not Credential.SESSION:
            expires_at = min(expires_at, actor.expires_at)
        if actor.within is not None:
            # Whatever their user is to become one day.
            more = too_wide(Rights(Role.ADMIN, within=permissions), Rights(Role.ADMIN, within=actor.within))
            if more:
                raise NotAllowed(f"The token you use was not given {more[0]}; a new one is not either.")
        owner_name = _owner(request.user, actor, "CreateToken")
        made = new_bearer(BearerKind.TOKEN)
        async with self._changes.make(self._database) as change:
            owner = await user_named(change.connection, owner_name)
            if owner.disabled:
                raise BadInput(f"The user {owner.name} is disabled; a token would not work.")
            held = await rights_of(change.connection, owner)
            demand_no_wider(Rights(held.role, held.given, permissions), actor.rights, "With this token one")
            if owner.id != actor.user_id:  # who holds it, whatever its user is to become one day
                demand_no_wider(Rights(Role.ADMIN, within=permissions), actor.rights, "With this token one")
            token = await add_token(
                change,
                token_id=made.id,
                secret_hmac=seal_secret(self._pepper, made.secret),
                name=name,
                owner=owner,
                permissions=permissions,
                expires_at=expires_at,
                created_by=actor.name,
                now=now,
            )
            await self._note(change, actor, "token.create", token.id, after=_token_facts(token))
        await self._badges.caught_up(change.version)
        return identity_pb2.CreateTokenResponse(token=_token_to_wire(token), secret=str(made))

    async def list_tokens(
        self, request: identity_pb2.ListTokensRequest, actor: Actor
    ) -> identity_pb2.ListTokensResponse:
        name = whose(request.user, actor, "ListTokens")
        async with self._database.reading() as connection:
            user_id = (await user_named(connection, name)).id if name else None
            found = await list_tokens(connection, user_id=user_id, include_revoked=request.include_revoked)
        return identity_pb2.ListTokensResponse(tokens=[_token_to_wire(token) for token in found])

    async def revoke_token(
        self, request: identity_pb2.RevokeTokenRequest, actor: Actor
    ) -> identity_pb2.RevokeTokenResponse:
        async with self._changes.make(self._database) as change:
            before = await token_with_id(change.connection, _plain_id(request.id), user_id=_only(actor, "RevokeToken"))
            after = await revoke_token(change, before, self._now())
            facts = _token_facts(before)
            await self._note(change, actor, "token.revoke", after.id, before=facts, after=_token_facts(after))
        await self._badges.caught_up(change.version)
        return identity_pb2.RevokeTokenResponse(token=_token_to_wire(after))

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def list_sessions(
        self, request: identity_pb2.ListSessionsRequest, actor: Actor
    ) -> identity_pb2.ListSessionsResponse:
        name = whose(request.user, actor, "ListSessions")
        async with self._database.reading() as connection:
            user_id = (await user_named(connection, name)).id if name else None
            found = await list_sessions(connection, self._lives, self._now(), user_id=user_id)
        return identity_pb2.ListSessionsResponse(sessions=[_session_to_wire(one, actor) for one in found])

    async def end_session(
        self, request: identity_pb2.EndSessionRequest, actor: Actor
    ) -> identity_pb2.EndSessionResponse:
        if not request.id and actor.credential is not Credential.SESSION:
            raise BadInput("This call came with no session: say which one ends.")
        session_id = _plain_id(request.id or actor.key_id)
        only = None if not request.id else _only(actor, "EndSession")
        async with self._changes.make(self._database) as change:
            session = await session_with_id(change.connection, session_id, user_id=only)
            await end_session(change, session, self._now())
            await self._note(change, actor, "session.end", session.id, before=_session_facts(session))
        await self._badges.caught_up(change.version)
        return identity_pb2.EndSessionResponse(session=_session_to_wire(session, actor))

    async def end_sessions(
        self, request: identity_pb2.EndSessionsRequest, actor: Actor
    ) -> identity_pb2.EndSessionsResponse:
        name = _owner(request.user, actor, "EndSessions")
        async with self._changes.make(self._database) as change:
            user = await user_named(change.connection, name)
            ended = await end_sessions(change, user.id, self._now())
            await self._note(change, actor, "session.end_all", user.name, after={"ended": ended})
        await self._badges.caught_up(change.version)
        return identity_pb2.EndSessionsResponse(ended=ended)

    # --- passwords ----------------------------------------------------------------------------------------------------

    async def reset_password(
        self, request: identity_pb2.ResetPasswordRequest, actor: Actor
    ) -> identity_pb2.ResetPasswordResponse:
        made = new_bearer(BearerKind.RESET)
        expires_at = self._now() + RESET_LIFE
        async with self._changes.make(self._database) as change:
            user = await _person(change.connection, request.user)
            if user.disabled:
                raise BadInput(f"The user {user.name} is disabled; a password would let nobody in.")
            demand_no_wider(await rights_of(change.connection, user), actor.rights, user.name)
            await set_reset(
                change.connection,
                token_hmac=seal_secret(self._pepper, made.secret),
                user_id=user.id,
                created_by=actor.name,
                expires_at=expires_at,
            )
            await forgive(change.connection, user.name)
            facts: Facts = {"expires_at": expires_at.isoformat()}
            await self._note(change, actor, "password.reset", user.name, after=facts)
        return identity_pb2.ResetPasswordResponse(
            token=str(made), expires_at_us=moment_us(expires_at), url=f"{self._reset_url}?token={made}"
        )

    async def change_password(
        self, request: identity_pb2.ChangePasswordRequest, actor: Actor
    ) -> identity_pb2.ChangePasswordResponse:
        if not actor.user_id:
            raise BadInput("This caller is no user, and has no password.")
        is_session = actor.credential is Credential.SESSION
        ended = await self._door.change_password(
            actor.name, request.old_password, request.new_password, but=_plain_id(actor.key_id) if is_session else ""
        )
        return identity_pb2.ChangePasswordResponse(ended_sessions=ended)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def _owner(user: str, actor: Actor, call: str) -> str:
    """Whose it is to be: the caller's, where nobody was named. Raises BadInput, NotAllowed."""
    if not user and not actor.user_id:
        raise BadInput("Say whose: this caller is no user.")
    return whose(user or actor.name, actor, call)


def _only(actor: Actor, call: str) -> str | None:
    """The id of the user whose things alone are within reach."""
    return None if actor.reach(call) is Reach.ALL else actor.user_id


def _plain_id(text: str) -> str:
    """The id in `text`, which is one, its name, or a whole bearer. Raises NotFound."""
    parts = text.strip().split("-")
    found = parts[1] if len(parts) > 1 else parts[0]
    if not found or not found.isalnum() or len(found) > 64:
        raise NotFound("Give the id as it is listed: 12 hexadecimal digits.")
    return found


async def _person(connection: AsyncConnection, name: str) -> User:
    """Raises NotFound, BadInput for a service account."""
    user = await user_named(connection, name)
    if user.is_service_account:
        raise BadInput(f"{user.name} is a service account, which has no password: give it a token or a key.")
    return user


def _token_to_wire(token: Token) -> identity_pb2.AdminToken:
    return identity_pb2.AdminToken(
        id=token.id,
        name=token.name,
        user_name=token.user_name,
        permissions=token.permissions,
        created_by=token.created_by,
        created_at_us=moment_us(token.created_at),
        expires_at_us=moment_us(token.expires_at) if token.expires_at is not None else None,
        revoked_at_us=moment_us(token.revoked_at) if token.revoked_at is not None else None,
        last_used_at_us=moment_us(token.last_used_at) if token.last_used_at is not None else 0,
    )


def _token_facts(token: Token) -> Facts:
    return {
        "name": token.name,
        "user": token.user_name,
        "permissions": list(token.permissions),
        "expires_at": token.expires_at.isoformat() if token.expires_at is not None else None,
        "revoked": token.revoked_at is not None,
    }


def _session_to_wire(session: Session, actor: Actor) -> identity_pb2.Session:
    return identity_pb2.Session(
        id=session.id,
        user_name=session.user_name,
        kind=_KINDS[session.kind],
        way=session.way,
        created_at_us=moment_us(session.created_at),
        last_seen_at_us=moment_us(session.last_seen_at),
        expires_at_us=moment_us(session.expires_at),
        address=session.address,
        user_agent=session.user_agent,
        is_this=actor.key_id == f"{BearerKind.SESSION}-{session.id}",
    )


def _session_facts(session: Session) -> Facts:
    return {"user": session.user_name, "kind": session.kind.value, "way": session.way, "address": session.address}
