"""A CSV file as lines of cells, and all that is wrong with it, each with its line and column. Pure.

The form is RFC 4180's: commas, quotes where a cell needs them, any kind of line end; a mark of the byte order is passed
over. What people are shown must not begin like a formula, which a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from forebay.errors import BadInput
from forebay.plain_message import unknown_name
from forebay_admin.row_files import FORMULA

MOST_LINES = 2_000
"""All of a file is one transaction, behind which every other change waits."""
MOST_BYTES = 4 * 1024 * 1024
MOST_TOLD = 100
"""So many problems are told at once."""
SEPARATOR = ";"
"""Between the words of a cell that holds several."""

_BOM = "\ufeff"
_MOST_COLUMNS, _LONGEST_NAME = 100, 100
"""Of a first line that is looked at: anybody may send one."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaw:
    line: int
    """Where it begins in the file, from 1; 0 is the file as a whole."""
    column: str
    """Its name; empty is the line as a whole."""
    why: str

    @property
    def path(self) -> str:
        return ".".join(filter(None, (str(self.line) if self.line else "", self.column)))


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    cells: Mapping[str, str]
    """By the column's name, without blanks around them."""
    flawed: frozenset[str] = frozenset()
    """Columns of which it was told already."""


@dataclass(frozen=True, slots=True)
class Sheet:
    lines: Sequence[Line]
    flaws: Sequence[Flaw]


class Cells:
    """The cells of a line while they are read: what does not fit becomes a flaw, and the reading goes on."""

    def __init__(self, line: Line, flaws: list[Flaw], parsed: dict[tuple[str, str], Any]) -> None:
        """`parsed`: what became of cells so far, since most lines of a file say the same in most of theirs."""
        self._line = line
        self._flaws = flaws
        self._before = len(flaws)
        self._parsed = parsed

    @property
    def are_right(self) -> bool:
        return len(self._flaws) == self._before and not self._line.flawed

    def __getitem__(self, column: str) -> str:
        return self._line.cells.get(column, "")

    def read(self, column: str, parse: Callable[[str], T], default: T) -> T:
        """What `parse` makes of the cell; the default for an empty one, and where it raises BadInput."""
        text = self[column]
        if not text or column in self._line.flawed:
            return default
        try:
            found: T = self._parsed[column, text]
        except KeyError:
            try:
                found = self._parsed[column, text] = parse(text)
            except BadInput as error:
                self.refuse(column, error.message)
                return default
        return found

    def refuse(self, column: str, why: str) -> None:
        self._flaws.append(Flaw(self._line.number, column, why))

    def words(self, column: str) -> list[str]:
        return [word.strip() for word in self[column].split(SEPARATOR) if word.strip()]


def decoded(content: bytes) -> str:
    """The text of a file. Raises BadInput, naming the line."""
    if len(content) > MOST_BYTES:
        raise BadInput(f"The file is larger than {MOST_BYTES // 1024 // 1024} MB: divide it.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput("The file is UTF-16, as some spreadsheets write it: save it as CSV in UTF-8.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"Line {line} is not UTF-8: save the file as CSV in UTF-8.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadInput(f"Line {line} holds a NUL character: this is no CSV file.")
    return text


def read_sheet(text: str, known: Collection[str], needed: Collection[str], shown: Collection[str]) -> Sheet:
    """`known`: the columns that there may be; `needed`: those that must be there, in each line; `shown`: those that people
    see in lists, in which nothing may begin like a formula."""
    flaws: list[Flaw] = []
    records = _records(text.removeprefix(_BOM), flaws)
    first = next(records, None)
    if first is None:
        return Sheet(
            (), flaws or [Flaw(0, "", f"The file is empty; its first line names the columns: {', '.join(known)}.")]
        )
    if len(first[1]) > _MOST_COLUMNS:
        return Sheet((), [Flaw(first[0], "", f"This line names {len(first[1]):,} columns; there are {len(known)}.")])
    columns = [name.strip().lower()[:_LONGEST_NAME] for name in first[1]]
    if header_flaws := list(_header_flaws(columns, first[0], known, needed)):
        return Sheet((), header_flaws)
    lines: list[Line] = []
    for count, (number, cells) in enumerate(records):
        if count == MOST_LINES:  # bad ones count too: each is told of
            flaws.append(Flaw(number, "", f"A file has at most {MOST_LINES:,} lines below the first: divide it."))
            break
        if len(cells) != len(columns):
            flaws.append(
                Flaw(number, "", f"This line has {len(cells)} cells, and the first names {len(columns)} columns.")
            )
            continue
        named = dict(zip(columns, map(str.strip, cells), strict=True))
        found = list(_line_flaws(number, named, needed, shown))
        flaws += found
        lines.append(Line(number, named, frozenset(flaw.column for flaw in found)))
    if not lines and not flaws:
        flaws.append(Flaw(0, "", "The file has no lines below the one that names the columns."))
    return Sheet(lines, flaws)


def _records(text: str, flaws: list[Flaw]) -> Iterator[tuple[int, list[str]]]:
    """Each with the line on which it begins; empty ones are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        flaws.append(Flaw(begins, "", f"From here on this is no CSV: {error}."))


def _header_flaws(
    columns: Sequence[str], number: int, known: Collection[str], needed: Collection[str]
) -> Iterator[Flaw]:
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        yield Flaw(number, "", "The columns are not told apart by commas: save the file as CSV with commas.")
        return
    for at, name in enumerate(columns, start=1):
        if not name:
            yield Flaw(number, "", f"Column {at} has no name.")
        elif name in columns[: at - 1]:
            yield Flaw(number, name, "This column stands here twice.")
        elif name not in known:
            yield Flaw(number, name, unknown_name(name, known))
    missing = [name for name in needed if name not in columns]
    if missing:
        yield Flaw(number, missing[0], f"There is no column {' and no column '.join(missing)}.")


def _line_flaws(
    number: int, cells: Mapping[str, str], needed: Collection[str], shown: Collection[str]
) -> Iterator[Flaw]:
    for column, cell in cells.items():
        if not cell and column in needed:
            yield Flaw(number, column, "This cell is empty.")
        elif column in shown and cell.startswith(FORMULA):
            yield Flaw(number, column, f"{cell[:40]!r} begins as a formula does, which a spreadsheet would run.")
