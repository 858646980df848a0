"""A batch: what a user may ask for, through which statuses it goes, and why it ends as it does. Pure.

validating ─► in_progress ─► finalizing ─► completed | expired | failed
     │ └─► failed   │
     └──────────────┴─► cancelling ─► cancelled"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput, NotPossible

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations")
WINDOW = timedelta(hours=24)
PURPOSE = "batch"
"""Of an input file."""
OUTPUT_PURPOSE = "batch_output"
USUAL_OUTPUT_S = 30 * 86400
"""How long output and error file are kept when nobody says."""
MOST_INPUT_BYTES = 200 * 1000 * 1000


class Status(StrEnum):
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


UNFINISHED = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


class Ending(StrEnum):
    """Why no more lines are sent."""

    COMPLETED = "completed"
    FAILED = "failed"
    """Its key stopped working, or its input is gone."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def status(self) -> Status:
        return Status(self.value)


@dataclass(frozen=True, slots=True)
class BatchError:
    """What is wrong with the batch itself, or with a line of its input."""

    code: str
    message: str
    line: int | None = None
    """From 1."""
    param: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for."""

    user_id: str
    key_id: str
    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str]
    output_expires_s: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    order: Order
    status: Status
    created_at: datetime
    expires_at: datetime
    ending: Ending | None = None
    """Known from the moment it is finalizing."""
    errors: Sequence[BatchError] = ()
    entered_at: Mapping[Status, datetime] = field(default_factory=dict)
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED


def demand_order(order: Order) -> Order:
    """Raises BadInput. What the gateway checks in OpenAI's words is looked at again where it decides what is sent."""
    if order.endpoint not in ENDPOINTS:
        raise BadInput(f"There are no batches of {order.endpoint[:80]!r}; there are of {', '.join(ENDPOINTS)}.")
    if len(order.metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in order.metadata.items()):
        raise BadInput("metadata may have 16 entries, their names 64 characters and what they say 512.")
    return order


def demand_input(purpose: object, size_bytes: int, file_id: str) -> None:
    """Raises BadInput when this file is not one that a batch can be made of."""
    if purpose != PURPOSE:
        raise BadInput(
            f"The file {file_id} has the purpose {purpose!s:.40}; upload the input of a batch with the purpose {PURPOSE}."
        )
    if size_bytes > MOST_INPUT_BYTES:
        raise BadInput(f"The file {file_id} has {size_bytes} bytes; the input of a batch may have {MOST_INPUT_BYTES}.")


def demand_cancellable(batch: Batch) -> None:
    """Raises NotPossible."""
    if batch.status not in (Status.VALIDATING, Status.IN_PROGRESS, Status.CANCELLING):
        raise NotPossible(f"Cannot cancel a batch with status '{batch.status}'.")


def may_become(before: Status, after: Status) -> bool:
    return after in _NEXT[before]


_NEXT: Mapping[Status, tuple[Status, ...]] = {
    Status.VALIDATING: (Status.IN_PROGRESS, Status.FAILED, Status.EXPIRED, Status.CANCELLING),
    Status.IN_PROGRESS: (Status.FINALIZING, Status.CANCELLING),
    Status.FINALIZING: (Status.COMPLETED, Status.FAILED, Status.EXPIRED),
    Status.CANCELLING: (Status.CANCELLED,),
    Status.COMPLETED: (),
    Status.FAILED: (),
    Status.EXPIRED: (),
    Status.CANCELLED: (),
}
