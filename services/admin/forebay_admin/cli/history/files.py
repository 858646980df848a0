"""History as files: CSV, JSON and Parquet, written row by row, so that an export of any length needs little memory."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from forebay.errors import BadInput
from forebay_admin.cli.history.points import ENERGIES, STATISTICS, Point
from forebay_admin.cli.words import moment

FORMATS = ("csv", "json", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
_ROWS_OF_GROUP = 20_000

Row = Mapping[str, Any]
TEXTS = ("kind", "name", "id")


def columns_of(metrics: Sequence[str]) -> list[str]:
    """Of every format: one row for each series and time."""
    told = [f"{metric}_{statistic}" for metric in metrics for statistic in (*STATISTICS, "samples")]
    return ["at", *TEXTS, *told, *(f"energy_{name}" for name in ENERGIES), "energy_estimated"]


def row_of(point: Point, kind: str, name: str, series_id: str, metrics: Sequence[str]) -> Row:
    """What is not known is None. `at_us` stands for `at`."""
    row: dict[str, Any] = {"at_us": point.at_us, "kind": kind, "name": name, "id": series_id}
    for metric in metrics:
        told = point.values.get(metric, (None,) * len(STATISTICS))
        row |= {f"{metric}_{statistic}": number for statistic, number in zip(STATISTICS, told, strict=True)}
        row[f"{metric}_samples"] = point.samples.get(metric, 0)
    row |= {f"energy_{energy}": wh for energy, wh in zip(ENERGIES, point.energies, strict=True)}
    row["energy_estimated"] = point.is_estimated
    return row


class Writer(Protocol):
    def write(self, row: Row) -> None: ...
    def close(self) -> None: ...


@contextmanager
def open_writer(kind: str, path: str, metrics: Sequence[str]) -> Iterator[Writer]:
    """`path` of `-`: standard output. A file is there when all of it is, and replaces the one of that name. Raises
    BadInput."""
    writers: dict[str, Callable[[IO[bytes], Sequence[str]], Writer]] = {"csv": _Csv, "json": _Json, "parquet": _parquet}
    open_one = writers[kind]
    if path == "-":
        if kind == "parquet":
            raise BadInput("Parquet is not for a terminal: name a file with -o.")
        writer = open_one(sys.stdout.buffer, metrics)
        yield writer
        writer.close()
        return
    target = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.") from error
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            writer = open_one(file, metrics)
            yield writer
            writer.close()
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class _Csv:
    def __init__(self, file: IO[bytes], metrics: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._columns = columns_of(metrics)
        self._writer = csv.writer(self._text)
        self._writer.writerow(self._columns)

    def write(self, row: Row) -> None:
        self._writer.writerow([_cell(name, row) for name in self._columns])

    def close(self) -> None:
        self._text.detach()


class _Json:
    """An array with a line for each row."""

    def __init__(self, file: IO[bytes], metrics: Sequence[str]) -> None:
        self._file = file
        self._columns = columns_of(metrics)
        self._before = b"["

    def write(self, row: Row) -> None:
        plain = {name: moment(row["at_us"]) if name == "at" else row[name] for name in self._columns}
        self._file.write(self._before + b"\n" + json.dumps(plain, ensure_ascii=False).encode())
        self._before = b","

    def close(self) -> None:
        self._file.write(b"\n]\n" if self._before == b"," else b"[]\n")


def _parquet(file: IO[bytes], metrics: Sequence[str]) -> Writer:
    try:
        import pyarrow  # only here: it is large, and few need it
        import pyarrow.parquet
    except ImportError as error:
        raise BadInput("Parquet needs pyarrow: pip install 'forebay[parquet]'.") from error
    return _Parquet(file, metrics, pyarrow)


class _Parquet:
    def __init__(self, file: IO[bytes], metrics: Sequence[str], arrow: Any) -> None:
        self._arrow = arrow
        self._schema = arrow.schema([(name, _type_of(name, arrow)) for name in columns_of(metrics)])
        self._writer = arrow.parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append({"at": row["at_us"], **row})
        if len(self._rows) >= _ROWS_OF_GROUP:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        columns = {name: [row[name] for row in self._rows] for name in self._schema.names}
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._rows = []


def _type_of(name: str, arrow: Any) -> Any:
    if name == "at":
        return arrow.timestamp("us", tz="UTC")
    if name in TEXTS:
        return arrow.string()
    if name == "energy_estimated":
        return arrow.bool_()
    return arrow.int32() if name.endswith("_samples") else arrow.float64()


def _cell(name: str, row: Row) -> str:
    if name == "at":
        return moment(row["at_us"])
    value = row[name]
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # Models may have any name, and so may be what a spreadsheet would run.
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
