"""Doing what a command asks for. Whether it is obeyed was decided before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from forebay.errors import NotPossible
from forebay_gpu_agent.commands import ollama
from forebay_gpu_agent.commands.judge import Order, OrderKind
from forebay_gpu_agent.engines.found import EngineKind, FoundEngine, near
from forebay_gpu_agent.sampler import ask_on_a_thread


class Finder(Protocol):
    @property
    def found(self) -> Sequence[FoundEngine]: ...
    def look_again(self) -> None: ...


class Orders:
    def __init__(
        self, finder: Finder | None, *, sample_now: Callable[[], object], reopen_driver: Callable[[], object]
    ) -> None:
        """`finder`: None where this agent does not look for engines."""
        self._finder = finder
        self._sample_now = sample_now
        self._reopen_driver = reopen_driver

    async def do(self, order: Order, progress: ollama.Progress) -> str:
        """One sentence about what was done. Raises a ForebayError when it was not. `progress` is called on this loop."""
        match order.kind:
            case OrderKind.SAMPLE:
                self._sample_now()
                return "A sample is taken now."
            case OrderKind.PROBE:
                self._reopen_driver()
                if self._finder is not None:
                    self._finder.look_again()
                self._sample_now()
                return "The driver is opened anew and engines are looked for; the next samples show what is found."
            case OrderKind.PULL:
                at = self._ollama(order.port)
                loop = asyncio.get_running_loop()

                def tell(what: str, done_bytes: int | None, total_bytes: int | None) -> None:
                    loop.call_soon_threadsafe(progress, what, done_bytes, total_bytes)

                return await ask_on_a_thread(partial(ollama.pull, near(at.listens_on), at.port, order.model, tell))
            case OrderKind.DELETE:
                at = self._ollama(order.port)
                return await ask_on_a_thread(partial(ollama.delete, near(at.listens_on), at.port, order.model))
            case None:
                raise NotPossible("This agent does not know such a command.")

    def _ollama(self, port: int) -> FoundEngine:
        """Never another address than that of an Ollama that was found here. Raises NotPossible."""
        found = [e for e in (self._finder.found if self._finder else ()) if e.kind is EngineKind.OLLAMA]
        if port:
            found = [e for e in found if e.port == port]
        if not found:
            raise NotPossible(f"No Ollama was found on this node{f' at port {port}' if port else ''}.")
        if len(found) > 1:
            ports = ", ".join(str(e.port) for e in found)
            raise NotPossible(f"There are several Ollamas on this node; name one by its port: {ports}.")
        return found[0]
