"""Ephemeral keys, made by whoever holds an API key for whoever cannot keep one."""

from __future__ import annotations

from aiohttp import web

from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.dialects.openai.ephemeral_key import parse_ephemeral_key, tell_ephemeral_key
from forebay_gateway.pages.models_and_tokens import answer_page, read_page_body
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.serving import Means

EPHEMERAL_KEYS_PATH = "/v1/ephemeral_keys"


class EphemeralKeyPages:
    def __init__(self, means: Means) -> None:
        self._means = means

    @property
    def addresses(self) -> Addresses:
        return {EPHEMERAL_KEYS_PATH: {"POST": self.create}}

    async def create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        means, principal = self._means, principal_of(self._means, call)
        wish = parse_ephemeral_key(await read_page_body(means, request))
        expires_at = int(means.clock.now()) + wish.seconds
        value = means.ephemerals.issue(principal.key_id, expires_at, wish.narrowing)
        response = answer_page(tell_ephemeral_key(value, expires_at, wish.narrowing), call)
        response.headers["cache-control"] = "no-store"
        return response
