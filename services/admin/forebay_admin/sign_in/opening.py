"""Signing in, put together from the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp

from forebay.clock import Clock
from forebay.config import parse_address
from forebay.database import Database
from forebay.errors import Unavailable
from forebay.sealed import Seal
from forebay_admin.changes import Changes
from forebay_admin.config import AdminSettings
from forebay_admin.people.directory import Directory
from forebay_admin.people.rights_desk import RightsDesk
from forebay_admin.sign_in import round_trip
from forebay_admin.sign_in.access_desk import AccessDesk
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.door import Door
from forebay_admin.sign_in.hashing import Hashing
from forebay_admin.sign_in.http import SignInRoutes
from forebay_admin.sign_in.oidc import ProviderClient
from forebay_admin.sign_in.pages import Draws
from forebay_admin.sign_in.password_store import forget_old
from forebay_admin.sign_in.providers import read_providers
from forebay_admin.sign_in.round_trip import RoundTrip
from forebay_admin.sign_in.session_store import forget_sessions
from forebay_admin.sign_in.sessions import Lives
from forebay_admin.sign_in.waiting_room import WaitingRoom

log = logging.getLogger(__name__)

_KEEP_S = 60.0
_FORGET_AFTER = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SignIn:
    rights: RightsDesk
    access: AccessDesk
    routes: SignInRoutes
    door: Door
    badges: Badges
    database: Database
    changes: Changes
    clock: Clock

    async def keep(self) -> None:
        """For ever: writes down what was used when, and forgets what is over."""
        while True:
            await asyncio.sleep(_KEEP_S)
            self.badges.forget_past()
            try:
                await self.badges.write_seen(self.database, self.changes)
                now = datetime.fromtimestamp(self.clock.now(), UTC)
                async with self.database.writing() as connection:
                    await forget_old(connection, now)
                    await forget_sessions(connection, now - _FORGET_AFTER)
            except Unavailable as error:
                log.debug("sessions not kept", extra={"action": "sessions_wait", "why": error.message})


@asynccontextmanager
async def open_sign_in(
    settings: AdminSettings,
    database: Database,
    changes: Changes,
    directory: Directory,
    badges: Badges,
    pepper: bytes,
    clock: Clock,
    draws: Draws,
    *,
    own_url: str,
    on_refused: Callable[[str, str], None] = lambda name, address: None,
) -> AsyncIterator[SignIn]:
    """`draws`: makes pages of templates. `own_url`: where others reach the HTTP port. `on_refused`: as Door has it.
    Raises CannotStart for a file of providers that is wrong."""
    providers = await asyncio.to_thread(read_providers, settings.providers_file)
    lives = session_lives(settings)
    hashing = Hashing(settings.password_hash_mib)
    door = Door(database, changes, badges, hashing, lives, pepper, clock, on_refused)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        trip = RoundTrip(
            [ProviderClient(provider, lambda: session, clock) for provider in providers.values()],
            database,
            changes,
            badges,
            door,
            Seal.from_file(settings.seal_key_file, round_trip.PURPOSE),
            clock,
            own_url=own_url,
        )
        waiting_room = WaitingRoom(database, changes, badges, door, pepper, clock)
        yield SignIn(
            rights=RightsDesk(database, changes, directory, badges, clock),
            access=AccessDesk(
                database,
                changes,
                badges,
                door,
                lives,
                pepper,
                clock,
                reset_url=f"{own_url}/sign-in/password",
            ),
            routes=SignInRoutes(
                door,
                waiting_room,
                trip,
                badges,
                pepper,
                clock,
                draws,
                own_url=own_url,
                grpc_address=_grpc_address(settings),
            ),
            door=door,
            badges=badges,
            database=database,
            changes=changes,
            clock=clock,
        )


def session_lives(settings: AdminSettings) -> Lives:
    return Lives(
        timedelta(seconds=settings.session_idle_s),
        timedelta(seconds=settings.session_longest_s),
        timedelta(seconds=settings.program_session_idle_s),
        timedelta(seconds=settings.program_session_longest_s),
    )


def _grpc_address(settings: AdminSettings) -> str:
    """What programs are told; `:PORT` where the host is the one that they came to."""
    if settings.public_grpc is not None:
        return settings.public_grpc
    return f":{parse_address(settings.operators_listen or settings.listen)[1]}"
