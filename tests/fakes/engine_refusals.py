"""Error answers that an engine gives on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.engine_record import Seen


class Refused(Exception):
    """An error answer, before the first byte of any other."""

    def __init__(
        self, status: int, message: str, kind: str, *, retry_after_s: float | None = None, **more: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.more = more
        """Further fields of the error object."""


def json_object(seen: Seen) -> Mapping[str, Any]:
    """The body, which must be one, or a form."""
    if isinstance(seen.body, dict):
        return seen.body
    raise Refused(400, "the body is no JSON object, and no form", "invalid_request_error")
