"""How looks at engines end. Pure."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a probe ended; also the label of its metric."""

    SUCCESS = "success"
    LOADING = "loading"
    """It answers that its model is being loaded."""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CREDENTIAL = "credential"
    STATUS = "status"
    BAD_ANSWER = "bad_answer"
