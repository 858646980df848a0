"""OpenID Connect with one provider: where its addresses are, how somebody is sent there, and what a code that comes back is
worth. The authorization code flow with PKCE; whom its claims make is `claims`' business.

A provider's answers are small, come within seconds, and from the addresses that were asked: nothing is followed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from forebay.clock import Clock
from forebay.errors import Unavailable
from forebay_admin.sign_in.claims import Arrival, BadClaims, arrival, demand_valid, has_too_many_groups
from forebay_admin.sign_in.providers import Provider, ProviderKind

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""None in which the secret is the key, and never none."""
_MOST_BYTES = 1024 * 1024
_LONGEST_TOKEN = 64 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=10.0)
_DISCOVERED_S = 3600.0
_KEYS_AGAIN_S = 60.0
"""A key that is not known has the provider's keys read anew, but not more often than this."""


class ProviderClient:
    def __init__(self, provider: Provider, session: Callable[[], aiohttp.ClientSession], clock: Clock) -> None:
        self.provider = provider
        self._session = session
        self._clock = clock
        self._found: dict[str, str] = {}
        self._found_at = float("-inf")
        self._keys: KeySet | None = None
        self._keys_at = float("-inf")

    async def where_to(self, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """The address that the browser is sent to. Raises Unavailable."""
        found = await self._discover()
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        if self.provider.kind is ProviderKind.GOOGLE and len(self.provider.domains) == 1:
            asked["hd"] = self.provider.domains[0]
        mark = "&" if urlsplit(found["authorization_endpoint"]).query else "?"
        return f"{found['authorization_endpoint']}{mark}{urlencode(asked)}"

    async def redeem(self, code: str, *, redirect_uri: str, verifier: str, nonce: str) -> Arrival:
        """Who came back with this code. Raises BadClaims, Unavailable."""
        found = await self._discover()
        told = await self._exchange(found["token_endpoint"], code, redirect_uri, verifier)
        token = told.get("id_token")
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
            raise BadClaims(f"{self.provider.name} sent no token that says who this is.")
        claims = await self._claims(token, found["jwks_uri"])
        demand_valid(claims, self.provider, nonce, self._clock.now())
        groups = None
        if has_too_many_groups(claims, self.provider):
            groups = await self._groups_elsewhere(told.get("access_token"))
        return arrival(claims, self.provider, groups=groups)

    async def _discover(self) -> dict[str, str]:
        if self._clock.monotonic() - self._found_at < _DISCOVERED_S:
            return self._found
        provider = self.provider
        told = await self._get(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != provider.issuer:
            raise Unavailable(f"{provider.name}: its configuration is of another issuer than {provider.issuer}.")
        found = {}
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            url = told.get(name)
            scheme = urlsplit(url).scheme if isinstance(url, str) else ""
            if scheme != "https" and not (scheme == "http" and provider.is_plain_http):
                raise Unavailable(f"{provider.name}: its configuration has no {name} that can be used.")
            found[name] = str(url)
        self._found, self._found_at = found, self._clock.monotonic()
        return found

    async def _exchange(self, url: str, code: str, redirect_uri: str, verifier: str) -> Mapping[str, Any]:
        provider = self.provider
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": provider.client_id,
        }
        headers = {"accept": "application/json"}
        if provider.client_secret:
            # Percent-encoded before they are joined, as RFC 6749 2.3.1 has it.
            pair = f"{quote(provider.client_id, safe='')}:{quote(provider.client_secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            del form["client_id"]
        status, told = await self._ask("POST", url, data=form, headers=headers)
        if status != 200:
            why = told.get("error")
            word = why if isinstance(why, str) and len(why) < 60 and why.isprintable() else f"status {status}"
            raise BadClaims(f"{provider.name} does not accept this sign-in ({word}). Begin again.")
        return told

    async def _claims(self, token: str, jwks_uri: str) -> Mapping[str, Any]:
        keys = await self._key_set(jwks_uri, is_known=_kid(token))
        try:
            return jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise BadClaims(
                f"{self.provider.name} sent a token that it did not sign itself, or that cannot be read."
            ) from error

    async def _key_set(self, jwks_uri: str, is_known: str | None) -> KeySet:
        age = self._clock.monotonic() - self._keys_at
        known = self._keys is not None and (is_known is None or any(key.kid == is_known for key in self._keys.keys))
        if self._keys is None or age > _DISCOVERED_S or (not known and age > _KEYS_AGAIN_S):
            told = await self._get(jwks_uri)
            try:
                self._keys = KeySet.import_key_set(told)  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise Unavailable(f"{self.provider.name}: its keys cannot be read.") from error
            self._keys_at = self._clock.monotonic()
        return self._keys

    async def _groups_elsewhere(self, access_token: Any) -> list[str]:
        """Of Entra's Graph, since the token names too many. Raises BadClaims."""
        provider = self.provider
        told: Mapping[str, Any] = {}
        if provider.kind is ProviderKind.ENTRA and isinstance(access_token, str):
            _, told = await self._ask(
                "POST",
                f"{provider.graph_url}/me/getMemberObjects",
                json={"securityEnabledOnly": False},
                headers={"authorization": f"Bearer {access_token}"},
            )
        names = told.get("value")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadClaims(
                f"{provider.name} has too many groups of this person for its token, and does not tell them otherwise: have "
                "it send only groups that are assigned to this program, or allow it GroupMember.Read.All."
            )
        return names

    async def _get(self, url: str) -> Mapping[str, Any]:
        status, told = await self._ask("GET", url)
        if status != 200:
            raise Unavailable(f"{self.provider.name} answers {status} at {url}.")
        return told

    async def _ask(self, verb: str, url: str, **more: Any) -> tuple[int, Mapping[str, Any]]:
        try:
            async with self._session().request(verb, url, timeout=_TIMEOUT, allow_redirects=False, **more) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise Unavailable(f"{self.provider.name} sends more than can be meant.")
                told = json.loads(body)
                return answer.status, told if isinstance(told, dict) else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self.provider.title} does not answer just now.") from error
        except ValueError:
            return answer.status if answer.status != 200 else 502, {}


def challenge(verifier: str) -> str:
    """S256 of RFC 7636."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _kid(token: str) -> str | None:
    """Which key a token says that it was signed with; nothing is decided by it."""
    head = token.partition(".")[0]
    try:
        told = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        kid = told.get("kid")
    except (binascii.Error, ValueError, AttributeError):
        return None
    return kid if isinstance(kid, str) else None
