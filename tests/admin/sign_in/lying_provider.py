"""A provider that says whatever the test has it say, and checks what a client owes it: its secret, PKCE, each code once."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey


@dataclass
class LyingProvider:
    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    """In place of what would be true; None takes a claim away."""
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "one"})
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    signs_with: Any = None
    answer: dict[str, Any] | None = None
    """In place of what the token endpoint would answer."""
    configuration: dict[str, Any] = field(default_factory=dict)
    groups_elsewhere: list[str] | None = None
    asked: dict[str, str] = field(default_factory=dict)
    """Of the last sign-in."""
    served: list[str] = field(default_factory=list)

    def tell_truth(self) -> None:
        self.claims, self.header, self.signs_with, self.answer = {}, {"alg": "RS256", "kid": "one"}, None, None

    def send_back(self, where: str, **more: str) -> str:
        """The address that a browser is sent back to, which was sent to `where`."""
        self.asked = {name: values[0] for name, values in parse_qs(urlsplit(where).query).items()}
        told = {"code": "code-1", "state": self.asked["state"], **more}
        return self.asked["redirect_uri"] + "?" + "&".join(f"{name}={value}" for name, value in told.items() if value)

    async def _configuration(self, request: web.Request) -> web.Response:
        self.served.append("configuration")
        usual = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        }
        return web.json_response({**usual, **self.configuration})

    async def _jwks(self, request: web.Request) -> web.Response:
        self.served.append("jwks")
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        made = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if made.decode().rstrip("=") != self.asked["code_challenge"] or form["code"] != "code-1":
            return web.json_response({"error": "invalid_grant"}, status=400)
        if request.headers.get("authorization") != f"Basic {base64.b64encode(b'forebay:s3%2Fcret').decode()}":
            return web.json_response({"error": "invalid_client"}, status=401)
        if self.answer is not None:
            return web.json_response(self.answer)
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "aud": "forebay",
            "sub": "42",
            "iat": now,
            "exp": now + 300,
            "nonce": self.asked["nonce"],
            "email": "mallory@example.org",
            "email_verified": True,
        }
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        algorithms = [self.header["alg"]]
        token = jwt.encode(self.header, claims, self.signs_with or self.key, algorithms=algorithms)
        return web.json_response({"id_token": token, "access_token": "at-1", "token_type": "Bearer"})

    async def _groups(self, request: web.Request) -> web.Response:
        if self.groups_elsewhere is None or request.headers.get("authorization") != "Bearer at-1":
            return web.json_response({"error": {"code": "Authorization_RequestDenied"}}, status=403)
        return web.json_response({"value": self.groups_elsewhere})


@asynccontextmanager
async def open_lying_provider() -> AsyncIterator[LyingProvider]:
    provider = LyingProvider()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider._configuration)
    app.router.add_get("/jwks", provider._jwks)
    app.router.add_post("/token", provider._token)
    app.router.add_post("/graph/me/getMemberObjects", provider._groups)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        provider.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()
