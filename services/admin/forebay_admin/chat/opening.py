"""What the chat's pages use, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.clock import Clock
from forebay.config import read_secret
from forebay.database import Database
from forebay.wire.v1 import registry_pb2
from forebay_admin.chat.chat_desk import ChatDesk
from forebay_admin.chat.chat_keys import ChatKeys
from forebay_admin.chat.conversation import ChatLimits
from forebay_admin.chat.models import Offer, offers
from forebay_admin.chat.web_search import WebSearch
from forebay_admin.config import AdminSettings
from forebay_admin.content.blob_store import BlobStore
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.people.access import Actor
from forebay_admin.people.people_desk import PeopleDesk

_KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Chat:
    desk: ChatDesk
    keys: ChatKeys
    models: ModelList
    gateway_url: str
    """Where browsers find a gateway."""
    search: WebSearch | None
    """None: no search server is named."""


class ModelList:
    """Asked for by every page that is opened, and the same for all: kept for seconds."""

    def __init__(self, registry: RegistryClient, keys: ChatKeys, clock: Clock) -> None:
        self._registry = registry
        self._keys = keys
        self._clock = clock
        self._found: Sequence[registry_pb2.FleetModel] = ()
        self._found_at = float("-inf")

    async def offered_to(self, actor: Actor) -> list[Offer]:
        """Raises Unavailable."""
        now = self._clock.monotonic()
        if now - self._found_at >= _KEPT_S:
            self._found = await self._registry.models()
            self._found_at = now
        return offers(self._found, await self._keys.limits(actor))


def make_chat(
    settings: AdminSettings,
    database: Database,
    blobs: BlobStore,
    people: PeopleDesk,
    registry: RegistryClient,
    pepper: bytes,
    clock: Clock,
) -> Chat:
    """Raises CannotStart for a key of the web search that cannot be read."""
    limits = ChatLimits(settings.chat_per_user, settings.chat_bytes_per_user, settings.chat_days)
    keys = ChatKeys(database, people, pepper, clock, binds_address=settings.chat_binds_address)
    return Chat(
        ChatDesk(database, blobs, limits, clock, has_blobs=settings.content_dir is not None),
        keys,
        ModelList(registry, keys, clock),
        settings.shown_gateway_url,
        _web_search(settings, clock),
    )


def _web_search(settings: AdminSettings, clock: Clock) -> WebSearch | None:
    if settings.web_search_url is None:
        return None
    key = read_secret(settings.web_search_key_file).decode() if settings.web_search_key_file is not None else ""
    return WebSearch(settings.web_search_url, key, clock)
