"""A request that is a form with files (`multipart/form-data`). Pure: `body.py` reads it, `upstream.py` sends it on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class File:
    field: str
    filename: str
    content_type: str
    path: Path
    """Where its bytes lie."""


@dataclass(slots=True)
class Upload:
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Fields and their values, in the order in which they came; a field may come several times."""
    files: list[File] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for field, value in self.texts if field == name), None)

    def has_file(self, *names: str) -> bool:
        return any(file.field in names for file in self.files)

    @property
    def text_bytes(self) -> int:
        return sum(len(value) for _, value in self.texts)

    def with_text(self, name: str, value: str) -> Upload:
        texts = [(field, value if field == name else old) for field, old in self.texts]
        return replace(self, texts=texts if self.text(name) is not None else [*texts, (name, value)])
