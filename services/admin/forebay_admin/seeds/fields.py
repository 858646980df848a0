"""What a request of another gateway's script says, read name by name. Pure.

All that does not fit is told at once. Names that nobody asks for are left alone, as those gateways do: their scripts send
more than is kept here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from forebay.errors import BadInput
from forebay_admin.seeds.refusals import BadFields, Misfit

T = TypeVar("T")

LONGEST_TEXT = 1000


class Fields:
    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """`where`: body or query. Of a query every value is text."""
        self._values = values
        self._where = where
        self._misfits: list[Misfit] = []

    def has(self, name: str) -> bool:
        return name in self._values

    def is_said(self, name: str) -> bool:
        return self._values.get(name) is not None

    def raw(self, name: str) -> Any:
        """As it came; None where it did not."""
        return self._values.get(name)

    def said(self) -> tuple[str, ...]:
        return tuple(self._values)

    def is_cleared(self, name: str) -> bool:
        """Whether it is said to be nothing."""
        return name in self._values and self._values[name] is None

    def text(self, name: str, default: str = "", *, needed: bool = False, longest: int = LONGEST_TEXT) -> str:
        value = self._one(name, needed=needed)
        if value is None:
            return default
        if not isinstance(value, str):
            return self._wrong(name, "It is not text.", default)
        if needed and not value:
            return self._wrong(name, "It is empty.", default)
        if len(value) > longest:
            return self._wrong(name, f"It has at most {longest} characters.", default)
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            return self._wrong(name, "It has characters that no text may have.", default)
        return value

    def line(self, name: str, *, longest: int = LONGEST_TEXT) -> str:
        """Text that may stand on a label."""
        value = self.text(name, longest=longest)
        return value if value.isprintable() else self._wrong(name, "It has control characters.", "")

    def word(self, name: str, words: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        return value if value in words else self._wrong(name, f"It is none of {', '.join(words)}.", default)

    def whole(
        self, name: str, default: int | None = None, *, least: int = 0, most: int = 2**52, needed: bool = False
    ) -> int | None:
        value = self._one(name, needed=needed)
        if value is None:
            return default
        if (
            isinstance(value, str)
            and self._where == "query"
            and value.isascii()
            and value.isdigit()
            and len(value) < 20
        ):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return self._wrong(name, "It is not a whole number.", default)
        if not least <= value <= most:
            return self._wrong(name, f"It is not from {least} to {most}.", default)
        return value

    def number(self, name: str, *, most: float = 1e12) -> float | None:
        value = self._one(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return self._wrong(name, "It is not a number.", None)
        return float(value) if 0 <= value <= most else self._wrong(name, f"It is not from 0 to {most:g}.", None)

    def flag(self, name: str, default: bool | None = None, *, needed: bool = False) -> bool | None:
        value = self._one(name, needed=needed)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        return self._wrong(name, "It is neither true nor false.", default)

    def texts(self, name: str) -> list[str] | None:
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) and 0 < len(one) <= 512 for one in value):
            return self._wrong(name, "It is not a list of texts.", None)
        if not all(one.isprintable() for one in value):
            return self._wrong(name, "One of them has control characters.", None)
        return value

    def wholes(self, name: str, *, most: int) -> list[int] | None:
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
            return self._wrong(name, "It is not a list of whole numbers.", None)
        if any(not 0 <= one <= most for one in value):
            return self._wrong(name, f"One is not from 0 to {most}.", None)
        return value

    def which(self, name: str, *, needed: bool = False) -> str:
        """A number of a thing, or its name; empty where none is said."""
        value = self._one(name, needed=needed)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is None or (isinstance(value, str) and len(value) <= LONGEST_TEXT and "\0" not in value):
            return value or ""
        return self._wrong(name, "It is neither a number nor a name.", "")

    def moment(self, name: str) -> datetime | None:
        """ISO 8601; without a zone, in UTC."""
        text = self.text(name, longest=64)
        if not text:
            return None
        try:
            at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return self._wrong(name, "It is not a time such as 2027-01-31T12:00:00Z.", None)

    def done(self) -> None:
        """Raises BadFields."""
        if self._misfits:
            raise BadFields(self._misfits)

    def _one(self, name: str, *, needed: bool = False) -> Any:
        value = self._values.get(name)
        if value is None and needed:
            self._misfits.append(Misfit((self._where, name), "It is missing.", is_missing=True))
        return value

    def _wrong(self, name: str, why: str, instead: T) -> T:
        self._misfits.append(Misfit((self._where, name), why))
        return instead


def as_body(told: object) -> Mapping[str, Any]:
    """Raises BadInput."""
    if not isinstance(told, dict):
        raise BadInput("The body is not an object.")
    return told
