"""What becomes of a line: by what a gateway answered, by what the ledger says, and how its entry in a file looks. Pure.

A line is never done twice. Only an answer, or the ledger, says whether it was done: see `judged_by_ledger`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from forebay.errors import Refusal
from forebay_admin.batches.batch import Ending

MOST_TRIES_OF_ENGINES = 3
"""Engines may fail because of what they are asked."""
LONG_BYTES = 32 * 1024
"""More is read as JSON on a thread: other calls to admin wait for its loop."""

_ENDED_KEYS = (Refusal.KEY_REVOKED, Refusal.KEY_EXPIRED)
_FINISHED = "finished"


class Fault(StrEnum):
    """Why a line has no answer, in its entry."""

    ANSWER_LOST = "answer_lost"
    ANSWER_TOO_LONG = "answer_too_long"
    BATCH_EXPIRED = "batch_expired"
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_FAILED = "batch_failed"


MESSAGES: Mapping[Fault, str] = {
    Fault.ANSWER_LOST: "This request was done and is charged, but its answer was lost on the way. It was not done again.",
    Fault.ANSWER_TOO_LONG: (
        "This request was done and is charged, but its answer has more bytes than a batch keeps of one. "
        "It was not done again; ask for less in one request."
    ),
    Fault.BATCH_EXPIRED: "This request could not be executed before the completion window expired.",
    Fault.BATCH_CANCELLED: "This request was not executed to its end before the batch was cancelled.",
    Fault.BATCH_FAILED: "This request was not executed to its end before the batch failed.",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a line has in the end: this or a Fault."""

    status: int
    request_id: str
    body: bytes
    """As it came."""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Heard:
    """A gateway's whole answer."""

    status: int
    request_id: str
    reason: str
    """Of a refusal, its word; else empty."""
    retry_after_s: float | None
    body: bytes
    may_retry: bool = True
    """False: the gateway says that trying again changes nothing, or would be paid again."""


@dataclass(frozen=True, slots=True)
class Done:
    answer: Answer


@dataclass(frozen=True, slots=True)
class Again:
    """Nobody did it: it waits for another try, and the batch for a while."""

    why: str
    after_s: float | None = None
    """None: nobody knows."""
    engine_failed: bool = False
    """Perhaps because of what it was asked, so not for ever."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The whole batch ends here."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Lost:
    """It was done, and the answer is not to be had."""


def judged(heard: Heard, engine_failures: int) -> Done | Again | Stop:
    """`engine_failures`: how often engines have failed on this line before."""
    if heard.status == 401:
        if heard.reason in _ENDED_KEYS:
            return Stop(heard.reason, f"The API key of this batch does not work any more: {_message_in(heard.body)}")
        return Again(f"a gateway does not take the delegation: {_message_in(heard.body)}")
    if heard.status in (408, 429, 503) or heard.reason in (Refusal.DRAINING, Refusal.STARTING):
        return Again(heard.reason or str(heard.status), heard.retry_after_s)
    if heard.status in (500, 502, 504) and heard.may_retry and engine_failures + 1 < MOST_TRIES_OF_ENGINES:
        return Again(heard.reason or str(heard.status), heard.retry_after_s, engine_failed=True)
    return Done(Answer(heard.status, heard.request_id, heard.body))


def judged_by_ledger(outcome: str) -> Lost | Again:
    """Of a line that was sent and whose answer is not there, once the ledger has its row. The row stands for ever, and the
    first of a ledger id is the one that counts: who is to do a line again first makes sure that there is one."""
    return Lost() if outcome == _FINISHED else Again(outcome)


def fault_of(ending: Ending) -> Fault:
    """Of the lines that a batch leaves behind."""
    return {
        Ending.EXPIRED: Fault.BATCH_EXPIRED,
        Ending.CANCELLED: Fault.BATCH_CANCELLED,
    }.get(ending, Fault.BATCH_FAILED)


def request_id_of(ledger_id: bytes) -> str:
    """By which `forebay explain` and the ledger know the request, too."""
    return f"batch_req_{ledger_id.hex()}"


def entry(id: str, custom_id: str, outcome: Answer | tuple[str, str]) -> bytes:
    """A line of the output or the error file, with its end. `outcome`: an answer, or an error's code and message."""
    told: dict[str, Any] = {"id": id, "custom_id": custom_id, "response": None, "error": None}
    if isinstance(outcome, Answer):
        told["response"] = {
            "status_code": outcome.status,
            "request_id": outcome.request_id,
            "body": orjson.Fragment(_one_line(outcome.body)),
        }
    else:
        told["error"] = {"code": outcome[0], "message": outcome[1]}
    return orjson.dumps(told) + b"\n"


def _one_line(body: bytes) -> bytes:
    """As JSON that has no line's end in it; what is no JSON, such as a proxy's page, as a string."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return orjson.dumps(body.decode(errors="replace"))
    return orjson.dumps(told) if b"\n" in body or b"\r" in body else body


def _message_in(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
