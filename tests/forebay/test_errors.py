"""The one error family."""

from __future__ import annotations

import inspect
import re

import pytest

from forebay import errors
from forebay.errors import BadSettings, ForebayError, NotFound, Refusal, Unavailable

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ForebayError)]


@pytest.mark.parametrize("kind", [k for k in FAMILY if k is not BadSettings])
def test_the_docstring_of_an_error_is_its_message(kind: type[ForebayError]) -> None:
    assert kind.__doc__
    first_words = kind.__doc__.split()[:3]
    assert kind().message.split()[:3] == first_words
    assert "\n" not in kind().message
    assert isinstance(kind.reason, Refusal)


def test_a_message_of_ones_own_replaces_it_and_a_wait_is_kept() -> None:
    error = Unavailable("Postgres is away.", retry_after_s=2.5)
    assert (error.message, str(error), error.retry_after_s) == ("Postgres is away.", "Postgres is away.", 2.5)
    assert NotFound().retry_after_s is None


def test_settings_tell_all_their_problems() -> None:
    error = BadSettings(["slots: too many", "listen: nowhere"])
    assert error.problems == ["slots: too many", "listen: nowhere"]
    assert error.message.splitlines()[1:] == ["  - slots: too many", "  - listen: nowhere"]


def test_a_refusal_is_one_word_that_can_stand_in_a_header_a_label_and_a_row() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", word) for word in Refusal)
    assert len({str(word) for word in Refusal}) == len(Refusal)
