"""The gateway as a service: one process, or the parent of several. Neither loads what only the other needs, since the parent
needs little, and is there for as long as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from forebay.errors import CannotStart
from forebay.service import Ground, Service
from forebay_gateway.config import GatewaySettings


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, ground: Ground) -> AsyncIterator[None]:
    async with _serving(settings, ground):
        yield


def _serving(settings: GatewaySettings, ground: Ground) -> AbstractAsyncContextManager[object]:
    """Raises CannotStart."""
    try:
        if settings.workers > 1:
            from forebay_gateway.workers.opening import serving_workers

            return serving_workers(settings, ground)
        from forebay_gateway.service import serving_gateway

        return serving_gateway(settings, ground)
    except ModuleNotFoundError as error:
        raise CannotStart(f"{error.name} is not installed here: pip install 'forebay[gateway]'.") from error


service = Service("gateway", GatewaySettings, open_gateway, needs=("admin", "registry", "scheduler"))
