"""What the gateway's log says of a request that went wrong: which one it was, and nothing of what it held."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from forebay.telemetry import JsonLines, ReadableLines, SyslogLines
from forebay_gateway.relay import Exchange
from tests.fakes.engine import FakeEngine
from tests.gateway.house import ask, open_house


@pytest.mark.interpreted
@pytest.mark.parametrize("is_hot", [True, False])
async def test_a_mistake_of_the_gateways_is_logged_under_its_request_and_without_its_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_hot: bool
) -> None:
    def break_down(self: Exchange, *_: Any) -> str:
        raise ArithmeticError("something nobody thought of")

    caplog.set_level("DEBUG")
    monkeypatch.setattr(Exchange, "_model_of", break_down)
    async with open_house(tmp_path, FakeEngine(), hot_path=is_hot) as house:
        body = ask(messages=[{"role": "user", "content": "quicksilver marmalade"}])
        headers = {**house.headers, "x-request-id": "the-broken-one"}
        async with house.post(body, headers=headers) as answer:
            assert answer.status == 500
            assert "the-broken-one" in await answer.text()
        secret = house.key.secret
    (told,) = [record for record in caplog.records if getattr(record, "action", "") == "internal"]
    assert vars(told)["request_id"] == "the-broken-one"
    for record in caplog.records:
        for form in (JsonLines("gateway"), ReadableLines(), SyslogLines("gateway")):
            line = form.format(record)
            assert "quicksilver" not in line
            assert "marmalade" not in line
            assert secret not in line
    assert told.levelno == logging.ERROR
