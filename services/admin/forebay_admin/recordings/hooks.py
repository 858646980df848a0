"""An installation's own redactions: functions under the entry point `forebay.redactions`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import entry_points

from forebay.errors import CannotStart
from forebay_admin.recordings.redaction import Hook

log = logging.getLogger(__name__)

ENTRY_POINT = "forebay.redactions"


def load_hooks() -> Sequence[Hook]:
    """In the order of their names. Raises CannotStart: without one of them more would be kept than is meant to be."""
    hooks: list[Hook] = []
    for entry in sorted(entry_points(group=ENTRY_POINT), key=lambda entry: entry.name):
        try:
            hook = entry.load()
        except Exception as error:
            raise CannotStart(f"The redaction {entry.name} ({entry.value}) cannot be loaded: {error!r}") from error
        if not callable(hook):
            raise CannotStart(f"The redaction {entry.name} ({entry.value}) is no function from a text to a text.")
        hooks.append(hook)
        log.info("redaction loaded", extra={"action": "redaction_loaded", "redaction": entry.name})
    return hooks
