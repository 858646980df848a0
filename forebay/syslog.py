"""Logs to another place than the process's own output: lines of RFC 5424 or of JSON, none longer than receivers take, and a
place that may be slow, full or away.

A line is made where it is logged and sent by a thread. Between them is a queue with an end: while the place takes nothing
the service goes on, and what the queue has no room for is counted and told once lines pass again."""

from __future__ import annotations

import atexit
import errno
import json
import logging
import queue
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

MOST_BYTES = 8192
"""Of one line. Receivers must take 480 and should take 2048; the usual ones take 8 KiB. (RFC 5424, 6.1)"""

QUEUED = 10_000
"""Lines that wait for the place."""

_SD_ID = "forebay@32473"
"""The number is the one kept for documentation (RFC 5612): nobody has registered one for this project."""

_DAEMON = 3
_SEVERITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_MOST_VALUE = 1024
_MOST_STRUCTURED = 6144
_LEAST_VALUE = 64
_MOST_NAME = 128
_CONNECT_S, _SEND_S = 3.0, 5.0
_FIRST_RETRY_S, _LAST_RETRY_S = 0.25, 10.0
_FAREWELL_S = 2.0

# Control characters, the separators that some readers end a line at, and what turns the direction of text around.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOT_A_NAME = re.compile(r"[^\x21-\x7e]|[=\]\"]")
_SPECIAL = re.compile(r'(["\\\]])')


def printable(text: str) -> str:
    """On one line whatever it says, and as it reads: nothing in it can begin another line or hide what follows."""
    return _UNPRINTABLE.sub(lambda found: _NAMED.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one event."""

    at: float
    """Seconds since the epoch."""
    level: int
    action: str
    event: str
    fields: Mapping[str, object]


def syslog_line(line: Line, *, app: str, host: str, process: int) -> bytes:
    """RFC 5424, at most MOST_BYTES. What is too long is cut; fields that have no room are left out and said to be."""
    severity = next((_SEVERITY[level] for level in _SEVERITY if line.level >= level), 7)
    at = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = f"<{_DAEMON * 8 + severity}>1 {at} {_name(host, 255)} {_name(app, 48)} {process} {_name(line.action, 32)}"
    whole = f"{head} {_structured(line.fields)} ".encode() + b"\xef\xbb\xbf" + printable(line.event).encode()
    return _within_bound(whole)


def _within_bound(line: bytes) -> bytes:
    """Cut between two characters."""
    return line if len(line) <= MOST_BYTES else line[:MOST_BYTES].decode(errors="ignore").encode()


def json_line(fields: Mapping[str, object], most: int | None) -> str:
    """One object, in ASCII. What `most` bytes have no room for is cut: the longest values first, to less and less of their
    beginning and their end; then the last fields, of which `left_out` tells the number."""
    line = json.dumps(fields, default=str)
    if most is None or len(line) <= most:
        return line
    cut, characters = dict(fields), most
    while characters > _LEAST_VALUE:
        characters //= 2
        cut = {name: _cut(value, characters) for name, value in fields.items()}
        line = json.dumps(cut, default=str)
        if len(line) <= most:
            return line
    left = list(cut)
    while len(line) > most and left:
        del left[-max(1, len(left) // 8) :]
        named = {name[:_MOST_NAME]: cut[name] for name in left}
        line = json.dumps(named | {"left_out": len(cut) - len(left)}, default=str)
    return line


def _cut(value: object, characters: int) -> object:
    """As it is when it is short, else both ends of its text."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    half = characters // 2
    return value if len(text) <= characters else f"{text[:half]} … {text[-half:]}"  # a traceback's end says what it was


def _structured(fields: Mapping[str, object]) -> str:
    parts, room, left_out = [], _MOST_STRUCTURED, 0
    for name, value in fields.items():
        text = printable(str(value))
        if len(text) > _MOST_VALUE:
            text = text[:_MOST_VALUE] + "…"
        part = f' {_name(name, 32)}="{_SPECIAL.sub(_escaped, text)}"'
        size = len(part.encode())
        if size > room:
            left_out += 1
            continue
        room -= size
        parts.append(part)
    if left_out:
        parts.append(f' left_out="{left_out}"')
    return f"[{_SD_ID}{''.join(parts)}]" if parts else "-"


def _escaped(found: re.Match[str]) -> str:
    return "\\" + found[1]


def _name(text: str, most: int) -> str:
    return _NOT_A_NAME.sub("_", text)[:most] or "-"


# --- the place --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    kind: str
    """udp, tcp or unix."""
    host: str
    port: int
    path: str = ""


def parse_place(text: str) -> Place:
    """`udp://host:514`, `tcp://host:601` or `unix:/dev/log`. Raises ValueError with what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text}: write the whole path of the socket, as in unix:/dev/log")
        return Place("unix", "", 0, path)
    parts = urlsplit(text)
    if parts.scheme not in ("udp", "tcp"):
        raise ValueError(f"{text}: write stderr, udp://host:514, tcp://host:601 or unix:/dev/log")
    port = parts.port  # raises ValueError itself for what is no port
    if not parts.hostname or not port or parts.path not in ("", "/"):
        raise ValueError(f"{text}: write a host and a port, as in {parts.scheme}://logs.example.org:601")
    return Place(parts.scheme, parts.hostname, port)


class PlaceHandler(logging.Handler):
    """Sends what its formatter makes. Never blocks whoever logs, and never raises."""

    def __init__(self, place: Place, *, counted_frames: bool, most: int = QUEUED) -> None:
        """`counted_frames`: over TCP each line is preceded by its length (RFC 6587), else followed by a newline."""
        super().__init__()
        self._place = place
        self._counted = counted_frames
        self._waiting: queue.Queue[bytes] = queue.Queue(most)
        self._dropped_before = 0
        self.dropped = 0
        self._socket: socket.socket | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._put(self.format(record))
        except Exception:
            self.handleError(record)

    def _put(self, text: str) -> None:
        try:
            # Those of our own forms are within it; what is for people to read may be of any length.
            self._waiting.put_nowait(_within_bound(text.encode(errors="backslashreplace")))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """What waits is sent, if it goes within two seconds."""
        atexit.unregister(self.close)
        self._closing.set()
        self._thread.join(_FAREWELL_S)
        super().close()

    # On the thread

    def _run(self) -> None:
        while True:
            try:
                line = self._waiting.get(timeout=0.1)
            except queue.Empty:
                if self._closing.is_set():
                    break
                continue
            if not self._deliver(line):
                break
            if self.dropped > self._dropped_before and self._waiting.empty():
                self._tell_dropped()
        if self._socket is not None:
            self._socket.close()

    def _tell_dropped(self) -> None:
        lost, self._dropped_before = self.dropped - self._dropped_before, self.dropped
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "log lines were dropped, their place took none",
                "action": "logs_dropped",
                "lines": lost,
            }
        )
        self._put(self.format(record))

    def _deliver(self, line: bytes) -> bool:
        """Until it went, or until it is time to go."""
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                self._send(line)
                return True
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.dropped += 1
                    return True
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            if self._closing.wait(delay_s):
                return False
            delay_s = min(2 * delay_s, _LAST_RETRY_S)

    def _send(self, line: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        if self._place.kind == "tcp":
            self._socket.sendall(b"%d %s" % (len(line), line) if self._counted else line + b"\n")
        else:
            self._socket.send(line)

    def _connect(self) -> socket.socket:
        """Raises OSError."""
        if self._place.kind == "tcp":
            made = socket.create_connection((self._place.host, self._place.port), _CONNECT_S)
        elif self._place.kind == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._place.host, self._place.port, type=socket.SOCK_DGRAM
            )[0]
            made = socket.socket(family, kind, protocol)
            made.connect(address)
        else:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.connect(self._place.path)
            except OSError:
                made.close()
                raise
        made.settimeout(_SEND_S)
        return made
