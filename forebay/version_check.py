"""Whether there is a newer Forebay. Nobody is asked unless a person says so and where: an address of their own, a mirror, or
the page of a package index. What is sent is a request for that page and nothing about this Forebay."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from forebay.errors import BadInput, Unavailable

_WAIT_S = 5.0
_MOST_BYTES = 8 * 1024 * 1024
"""A package index tells of all versions at once."""
_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,5})([ \w.+~-]{0,40})", re.ASCII)


def newest_at(url: str) -> str:
    """The version that the page names: text, or JSON as package indexes, GitHub and GitLab have it. Raises BadInput,
    Unavailable."""
    if not url.startswith(("https://", "http://")):
        raise BadInput(f"{url!r} is no address of a page: it begins with https:// or http://.")
    request = urllib.request.Request(url, headers={"accept": "application/json, text/plain", "user-agent": "forebay"})
    try:
        with urllib.request.urlopen(request, timeout=_WAIT_S) as answer:
            content: bytes = answer.read(_MOST_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"{url} answers {error.code}.") from error
    except (OSError, ValueError, HTTPException) as error:
        raise Unavailable(f"{url} does not answer: {getattr(error, 'reason', error)}.") from error
    return named_in(content, url)


def named_in(content: bytes, url: str) -> str:
    """Raises BadInput."""
    try:
        text = content.decode().strip()
        told = json.loads(text) if text.startswith(("{", "[", '"')) else text
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{url} names no version.") from error
    found = _named(told)
    if not isinstance(found, str) or not _VERSION.fullmatch(found):
        raise BadInput(f"{url} names no version.")
    return found.removeprefix("v")


def is_newer(there: str, here: str) -> bool:
    """By their numbers; of the same numbers, one without a word behind it (1.2.0) is newer than one with (1.2.0rc1)."""
    return _place(there) > _place(here)


def _named(told: Any) -> Any:
    if isinstance(told, list):
        told = told[0] if told else None
    if not isinstance(told, Mapping):
        return told
    info = told.get("info")
    if isinstance(info, Mapping):
        return info.get("version")
    return told.get("version") or told.get("tag_name")


def _place(version: str) -> tuple[list[int], bool]:
    found = _VERSION.fullmatch(version)
    assert found is not None
    numbers = [int(number) for number in found[1].split(".")]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return numbers, not found[2]
