"""Pictures that a chat names by their address: fetched here and sent on in the request itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from forebay_gateway.canonical.data_url import as_data_url
from forebay_gateway.public_web import Fetches, NotFetched
from forebay_gateway.refused import BadField

MOST_PICTURES = 16


@dataclass(frozen=True, slots=True)
class _Place:
    param: str
    holder: dict[str, Any]
    name: str
    """Of the field that has the address."""


def names_pictures(fields: Mapping[str, Any]) -> bool:
    """Whether a chat has some that are not in it."""
    return next(_named(fields), None) is not None


class Pictures:
    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of one picture."""
        self._most_bytes = most_bytes

    async def put_into(self, fields: Mapping[str, Any], fetches: Fetches, hold: Callable[[int], None]) -> None:
        """Puts each picture that a chat names by its address into the chat. `hold` takes what that grows by from the
        budget. Raises BadField, Refused."""
        places = list(_named(fields))
        if len(places) > MOST_PICTURES:
            raise BadField(
                f"{len(places)} pictures are named by address; {MOST_PICTURES} are fetched for one request. Send the "
                "others as data: URLs.",
                param=places[MOST_PICTURES].param,
                code="invalid_value",
            )
        for place in places:
            try:
                url = await self._fetched(place, fetches, hold)
            except NotFetched as error:
                raise _unfetched(place.param, str(error)) from error
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise _unfetched(place.param, f"no answer came ({type(error).__name__})") from error
            place.holder[place.name] = url

    async def _fetched(self, place: _Place, fetches: Fetches, hold: Callable[[int], None]) -> str:
        fetched = await fetches.fetch(place.holder[place.name], self._most_bytes, hold, of_type="image/")
        url = await asyncio.to_thread(as_data_url, fetched.media_type, fetched.content)
        hold(len(url) - len(fetched.content))
        return url


def _named(fields: Mapping[str, Any]) -> Iterator[_Place]:
    messages = fields.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            told = part.get("image_url") if isinstance(part, dict) else None
            where = f"messages[{number}].content[{place}].image_url"
            if isinstance(told, str) and _is_address(told):
                yield _Place(where, part, "image_url")
            elif isinstance(told, dict) and _is_address(told.get("url")):
                yield _Place(f"{where}.url", told, "url")


def _is_address(told: Any) -> bool:
    return isinstance(told, str) and told[:4].lower() == "http"


def _unfetched(param: str, why: str) -> BadField:
    return BadField(
        f"The picture at `{param}` cannot be fetched: {why}. Send it as a data: URL.",
        param=param,
        code="invalid_image_url",
    )
