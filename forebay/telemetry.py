"""Logs, set up once per process: an event with fields, one JSON object a line, one readable line at a terminal, or a line of
RFC 5424; to the process's own output or to another place.

Prompts, answers and keys never reach a log; audit is a record in admin, not a log line."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from forebay.errors import BadSettings
from forebay.syslog import MOST_BYTES, Line, Place, PlaceHandler, json_line, parse_place, printable, syslog_line

FORMATS = ("auto", "json", "text", "syslog")
FORMAT_VARIABLE, PLACE_VARIABLE = "FOREBAY_LOG_FORMAT", "FOREBAY_LOG_TO"

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """`logging` records as JSON; what came in `extra` is a field of its own."""

    def __init__(self, service: str, most_bytes: int | None = None) -> None:
        super().__init__()
        self._service = service
        self._most_bytes = most_bytes

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json_line(line, self._most_bytes)


class ReadableLines(logging.Formatter):
    """The same for a person: time, level, event, then name=value. Whatever a value holds, it begins no line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={_readable(value)}" for name, value in _fields(record).items())
        line = f"{at} {record.levelname.lower():7} {printable(record.getMessage())} {fields}".rstrip()
        if not record.exc_info:
            return line
        # Indented: what an exception says may hold newlines, and then reads as a part of it and not as an event.
        trace = "\n".join(f"    {printable(part)}" for part in self.formatException(record.exc_info).split("\n"))
        return f"{line}\n{trace}"


class SyslogLines(logging.Formatter):
    """RFC 5424, one line each, fields as structured data."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._app = f"forebay-{service}"
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        action = str(fields.get("action") or "")
        line = Line(record.created, record.levelno, action, record.getMessage(), fields)
        return syslog_line(line, app=self._app, host=self._host, process=os.getpid()).decode()


def set_up_logs(service: str, level: str = "INFO", *, form: str | None = None, to: str | None = None) -> None:
    """`form` is one of FORMATS, `to` is `stderr` or what `parse_place` reads. None: as the environment says, which is also
    where processes that this one starts find them. Raises BadSettings."""
    form, place = read_log_settings({FORMAT_VARIABLE: form, PLACE_VARIABLE: to}, os.environ)
    if form == "auto":
        form = "syslog" if place is not None else "text" if sys.stderr.isatty() else "json"
    longest = None if place is None else MOST_BYTES
    formatter = {"json": JsonLines(service, longest), "text": ReadableLines(), "syslog": SyslogLines(service)}[form]
    handler = (
        logging.StreamHandler(sys.stderr) if place is None else PlaceHandler(place, counted_frames=form == "syslog")
    )
    handler.setFormatter(formatter)
    for former in logging.getLogger().handlers:
        if isinstance(former, PlaceHandler):
            former.close()
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("aiohttp.access", "alembic", "sqlalchemy.engine"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def read_log_settings(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> tuple[str, Place | None]:
    """Format, and where to; None is the process's own output. Raises BadSettings with all that is wrong."""
    form = flags.get(FORMAT_VARIABLE) or environ.get(FORMAT_VARIABLE) or "auto"
    to = flags.get(PLACE_VARIABLE) or environ.get(PLACE_VARIABLE) or "stderr"
    problems, place = [], None
    if form not in FORMATS:
        problems.append(f"{FORMAT_VARIABLE}={form}: there are {', '.join(FORMATS)}")
    if to != "stderr":
        try:
            place = parse_place(to)
        except ValueError as error:
            problems.append(f"{PLACE_VARIABLE}: {error}")
    if problems:
        raise BadSettings(problems)
    return form, place


def dropped_lines() -> int:
    """Of this process, since it began: their place took none."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, PlaceHandler))


def _readable(value: object) -> str:
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or "=" in text or '"' in text else text


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
