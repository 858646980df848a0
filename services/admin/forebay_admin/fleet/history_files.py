"""History as files: which columns they have, and of which kind. `row_files` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from forebay_admin import row_files
from forebay_admin.fleet.history_rows import TEXTS, columns_of
from forebay_admin.row_files import FORMATS as FORMATS
from forebay_admin.row_files import Column, Kind
from forebay_admin.row_files import Writer as Writer


def writer_of(form: str, file: IO[bytes], metrics: Sequence[str]) -> Writer:
    """`form`: one of FORMATS. Raises BadInput."""
    return row_files.writer_of(form, file, [Column(name, _kind(name)) for name in columns_of(metrics)])


def _kind(name: str) -> Kind:
    if name == "at":
        return Kind.MOMENT
    if name in TEXTS:
        return Kind.TEXT
    if name == "energy_estimated":
        return Kind.YES_NO
    return Kind.COUNT if name.endswith("_samples") else Kind.NUMBER
