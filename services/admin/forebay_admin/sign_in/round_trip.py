"""A sign-in's way to a provider and back: what was begun here is what ends here, once.

What has to be remembered in between lies sealed in the browser's own cookie, so that any replica can end what another began;
that it was used lies in the database."""

from __future__ import annotations

import binascii
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import ForebayError, NotAuthenticated, NotFound, Unavailable
from forebay.sealed import NotSealed, Seal
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Changes
from forebay_admin.sign_in.arrivals import receive
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.door import Door, Entry
from forebay_admin.sign_in.identity_store import spend_state
from forebay_admin.sign_in.oidc import ProviderClient
from forebay_admin.sign_in.origin import safe_next, state_mark
from forebay_admin.sign_in.sessions import Visitor

PURPOSE = "sign-in-state"
"""Of the Seal."""
_LIFE = timedelta(minutes=10)
_LONGEST = 4096


class Strayed(NotAuthenticated):
    """This sign-in was not begun here, or too long ago: begin again."""


class RoundTrip:
    def __init__(
        self,
        clients: Sequence[ProviderClient],
        database: Database,
        changes: Changes,
        badges: Badges,
        door: Door,
        seal: Seal,
        clock: Clock,
        *,
        own_url: str,
    ) -> None:
        self._clients = {client.provider.name: client for client in clients}
        self._database = database
        self._changes = changes
        self._badges = badges
        self._door = door
        self._seal = seal
        self._clock = clock
        self._own_url = own_url

    @property
    def titles(self) -> list[tuple[str, str]]:
        """Names and titles of the providers."""
        return [(name, client.provider.title) for name, client in self._clients.items()]

    async def begin(self, provider: str, next_path: str) -> tuple[str, str]:
        """Where the browser is sent, and what it keeps meanwhile. Raises NotFound, Unavailable."""
        client = self._client(provider)
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        where = await client.where_to(
            redirect_uri=self._redirect_uri(provider), state=state, nonce=nonce, verifier=verifier
        )
        kept = [provider, state, nonce, verifier, next_path, self._clock.now()]
        return where, urlsafe_b64encode(self._seal.close(json.dumps(kept).encode())).decode()

    async def end(self, provider: str, sealed: str, told: Mapping[str, str], visitor: Visitor) -> tuple[Entry, str]:
        """The session of whom the provider sent back, and where they go on. Raises NotAuthenticated, NotFound,
        Unavailable; a refusal is audited."""
        client = self._client(provider)
        try:
            return await self._end(client, sealed, told, visitor)
        except Unavailable:
            raise
        except ForebayError as error:
            facts: Facts = {"way": provider, "address": visitor.address, "why": error.message}
            async with self._database.writing() as connection:
                act = Act(f"provider {provider}", "session.refuse", provider, after=facts)
                await record(connection, act, self._now())
            raise

    async def _end(
        self, client: ProviderClient, sealed: str, told: Mapping[str, str], visitor: Visitor
    ) -> tuple[Entry, str]:
        provider = client.provider
        state, nonce, verifier, next_path = self._open(provider.name, sealed)
        if not hmac.compare_digest(state.encode(), told.get("state", "").encode()):
            raise Strayed
        async with self._database.writing() as connection:
            if not await spend_state(connection, state_mark(state), self._now() + 2 * _LIFE, self._now()):
                raise Strayed("This sign-in was used already: begin again.")
        # RFC 9207: so that another provider's answer is not taken for this one's.
        if "iss" in told and told["iss"] != provider.issuer:
            raise Strayed(f"This answer is not of {provider.title}.")
        if "code" not in told or len(told["code"]) > _LONGEST:
            word = told.get("error", "")
            said = f" ({word})" if 0 < len(word) < 60 and word.replace("_", "").isalnum() else ""
            raise NotAuthenticated(f"{provider.title} did not sign you in{said}.")
        arrival = await client.redeem(
            told["code"], redirect_uri=self._redirect_uri(provider.name), verifier=verifier, nonce=nonce
        )
        async with self._changes.make(self._database) as change:
            user = await receive(change, arrival, provider, self._now())
            entry = await self._door.admit_within(change, user.id, provider.name, visitor)
        await self._badges.caught_up(change.version)
        return entry, safe_next(next_path)

    def _open(self, provider: str, sealed: str) -> tuple[str, str, str, str]:
        """Raises Strayed."""
        try:
            opened = self._seal.open(urlsafe_b64decode(sealed[:_LONGEST].encode()))
            begun_with, state, nonce, verifier, next_path, begun_at = json.loads(opened)
        except (NotSealed, ValueError, binascii.Error, UnicodeError) as error:
            raise Strayed from error
        if begun_with != provider or not 0 <= self._clock.now() - begun_at < _LIFE.total_seconds():
            raise Strayed
        return state, nonce, verifier, next_path

    def _client(self, provider: str) -> ProviderClient:
        client = self._clients.get(provider)
        if client is None:
            raise NotFound("There is no such provider here.")
        return client

    def _redirect_uri(self, provider: str) -> str:
        return f"{self._own_url}/sign-in/callback/{provider}"

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)
