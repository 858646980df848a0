"""Pulling and deleting a model in an Ollama on this host. Blocking: for a thread."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from forebay.errors import ForebayError, NotFound, NotPossible, Unavailable

READ_S = 120.0
"""Ollama says where it is several times a second; one that says nothing for so long hangs."""
DELETE_S = 30.0
PULL_S = 12 * 3600.0
_MOST_LINE = 64 << 10
_MOST_LAYERS = 1000
_MOST_BYTES = 2**50

Progress = Callable[[str, int | None, int | None], object]
"""(what it does, bytes done, bytes in all)"""


def pull(host: str, port: int, model: str, progress: Progress) -> str:
    """One sentence when it is there. Raises NotFound and NotPossible with Ollama's words, Unavailable."""
    sizes: dict[str, tuple[int, int]] = {}
    last, until = "", time.monotonic() + PULL_S
    for told in _lines(host, port, "POST", "/api/pull", {"model": model, "stream": True}):
        if time.monotonic() > until:
            raise Unavailable(f"{model} was not pulled within {PULL_S / 3600:.0f} hours.")
        if isinstance(error := told.get("error"), str):
            raise NotPossible(f"Ollama does not pull {model}: {error[:300]}")
        last = str(told.get("status", ""))[:200]
        digest, total, completed = told.get("digest"), told.get("total"), told.get("completed", 0)
        if isinstance(digest, str) and (size := _size(total)) is not None:
            if digest not in sizes and len(sizes) >= _MOST_LAYERS:
                raise NotPossible(f"{model} has more than {_MOST_LAYERS} layers; it is not pulled.")
            sizes[digest] = (_size(completed) or 0, size)
        if sizes:
            progress(last, sum(done for done, _ in sizes.values()), sum(size for _, size in sizes.values()))
        else:
            progress(last, None, None)
    if last != "success":
        raise Unavailable(f"Ollama stopped before {model} was there; its last word was {last!r}.")
    return f"{model} is there."


def delete(host: str, port: int, model: str) -> str:
    """One sentence when it is gone. Raises NotFound, NotPossible, Unavailable."""
    for told in _lines(host, port, "DELETE", "/api/delete", {"model": model}, read_s=DELETE_S):
        if isinstance(error := told.get("error"), str):
            raise NotPossible(f"Ollama does not delete {model}: {error[:300]}")
    return f"{model} is gone."


def _lines(
    host: str, port: int, method: str, path: str, body: dict[str, Any], read_s: float = READ_S
) -> Iterator[dict[str, Any]]:
    connection = http.client.HTTPConnection(host, port, timeout=read_s)
    try:
        connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise _refusal(response.status, response.read(_MOST_LINE), str(body["model"]))
            while line := response.readline(_MOST_LINE):
                if line.strip():
                    yield _parse(line)
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"The Ollama at port {port} does not answer: {why}.") from error
    finally:
        connection.close()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Unavailable("What listens there does not answer as Ollama does.")
    return told


def _refusal(status: int, body: bytes, model: str) -> ForebayError:
    try:
        said = str(json.loads(body)["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = f"status {status}"
    return NotFound(f"Ollama has no {model}: {said}") if status == 404 else NotPossible(f"Ollama refuses: {said}")


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_BYTES else None
