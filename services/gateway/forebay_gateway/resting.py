"""A wait during which a request may be put away. On its own, since what is compiled waits for nothing while an error is on
its way through (docs/decisions/0043)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from forebay_gateway.held_body import HeldBody, Restable

T = TypeVar("T")


async def at_rest(held: HeldBody, request: Restable, ask: Callable[[], Awaitable[T]]) -> T:
    """Raises what `ask` raises, and Refused as `HeldBody.at_rest` does."""
    async with held.at_rest(request):
        return await ask()
