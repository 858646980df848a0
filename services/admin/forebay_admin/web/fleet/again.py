"""A form that was refused, to be shown once more as it was filled, with what is wrong beside its field. Pure. What is
secret is not sent back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.errors import AlreadyExists, BadInput, ForebayError, NotPossible
from forebay_admin.rest import failures
from forebay_admin.web.forms import Form, WrongField

REFUSALS = (BadInput, AlreadyExists, NotPossible)
"""What is wrong with what was asked: the page that asked is shown again. All else has a page of its own."""
_NOT_SENT_BACK = frozenset({"bearer", "csrf"})


@dataclass(frozen=True, slots=True)
class Again:
    form: str = ""
    """Which of the page's forms; empty: none was refused."""
    why: str = ""
    at: str = ""
    """The field that is wrong; empty: the whole form is."""
    values: Mapping[str, str] = field(default_factory=dict)
    status: int = 200

    def value(self, form: str, name: str, usual: object = "") -> str:
        if form != self.form:
            return "" if usual is None else str(usual)
        return self.values.get(name, "")

    def ticked(self, form: str, name: str, usual: bool = False) -> bool:
        return name in self.values if form == self.form else usual

    def error(self, form: str, name: str) -> str:
        return self.why if form == self.form and name == self.at else ""

    def problem(self, form: str) -> str:
        """Of the form as a whole."""
        return self.why if form == self.form else ""


def again(form: str, filled: Form, error: ForebayError) -> Again:
    values = {name: value for name, value in filled.values().items() if name not in _NOT_SENT_BACK}
    name = error.name if isinstance(error, WrongField) else ""
    return Again(form, error.message, name, values, failures.status_of(error))
