"""Spans as OTLP over HTTP, in OpenTelemetry's messages. They are filled field by field, which costs a tenth of what its own
exporter takes for it: while that thread writes, the event loop waits. Sending blocks.

Specified at https://opentelemetry.io/docs/specs/otlp/ and, for the environment, …/specs/otel/protocol/exporter/."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from forebay.traces.spans import Attributes, Span

_AGAIN = frozenset({429, 502, 503, 504})
"""What a collector may be asked again after."""
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 5.0
_SAMPLED, _KNOWN_IF_REMOTE, _REMOTE = 0x1, 0x100, 0x200
_MOST_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go, and how."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    """For one batch, retries included."""
    compresses: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def read_collector(environ: Mapping[str, str], problems: list[str]) -> Collector | None:
    """As the environment says; what is wrong with it is added to `problems`. None: it names none."""

    def given(name: str) -> tuple[str, str]:
        """The variable for traces goes before the one for everything. Its name, and what it says."""
        names = (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}")
        found = next((each for each in names if environ.get(each, "").strip()), names[1])
        return found, environ.get(found, "").strip()

    name, url = given("ENDPOINT")
    if not url:
        return None
    if "_TRACES_" not in name:
        url = f"{url.rstrip('/')}/v1/traces"
    if not _is_http(url):
        problems.append(f"{name}: {url!r} is no address such as http://collector:4318")
    headers_name, headers = given("HEADERS")
    timeout_name, timeout = given("TIMEOUT")
    if timeout and not (timeout.isascii() and timeout.isdecimal() and int(timeout) > 0):
        problems.append(f"{timeout_name}: {timeout!r} is not a whole number of milliseconds")
        timeout = ""
    compression_name, compression = given("COMPRESSION")
    if compression not in ("", "none", "gzip"):
        problems.append(f"{compression_name}: {compression!r} is neither gzip nor none")
    files = [_file(*given(each), problems) for each in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")]
    return Collector(
        url,
        _headers(headers_name, headers, problems),
        int(timeout) / 1000 if timeout else 10.0,
        compression == "gzip",
        *files,
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _headers(variable: str, text: str, problems: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        if not equals or not name.replace("-", "").replace("_", "").isalnum() or not value.isprintable():
            problems.append(f"{variable}: write name=value,name=value; values may be percent-encoded")
            break
        headers[name] = value
    return headers


def _file(variable: str, text: str, problems: list[str]) -> Path | None:
    if text and not Path(text).is_file():
        problems.append(f"{variable}: there is no file {text}")
    return Path(text) if text else None


class Sender:
    """For the thread that exports."""

    def __init__(self, collector: Collector, is_ending: threading.Event) -> None:
        """`is_ending`: nothing is tried again any more. Raises OSError for certificates that cannot be read."""
        self._collector = collector
        self._is_ending = is_ending
        parts = urlsplit(collector.url)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._host, self._port = parts.hostname or "", parts.port
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=collector.ca_file)
            if collector.cert_file is not None:
                self._tls.load_cert_chain(collector.cert_file, collector.key_file)

    def send(self, message: bytes) -> str:
        """Gives why it could not be sent; empty: it was."""
        ends_at = time.monotonic() + self._collector.timeout_s
        body = gzip.compress(message, 1) if self._collector.compresses else message
        retry_s = _FIRST_RETRY_S
        while True:
            why, after_s = self._try(body, max(0.1, ends_at - time.monotonic()))
            wait_s = max(retry_s, after_s or 0.0)
            if after_s is None or time.monotonic() + wait_s >= ends_at or self._is_ending.wait(wait_s):
                return why
            retry_s = min(_LONGEST_RETRY_S, 2 * retry_s)

    def _try(self, body: bytes, within_s: float) -> tuple[str, float | None]:
        """Why it failed, and after how long it may be tried again, if it may."""
        headers = {"content-type": "application/x-protobuf", "user-agent": f"forebay/{version('forebay')}"}
        if self._collector.compresses:
            headers["content-encoding"] = "gzip"
        if self._tls is None:
            connection = HTTPConnection(self._host, self._port, timeout=within_s)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=within_s, context=self._tls)
        try:
            connection.request("POST", self._path, body, {**headers, **self._collector.headers})
            answer = connection.getresponse()
            answer.read(_MOST_READ)
            if 200 <= answer.status < 300:
                return "", None
            after = answer.headers.get("retry-after", "")
            again = (float(after) if after.isdecimal() else 0.0) if answer.status in _AGAIN else None
            return f"the collector answered {answer.status}", again
        except (OSError, HTTPException) as error:
            return f"{type(error).__name__}: {error}", 0.0
        finally:
            connection.close()


def make_writer(resource: Mapping[str, Any]) -> Callable[[Sequence[Span]], bytes]:
    """What makes a request to a collector of spans. Raises ModuleNotFoundError without OpenTelemetry's messages."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    def write(spans: Sequence[Span]) -> bytes:
        request = ExportTraceServiceRequest()
        by_resource = request.resource_spans.add()
        _add_attributes(by_resource.resource.attributes, resource)
        by_scope = by_resource.scope_spans.add()
        by_scope.scope.name, by_scope.scope.version = "forebay", version("forebay")
        for span in spans:
            _fill(by_scope.spans.add(), span, Status.STATUS_CODE_ERROR)
        return request.SerializeToString()

    return write


def _fill(told: Any, span: Span, failed: int) -> None:
    place = span.place
    told.trace_id, told.span_id, told.name = place.trace, place.span, span.name
    told.kind = span.kind + 1
    told.flags = _SAMPLED | _KNOWN_IF_REMOTE
    if span.parent:
        told.parent_span_id = span.parent
        if span.has_remote_parent:
            told.flags |= _REMOTE
    if place.state:
        told.trace_state = place.state
    told.start_time_unix_nano, told.end_time_unix_nano = _nanos(span.began), _nanos(span.ended)
    _add_attributes(told.attributes, span.attributes)
    if span.error:
        told.status.code = failed
        if "error.type" not in span.attributes:
            _add_attributes(told.attributes, {"error.type": span.error})
    for event in span.events:
        made = told.events.add()
        made.name, made.time_unix_nano = event.name, _nanos(event.at)


def _add_attributes(into: Any, attributes: Attributes) -> None:
    for name, value in attributes.items():
        made = into.add()
        made.key = name
        if isinstance(value, str):
            made.value.string_value = _sound(value)
        elif isinstance(value, bool):
            made.value.bool_value = value
        elif isinstance(value, int):
            made.value.int_value = value
        elif isinstance(value, float):
            made.value.double_value = value
        else:
            made.value.array_value.SetInParent()
            for each in value:
                made.value.array_value.values.add().string_value = _sound(each)


def _sound(text: str) -> str:
    """What a client sent may be no UTF-8, and is kept as it came everywhere else."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _nanos(at: float) -> int:
    return round(at * 1_000_000) * 1000
