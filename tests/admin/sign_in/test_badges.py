"""What each replica keeps in memory of sessions and tokens: it follows the database, and writes down when they were used."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.errors import NotAuthenticated, Unavailable
from forebay.keys import seal_secret
from forebay_admin.changes import Changes
from forebay_admin.people.people import EVERYONE, Role, UserOrder
from forebay_admin.people.people_store import add_user
from forebay_admin.people.permissions import Permission
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import BearerKind, new_bearer
from forebay_admin.sign_in.session_store import add_session, add_token, list_sessions, list_tokens
from forebay_admin.sign_in.sessions import MOST_SESSIONS, Lives, SessionKind, Visitor
from forebay_admin.tables import SCHEMA, users

PEPPER = b"p" * 32
LIVES = Lives(timedelta(hours=1), timedelta(days=1), timedelta(hours=1), timedelta(days=1))
HERE = Visitor(SessionKind.WEB, "1.2.3.4", "browser")


async def test_what_is_used_stays_and_is_written_down_to_the_minute(admin_database_url: str) -> None:
    clock = ManualClock()
    changes, badges = Changes(), Badges(LIVES, PEPPER, clock)

    def now() -> datetime:
        return datetime.fromtimestamp(clock.now(), UTC)

    session, token = new_bearer(BearerKind.SESSION), new_bearer(BearerKind.TOKEN)
    with pytest.raises(Unavailable):
        badges.demand(str(session))
    async with open_database(admin_database_url, SCHEMA) as database:
        async with changes.make(database) as change:
            alice = await add_user(change, UserOrder("alice", EVERYONE, Role.MEMBER), now())
            for number in range(MOST_SESSIONS):
                await add_session(
                    change,
                    session_id=f"old{number:09}",
                    secret_hmac=bytes(32),
                    user=alice,
                    visitor=HERE,
                    way="password",
                    expires_at=now() + timedelta(days=1),
                    now=now() - timedelta(seconds=MOST_SESSIONS - number),
                )
            await add_session(
                change,
                session_id=session.id,
                secret_hmac=seal_secret(PEPPER, session.secret),
                user=alice,
                visitor=HERE,
                way="password",
                expires_at=now() + timedelta(days=1),
                now=now(),
            )
            await add_token(
                change,
                token_id=token.id,
                secret_hmac=seal_secret(PEPPER, token.secret),
                name="ci",
                owner=alice,
                permissions=(Permission("keys:read"),),
                expires_at=now() + timedelta(days=1),
                created_by="alice",
                now=now(),
            )
        async with database.reading() as connection:
            found = await list_sessions(connection, LIVES, now(), user_id=alice.id)
        assert len(found) == MOST_SESSIONS
        assert "old000000000" not in {one.id for one in found}  # which was not used for the longest
        following = asyncio.create_task(badges.follow(database, changes))
        try:
            await badges.loaded()
            for _ in range(3):  # an hour and a half, never idle for one
                clock.advance(1800)
                assert badges.demand(str(session)).user_name == "alice"
                assert badges.demand(str(token)).within == (Permission("keys:read"),)
            await badges.write_seen(database, changes)
            await badges.write_seen(database, changes)  # nothing new
            async with database.reading() as connection:
                newest = (await list_sessions(connection, LIVES, now(), user_id=alice.id))[0]
                used = (await list_tokens(connection, user_id=alice.id, include_revoked=False))[0]
            assert (newest.id, newest.last_seen_at) == (session.id, now())
            assert used.last_used_at == now()
            clock.advance(3600)
            with pytest.raises(NotAuthenticated, match="not used for too long"):
                badges.demand(str(session))
            assert badges.demand(str(token))
            clock.advance(86_400 - 9000 + 300)  # five minutes after the token's day
            badges.forget_past()
            with pytest.raises(NotAuthenticated, match="token has expired"):
                badges.demand(str(token))
            names = [f"{BearerKind.SESSION}-old{MOST_SESSIONS - 1:09}", session.name, token.name]
            assert [badges.find(name) is not None for name in names] == [False, False, True]
            clock.advance(600)
            badges.forget_past()
            with pytest.raises(NotAuthenticated, match="not known here"):
                badges.demand(str(token))
            # One that is used elsewhere, or whose user changes, is read again.
            async with changes.make(database) as change:
                await change.connection.execute(users.update().values(version=change.version))
            await badges.caught_up(change.version)
            assert badges.find(token.name) is not None
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
