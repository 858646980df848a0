"""Whether a file can be run as a batch, told while it is read: each line by itself, and what they must have in common. Pure.

The words of its errors are OpenAI's. All of them are told together, as far as somebody would read on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from forebay_admin.batches.batch import BatchError

MOST_LINES = 50_000
MOST_LINE_BYTES = 1024**2
"""As many lines as are under way at once are in memory. Pictures that are larger go by a file's id."""
LONGEST_CUSTOM_ID = 512
_MOST_ERRORS = 100
_LINE_ENDS = re.compile(rb"\n*")


@dataclass(frozen=True, slots=True)
class InputLine:
    """Where a request stands in the file."""

    line: int
    """From 1; empty lines count."""
    custom_id: str
    first_byte: int
    size_bytes: int


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str = "") -> None:
        super().__init__(message)
        self.code, self.param = code, param


class InputCheck:
    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._rest = bytearray()
        self._is_skipping = False
        """The rest of a line that is too long."""
        self._line = 1
        self._has_too_many = False
        self._at = 0
        """Where the line begins that is being read."""
        self._line_bytes = 0
        self._first_of: dict[str, int] = {}
        """Custom id → the line that has it."""
        self._model: Any = None
        self.lines: list[InputLine] = []
        self.errors: list[BatchError] = []

    @property
    def is_hopeless(self) -> bool:
        """There are as many errors as are told, or lines as are read: reading on would find nothing new."""
        return self._has_too_many or len(self.errors) >= _MOST_ERRORS

    def feed(self, piece: bytes) -> None:
        """The next bytes of the file."""
        start = 0
        while not self.is_hopeless and (end := piece.find(b"\n", start)) >= 0:
            self._take(piece[start:end])
            self._end_line()
            start = end + 1
            if piece.startswith(b"\n", start):
                start = self._skip_empty(piece, start)
        self._take(piece[start:])

    def _skip_empty(self, piece: bytes, start: int) -> int:
        """Where the next line begins."""
        end = _LINE_ENDS.match(piece, start).end()  # type: ignore[union-attr]  # it matches none, too
        self._line += end - start
        self._at += end - start
        self._limit_lines()
        return end

    def _limit_lines(self) -> None:
        if self._line > 2 * MOST_LINES + 1 and not self._has_too_many:
            self._has_too_many = True
            self.errors.append(
                BatchError(
                    "too_many_lines", f"A file may have {2 * MOST_LINES} lines, empty ones among them.", self._line
                )
            )

    def end(self) -> None:
        """The file is over."""
        if self._line_bytes:
            self._end_line()
        if not self.lines and not self.errors:
            self.errors.append(BatchError("empty_file", "The input file has no requests in it."))

    def _take(self, part: bytes) -> None:
        self._line_bytes += len(part)
        if self._line_bytes > MOST_LINE_BYTES:
            self._is_skipping = True
            self._rest.clear()
        if not self._is_skipping:
            self._rest += part

    def _end_line(self) -> None:
        raw, size = bytes(self._rest), self._line_bytes
        if not self.is_hopeless and (self._is_skipping or raw.strip()):
            try:
                self._check(raw)
            except _Wrong as wrong:
                self.errors.append(BatchError(wrong.code, str(wrong), self._line, wrong.param))
        self._rest.clear()
        self._is_skipping, self._line_bytes = False, 0
        self._at += size + 1
        self._line += 1
        self._limit_lines()

    def _check(self, raw: bytes) -> None:
        if self._is_skipping:
            raise _Wrong("line_too_long", f"This line has more than {MOST_LINE_BYTES} bytes.")
        request = _object_in(raw)
        custom_id = request.get("custom_id")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID or "\0" in custom_id:
            raise _Wrong(
                "missing_required_parameter",
                f"`custom_id` must be a string of 1 to {LONGEST_CUSTOM_ID} characters.",
                "custom_id",
            )
        before = self._first_of.setdefault(custom_id, self._line)
        if before != self._line:
            raise _Wrong(
                "duplicate_custom_id",
                f"The custom_id {custom_id[:80]!r} is that of line {before} already.",
                "custom_id",
            )
        if request.get("method") != "POST":
            raise _Wrong("invalid_method", f"`method` is {_shown(request.get('method'))}; it must be POST.", "method")
        if request.get("url") != self._endpoint:
            raise _Wrong(
                "invalid_url",
                f"`url` is {_shown(request.get('url'))}; it must be the endpoint of the batch, {self._endpoint}.",
                "url",
            )
        self._check_body(request.get("body"))
        if len(self.lines) >= MOST_LINES:
            raise _Wrong("too_many_requests", f"A batch may have {MOST_LINES} requests; this is one more.")
        self.lines.append(InputLine(self._line, custom_id, self._at, self._line_bytes))

    def _check_body(self, body: object) -> None:
        if not isinstance(body, dict):
            raise _Wrong("missing_required_parameter", "`body` must be an object, the request itself.", "body")
        for name in ("stream", "background"):
            if body.get(name) not in (None, False):
                raise _Wrong(
                    "unsupported_parameter",
                    f"`body.{name}` must be left out: a batch has whole answers, when they are there.",
                    f"body.{name}",
                )
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise _Wrong("missing_required_parameter", "`body.model` must say which model is asked.", "body.model")
        self._model = self._model or model
        if model != self._model:
            raise _Wrong(
                "mismatched_model",
                f"`body.model` is {model[:80]!r} and that of the lines before {self._model[:80]!r}: a batch asks one model.",
                "body.model",
            )


def body_in(raw: bytes) -> bytes:
    """The request in a line that was checked."""
    return orjson.dumps(_object_in(raw)["body"])


def _object_in(raw: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Wrong("invalid_json_line", f"This line is not JSON: {error}.") from error
    if not isinstance(request, dict):
        raise _Wrong("invalid_json_line", "This line is JSON, but no object.")
    return request


def _shown(value: object) -> str:
    return "missing" if value is None else f"{value!s:.80}"
