"""Rows as files: CSV, JSON and Parquet, written row by row, so that an export of any length needs little memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import IO, Any, Protocol

from forebay.errors import BadInput
from forebay_admin.json_form import moment

FORMATS = ("csv", "json", "parquet")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula; the wide signs where it is set to a language that has them."""
_ROWS_OF_GROUP = 20_000

Row = Mapping[str, Any]
"""By the columns' names; what is not known is None."""


class Kind(Enum):
    MOMENT = "moment"
    """Microseconds since the epoch in the row, under the name of the column with `_us` after it."""
    TEXT = "text"
    YES_NO = "yes_no"
    WHOLE = "whole"
    """Of 64 bits."""
    COUNT = "count"
    """Of 32 bits."""
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind

    def value(self, row: Row) -> Any:
        return row[f"{self.name}_us"] if self.kind is Kind.MOMENT else row[self.name]


class Writer(Protocol):
    def write(self, row: Row) -> None: ...
    def close(self) -> None:
        """The end of what is written; the file itself stays open."""


def writer_of(form: str, file: IO[bytes], columns: Sequence[Column]) -> Writer:
    """`form`: one of FORMATS. Raises BadInput."""
    writers: dict[str, Callable[[IO[bytes], Sequence[Column]], Writer]] = {
        "csv": _Csv,
        "json": _Json,
        "parquet": _parquet,
    }
    return writers[form](file, columns)


class _Csv:
    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._columns = columns
        self._writer = csv.writer(self._text)
        self._writer.writerow([column.name for column in columns])

    def write(self, row: Row) -> None:
        self._writer.writerow([_cell(column, row) for column in self._columns])

    def close(self) -> None:
        self._text.detach()


class _Json:
    """An array with a line for each row."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = columns
        self._before = b"["

    def write(self, row: Row) -> None:
        plain = {column.name: _plain(column, row) for column in self._columns}
        self._file.write(self._before + b"\n" + json.dumps(plain, ensure_ascii=False).encode())
        self._before = b","

    def close(self) -> None:
        self._file.write(b"\n]\n" if self._before == b"," else b"[]\n")


def _parquet(file: IO[bytes], columns: Sequence[Column]) -> Writer:
    try:
        import pyarrow  # only here: it is large, and few need it
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput("Parquet needs pyarrow: pip install 'forebay[parquet]'.") from error
    return _Parquet(file, columns, pyarrow)


class _Parquet:
    def __init__(self, file: IO[bytes], columns: Sequence[Column], arrow: Any) -> None:
        self._arrow = arrow
        self._columns = columns
        self._schema = arrow.schema([(column.name, _type_of(column.kind, arrow)) for column in columns])
        self._writer = arrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= _ROWS_OF_GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        columns = {column.name: [column.value(row) for row in self._rows] for column in self._columns}
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._rows = []


def _type_of(kind: Kind, arrow: Any) -> Any:
    return {
        Kind.MOMENT: arrow.timestamp("us", tz="UTC"),
        Kind.TEXT: arrow.string(),
        Kind.YES_NO: arrow.bool_(),
        Kind.WHOLE: arrow.int64(),
        Kind.COUNT: arrow.int32(),
        Kind.NUMBER: arrow.float64(),
    }[kind]


def _plain(column: Column, row: Row) -> Any:
    value = column.value(row)
    return moment(value) if column.kind is Kind.MOMENT and value is not None else value


def _cell(column: Column, row: Row) -> str:
    value = _plain(column, row)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return harmless(value) if isinstance(value, str) else str(value)


def harmless(text: str) -> str:
    """For a cell of CSV. Models and requests may have any name, and so may be what a spreadsheet would run."""
    return f"'{text}" if text.startswith(FORMULA) else text
