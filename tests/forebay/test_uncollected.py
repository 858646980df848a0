"""The garbage collector rests while very many objects are made, and only then."""

from __future__ import annotations

import gc

import pytest

from forebay.uncollected import uncollected


def test_it_collects_again_when_the_last_has_left() -> None:
    assert gc.isenabled()
    outer, inner = uncollected(), uncollected()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert not gc.isenabled()
    inner.__exit__(None, None, None)
    assert gc.isenabled()


def test_it_collects_again_after_a_failure() -> None:
    with pytest.raises(ValueError, match="broken"), uncollected():
        raise ValueError("broken")
    assert gc.isenabled()


def test_whoever_had_turned_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
