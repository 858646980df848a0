"""What a page's form says, read field by field: each value is what it should be, or the field's name and what is wrong are
told. Pure, but for taking the body from the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from forebay.errors import BadInput
from forebay_admin.durations import parse_duration
from forebay_admin.people import weights
from forebay_admin.web.words import MICRO, span

MOST_BYTES = 60 * 1024
_MOST_FIELDS = 400
_MOST_MICRO = 2**62
_MOST_WHOLE = 2**53
_YEARS_END = 3000
"""Whatever is added to a moment before it still is one."""


class WrongField(BadInput):
    """A field of the form is not what it should be."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class Form:
    """Of texts: nothing else is ever sent by a form here."""

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name, []).append(value.replace("\r\n", "\n"))

    def get(self, name: str, default: str = "") -> str:
        """Without the spaces around it."""
        return self._fields.get(name, [default])[-1].strip()

    def raw(self, name: str) -> str:
        """As it was typed: passwords."""
        return self._fields.get(name, [""])[-1]

    def values(self) -> Mapping[str, str]:
        """To fill the same form with again."""
        return {name: values[-1] for name, values in self._fields.items()}

    def lists(self) -> Mapping[str, Sequence[str]]:
        """The same, with all that was ticked or chosen of one name."""
        return self._fields

    def many(self, name: str) -> list[str]:
        """Of boxes that are ticked, or lines and commas in one field."""
        told = [piece for value in self._fields.get(name, ()) for piece in value.replace(",", "\n").split("\n")]
        return [piece.strip() for piece in told if piece.strip()]

    def is_ticked(self, name: str) -> bool:
        return name in self._fields

    def demand(self, name: str, what: str = "This") -> str:
        if not (value := self.get(name)):
            raise WrongField(name, f"{what} is missing.")
        return value

    def whole(self, name: str, default: int | None = None, *, least: int = 0, most: int = _MOST_WHOLE) -> int:
        """A number without a fraction; with thousands apart, or not."""
        text = self.get(name).replace(",", "").replace("_", "").replace(" ", "")
        if not text and default is not None:
            return default
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise WrongField(name, f"This has to be a whole number, and not {self.get(name)[:40]!r}.")
        if not least <= int(text) <= most:
            raise WrongField(name, f"This has to be between {least:,} and {most:,}.")
        return int(text)

    def number(self, name: str, default: float | None = None, *, least: float = 0.0, most: float = 1e15) -> float:
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError as error:
            raise WrongField(name, f"This has to be a number, and not {text[:40]!r}.") from error
        if not least <= value <= most:
            raise WrongField(name, f"This has to be between {least:g} and {most:g}.")
        return value

    def weight(self, name: str = "weight") -> int | None:
        """In thousandths; None where nothing was typed."""
        text = self.get(name)
        if not text:
            return None
        try:
            milli = Decimal(text) * weights.ONE
        except ArithmeticError as error:
            raise WrongField(name, f"This has to be a weight, such as 2 or 0.5, and not {text[:40]!r}.") from error
        if not milli.is_finite() or milli != milli.to_integral_value():
            raise WrongField(name, "A weight has at most three decimals.")
        if not 0 < milli <= weights.MOST:
            raise WrongField(name, f"A weight is more than 0 and at most {weights.MOST // weights.ONE}.")
        return int(milli)

    def micro(self, name: str, default: int | None = None, *, may_be_negative: bool = False) -> int:
        """Money, in millionths of its unit. Exact: a seventh place is refused."""
        text = self.get(name).replace(",", "").replace(" ", "")
        if not text and default is not None:
            return default
        try:
            value = Decimal(text) * MICRO
        except ArithmeticError as error:  # no number, or one that no decimal holds
            raise WrongField(name, f"This has to be an amount, such as 12.50, and not {text[:40]!r}.") from error
        if not value.is_finite() or abs(value) > _MOST_MICRO:
            raise WrongField(name, "That is more than there is.")
        if value != value.to_integral_value():
            raise WrongField(name, "An amount has six places at most.")
        if value < 0 and not may_be_negative:
            raise WrongField(name, "This cannot be less than nothing.")
        return int(value)

    def seconds(self, name: str, default: int | None = None, *, least: int = 1, most: int = 10 * 366 * 86_400) -> int:
        """A length of time: 90s, 30m, 24h, 7d, 2w."""
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            found = round(parse_duration(text).total_seconds())
        except BadInput as error:
            raise WrongField(name, error.message) from error
        if not least <= found <= most:
            raise WrongField(name, f"This has to be between {span(least)} and {span(most)}.")
        return found

    def moment(self, name: str, default: datetime | None = None) -> datetime | None:
        """As `<input type=datetime-local>` and `date` write them; UTC."""
        text = self.get(name)
        if not text:
            return default
        try:
            found = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise WrongField(
                name, f"This has to be a moment, such as 2030-01-31T12:00, and not {text[:40]!r}."
            ) from error
        if not 1970 <= found.year < _YEARS_END:
            raise WrongField(name, f"This has to be a moment between the years 1970 and {_YEARS_END}.")
        return found

    def day(self, name: str) -> date | None:
        found = self.moment(name)
        return found.date() if found is not None else None


async def read_form(request: web.Request, most_bytes: int = MOST_BYTES) -> Form:
    """Of texts and of files of text. Raises BadInput before more than a form can have was taken."""
    if (request.content_length or 0) > most_bytes:
        raise _too_large(most_bytes)
    if request.content_type == "multipart/form-data":
        fields = await _parts(request, most_bytes)
    else:
        fields = await _pairs(request, most_bytes)
    if any("\0" in value for _, value in fields):
        raise BadInput("A text here has no NUL in it.")  # which no database keeps
    return Form(fields)


async def _pairs(request: web.Request, most_bytes: int) -> list[tuple[str, str]]:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    if body and request.content_type != "application/x-www-form-urlencoded":
        raise BadInput("This address takes forms.")
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise BadInput("The form cannot be read.") from error


async def _parts(request: web.Request, most_bytes: int) -> list[tuple[str, str]]:
    """As forms with a file in them come."""
    fields: list[tuple[str, str]] = []
    taken = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None or len(fields) == _MOST_FIELDS:
                raise BadInput("The form cannot be read.")
            content = bytearray()
            while chunk := await part.read_chunk():
                content += chunk
                taken += len(chunk)
                if taken > most_bytes:
                    raise _too_large(most_bytes)
            fields.append((part.name, content.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise BadInput("The file is no text in UTF-8: save it as that.") from error
    except (ValueError, HttpProcessingError) as error:
        raise BadInput("The form cannot be read.") from error
    return fields


def _too_large(most_bytes: int) -> BadInput:
    return BadInput(f"A form here has at most {most_bytes // 1024:,} KiB.")
