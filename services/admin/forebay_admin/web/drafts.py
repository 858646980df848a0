"""A form before and after it was refused: what stands in it, which field is wrong, and why. Whoever sends something wrong
sees the same page again, with what they typed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from forebay.errors import AlreadyExists, BadInput, ForebayError, NotFound, NotPossible
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.visit import Handle, Visit

CORRECTABLE = (BadInput, NotFound, NotPossible, AlreadyExists)
"""What whoever sent the form can put right in it."""


_NOT_SENT_BACK = frozenset({"csrf", "secret", "bearer", "old", "new", "again"})


@dataclass(frozen=True, slots=True)
class Draft:
    name: str
    """Of the form on its page."""
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    why: str = ""
    """What is wrong; empty: nothing was sent yet."""
    at: str = ""
    """The field that is wrong; empty: the form as a whole."""

    def value(self, name: str) -> str:
        return next(reversed(self.values.get(name, ())), "")

    def many(self, name: str) -> Sequence[str]:
        return self.values.get(name, ())

    def is_ticked(self, name: str) -> bool:
        return name in self.values

    def error(self, name: str) -> str:
        return self.why if name == self.at else ""


class Drafts:
    """The forms of one page, of which one may have been refused. Templates call it: `drafts('add', role='member')`."""

    def __init__(self, refused: Draft | None = None, status: int = 400) -> None:
        """`status`: of the page that shows what was refused."""
        self.refused = refused
        self._status = status

    def __call__(self, name: str, /, **usual: object) -> Draft:
        """`usual`: what stands in its fields before anybody typed; None and False: nothing, True: a tick."""
        if self.refused is not None and self.refused.name == name:
            return self.refused
        return Draft(
            name, {key: _texts(value) for key, value in usual.items() if value is not None and value is not False}
        )

    def filled(self, name: str, query: Form) -> Draft:
        """Of a form whose fields stand in the address."""
        if self.refused is not None and self.refused.name == name:
            return self.refused
        return Draft(name, query.lists())

    @property
    def status(self) -> int:
        """Of the page that shows them."""
        return self._status if self.refused is not None else 200

    def is_open(self, name: str) -> bool:
        """What is folded unfolds when it has something to say."""
        return self.refused is not None and self.refused.name == name


NO_DRAFTS = Drafts()

Show = Callable[[Visit, Drafts], Awaitable[web.StreamResponse]]


def refused(name: str, form: Form, error: ForebayError, at: str = "", status: int = 400) -> Drafts:
    """`at`: the field that is meant where the error does not say. What is secret is not sent back."""
    typed = {field: values for field, values in form.lists().items() if field not in _NOT_SENT_BACK}
    return Drafts(Draft(name, typed, error.message, error.name if isinstance(error, WrongField) else at), status)


def sent(name: str, handle: Handle, show: Show, at: str = "") -> Handle:
    """`handle`, for a form of that name; what whoever sent it can put right is told on the page that `show` makes."""

    async def answer(visit: Visit) -> web.StreamResponse:
        try:
            return await handle(visit)
        except CORRECTABLE as error:
            return await show(visit, refused(name, visit.form, error, at))

    return answer


def demand_sure(form: Form, name: str = "sure") -> None:
    """Of what cannot be taken back. Raises WrongField."""
    if not form.is_ticked(name):
        raise WrongField(name, "Tick this first.")


def demand_typed(form: Form, wanted: str, name: str = "typed") -> None:
    """Of what cannot be taken back and is large. Raises WrongField."""
    if form.get(name) != wanted:
        raise WrongField(name, f"Type {wanted} here first.")


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, (list, tuple)):
        return [str(one) for one in value]
    return ["yes" if value is True else str(value)]
