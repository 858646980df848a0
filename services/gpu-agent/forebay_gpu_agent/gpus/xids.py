"""Xid errors: what the driver reports of a GPU, as it happens. They are fetched with each reading and never waited for."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from typing import Any

import pynvml

from forebay_gpu_agent.facts import Xids
from forebay_gpu_agent.gpus.asking import word

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 64


class XidWatch:
    """From one opening of the driver to its closing. One thread at a time."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: seconds since the epoch."""
        self._now = now
        self._events: Any = None
        self._seen: dict[str, Xids] = {}
        self._uuid_of: dict[int, str] = {}
        self.new: set[str] = set()
        """The uuids of the GPUs of which the last `fetch` brought something."""

    def watch(self, handle: Any, uuid: str) -> None:
        """From now on. A GPU or a driver that has no such events is not watched."""
        try:
            if self._events is None:
                self._events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError as error:
            log.debug("no Xid events", extra={"action": "xid_watch", "uuid": uuid, "error": word(error.value)})
            return
        self._uuid_of[_address(handle)] = uuid
        self._seen.setdefault(uuid, Xids())

    def fetch(self) -> None:
        """What happened since the last call."""
        self.new.clear()
        for _ in range(_MOST_AT_ONCE if self._uuid_of else 0):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
            except pynvml.NVMLError:
                return  # a timeout: nothing more; anything else the next reading will tell
            uuid = self._uuid_of.get(_address(event.device))
            if uuid is not None and event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                self._note(uuid, int(event.eventData))

    def of(self, uuid: str) -> Xids | None:
        """None for a GPU that is not watched and never was."""
        return self._seen.get(uuid)

    def stop(self) -> None:
        """What was seen is kept. Before the driver is closed."""
        events, self._events = self._events, None
        self._uuid_of.clear()
        if events is None:
            return
        try:
            pynvml.nvmlEventSetFree(events)
        except pynvml.NVMLError as error:
            log.debug("events not freed", extra={"action": "xid_watch", "error": word(error.value)})

    def _note(self, uuid: str, xid: int) -> None:
        self._seen[uuid] = Xids(self._seen[uuid].count + 1, xid, self._now())
        self.new.add(uuid)
        log.warning("the driver reports an error of a GPU", extra={"action": "xid", "uuid": uuid, "xid": xid})


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
