"""One kind of object in one namespace, kept as the API tells it: a list, then a watch from there on. Pure but for the state.

How a watch goes on after each of its ends is told in https://kubernetes.io/docs/reference/using-api/api-concepts/"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from forebay.errors import ForebayError
from forebay_registry.discovery.kubernetes.objects import Key, read_key

MOST_OBJECTS = 20_000


class NotTheApi(ForebayError):
    """What answers is not the API of Kubernetes."""


class Expired(ForebayError):
    """The API does not remember that version any more; list again."""


class Collection:
    def __init__(self) -> None:
        self.objects: dict[Key, Any] = {}
        self.version = ""
        """The resourceVersion to watch from."""

    def begin(self, items: Iterable[Any], version: str) -> None:
        """All that there is."""
        self.objects = {key: item for item in items if (key := read_key(item)) is not None}
        self.version = version

    def take(self, line: bytes) -> bool:
        """One event of a watch; whether an object changed. Raises Expired, NotTheApi."""
        try:
            event = orjson.loads(line)
            kind, item = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise NotTheApi("A line of the watch is not an event.") from error
        if kind == "ERROR":
            if isinstance(item, dict) and item.get("code") == 410:
                raise Expired
            said = item.get("message") if isinstance(item, dict) else None
            raise NotTheApi(f"The watch ends with an error: {str(said)[:200]}.")
        meta = item.get("metadata") if isinstance(item, dict) else None
        version = meta.get("resourceVersion") if isinstance(meta, dict) else None
        if isinstance(version, str) and version:
            self.version = version
        key = read_key(item)
        if kind == "BOOKMARK" or key is None:
            return False
        if kind == "DELETED":
            return self.objects.pop(key, None) is not None
        if kind in ("ADDED", "MODIFIED") and (key in self.objects or len(self.objects) < MOST_OBJECTS):
            self.objects[key] = item
            return True
        return False


def read_list(body: bytes) -> tuple[list[Any], str, str]:
    """(items, resourceVersion, where the next page continues: empty at the end). Raises NotTheApi."""
    try:
        page = orjson.loads(body)
        items, meta = page["items"], page["metadata"]
        version, more = meta["resourceVersion"], meta.get("continue") or ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTheApi from error
    if items is None:
        items = []  # how Go writes an empty list
    if not isinstance(items, list) or not isinstance(version, str) or not isinstance(more, str):
        raise NotTheApi
    return items, version, more
