"""The files that pages need: one style sheet, pictures, and the scripts that `make web` builds. Each has an address made of
its content, so that browsers keep it for a year and never have an old one. Read once, compressed once."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from forebay.errors import NotFound

STATIC = Path(__file__).parent / "static"
BUILT = "built"
"""The folder of what is built and not committed. Without it pages work, and have no plots and no chat."""

_PREFIX = "/assets"
_YEAR = "public, max-age=31536000, immutable"
_SQUEEZED = (".css", ".js", ".svg", ".json", ".txt")


class NoSuchFile(NotFound):
    """There is no such file; a page that is older than this version has to be loaded again."""


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    squeezed: bytes | None
    kind: str


class Assets:
    def __init__(self, folder: Path = STATIC) -> None:
        self._by_address: dict[str, Asset] = {}
        self._addresses: dict[str, str] = {}
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        # Scripts import one another by relative addresses, so all that is built lies under one mark.
        built = [path for path in files if path.is_relative_to(folder / BUILT)]
        together = _mark(b"".join(path.read_bytes() for path in built))
        for path in files:
            name = path.relative_to(folder).as_posix().removeprefix(f"{BUILT}/")
            body = path.read_bytes()
            self._take(name, path, body, together if path in built else _mark(body))

    def _take(self, name: str, path: Path, body: bytes, mark: str) -> None:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        squeezed = gzip.compress(body, 9, mtime=0) if path.suffix in _SQUEEZED and len(body) > 1000 else None
        address = f"{_PREFIX}/{mark}/{name}"
        self._by_address[address] = Asset(body, squeezed, kind)
        self._addresses[name] = address

    def address(self, name: str) -> str | None:
        """None: it was not built."""
        return self._addresses.get(name)

    def sizes(self) -> dict[str, int]:
        """Bytes, by name."""
        return {name: len(self._by_address[address].body) for name, address in self._addresses.items()}

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{_PREFIX}/{{mark}}/{{name:.+}}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        asset = self._by_address.get(request.path)
        if asset is None:
            raise NoSuchFile
        headers = {"cache-control": _YEAR, "vary": "accept-encoding"}
        body = asset.body
        if asset.squeezed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            body = asset.squeezed
            headers["content-encoding"] = "gzip"
        text = asset.kind.startswith("text/") or asset.kind.endswith(("javascript", "json", "svg+xml"))
        return web.Response(body=body, content_type=asset.kind, charset="utf-8" if text else None, headers=headers)


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
