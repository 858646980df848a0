"""The wheel that an invited node installs: Forebay's ground and the agent, cut out of what is installed here.

A node gets exactly the version that its admin runs, from nobody but that admin, whether this is an ordinary installation
or an editable one. What its metadata says comes from ours; the same installation always gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

from forebay.errors import CannotStart

DISTRIBUTION = "forebay"

_PACKAGES = ("forebay", "forebay_gpu_agent")
_LEFT_OUT = ("forebay/local/",)
"""What only `forebay up` needs."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_MODE = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Wheel:
    file_name: str
    content: bytes


def build_wheel() -> Wheel:
    """Blocking, some ten milliseconds. Raises CannotStart when the agent is not installed here."""
    metadata = distribution(DISTRIBUTION)
    files = dict(_sources())
    info = f"{DISTRIBUTION}-{metadata.version}.dist-info"
    files[f"{info}/METADATA"] = (metadata.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {DISTRIBUTION} ({metadata.version})\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/entry_points.txt"] = _entry_points(metadata).encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    return Wheel(f"{DISTRIBUTION}-{metadata.version}-py3-none-any.whl", _zip(files))


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CannotStart(f"The package {package} is not installed here, so nodes cannot be given an agent.")
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*")):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if path.is_file() and "__pycache__" not in path.parts and not name.startswith(_LEFT_OUT):
                yield name, path.read_bytes()


def _entry_points(metadata: Distribution) -> str:
    """Of what is in the wheel; a command whose code is elsewhere would only complain."""
    groups: dict[str, list[str]] = {}
    for point in sorted(metadata.entry_points):
        package = point.module.partition(".")[0]
        if package in _PACKAGES and not point.module.replace(".", "/").startswith(_LEFT_OUT):
            groups.setdefault(point.group, []).append(f"{point.name} = {point.value}")
    return "\n".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in sorted(groups.items()))


def _record(files: Mapping[str, bytes], own_name: str) -> str:
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(files.items())]
    return "\n".join([*lines, f"{own_name},,", ""])


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _in_order(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = _MODE
            archive.writestr(entry, files[name])
    return out.getvalue()


def _in_order(names: Iterable[str]) -> list[str]:
    """The metadata last, as PEP 427 recommends."""
    return sorted(names, key=lambda name: (".dist-info/" in name, name))
