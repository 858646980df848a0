"""Argon2id of passwords, in threads, a few at once: each takes tens of megabytes and a good part of a second of a core."""

from __future__ import annotations

import asyncio
import base64
import os
import warnings
from typing import Any

from forebay.errors import Unavailable
from forebay_admin.unbroken import to_its_end

with warnings.catch_warnings():
    # passlib asks for what Python and argon2-cffi will take away one day; neither matters for Argon2.
    warnings.simplefilter("ignore", DeprecationWarning)
    from passlib.hash import argon2

    argon2.get_backend()

_AT_ONCE = 2
_MOST_WAITING = 64
_ROUNDS = 3


class Hashing:
    def __init__(self, memory_mib: int = 64) -> None:
        memory_kib = memory_mib * 1024
        self._argon2: Any = argon2.using(type="ID", rounds=_ROUNDS, memory_cost=memory_kib, parallelism=1)
        # The hash of nothing: no password has it, and to find that out takes as long as with any other.
        self._nobodys = f"$argon2id$v=19$m={memory_kib},t={_ROUNDS},p=1${_random(16)}${_random(32)}"
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many wait."""
        made: str = await self._in_thread(self._argon2.hash, password)
        return made

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Takes as long where there is no hash, so that nobody learns who has a password. Raises Unavailable."""
        right: bool = await self._in_thread(self._argon2.verify, password, hashed or self._nobodys)
        return right and hashed is not None

    def is_old(self, hashed: str) -> bool:
        """It was made with other work than is asked for now."""
        return bool(self._argon2.needs_update(hashed))

    async def _in_thread(self, work: Any, *arguments: str) -> Any:
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("Too many passwords are being checked just now.", retry_after_s=2.0)
        self._waiting += 1
        try:
            async with self._turns:
                return await to_its_end(asyncio.to_thread(work, *arguments))
        finally:
            self._waiting -= 1


def _random(size: int) -> str:
    return base64.b64encode(os.urandom(size)).decode().rstrip("=")
