"""Files of rows: standard output, or a file that is there when all of it is."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from forebay.errors import BadInput
from forebay_admin.fleet.history_files import Writer, writer_of


def open_writer(form: str, path: str, metrics: Sequence[str]) -> AbstractContextManager[Writer]:
    """Of history, as `open_rows`."""
    return open_rows(form, path, lambda file: writer_of(form, file, metrics))


@contextmanager
def open_rows(form: str, path: str, begin: Callable[[IO[bytes]], Writer]) -> Iterator[Writer]:
    """`path` of `-`: standard output. A file is there when all of it is, and replaces the one of that name. Raises
    BadInput."""
    if path == "-":
        if form == "parquet":
            raise BadInput("Parquet is not for a terminal: name a file with -o.")
        writer = begin(sys.stdout.buffer)
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
            writer = begin(file)
            yield writer
            writer.close()
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
