"""A request that its provider refuses for what the client wrote sends no credential to rest and rests no backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.provider import API_KEY, FakeProvider, Refused
from tests.fakes.provider_cohere import FakeCohere
from tests.gateway.house import House, ask
from tests.gateway.test_several_credentials import BAD, WORSE, each_provider, house_with_keys, keys_shown, resting

LABELS = ("default", "key-2", "key-3")
XAI = (
    "Content violates usage guidelines. Team: 0f6c6a3e-4be0, API key ID: b5b1d9c2-0d1c, Model: grok-4, "
    "Failed check: SAFETY_CHECK_TYPE_BIO"
)
TOO_LARGE = (
    "Request too large for m in organization org-VDAWofJA on tokens per min (TPM): Limit 30000, Requested 43210. The input "
    "or output tokens must be reduced in order to run successfully."
)


def nobody_rests(house: House) -> bool:
    return not any(resting(house, label) for label in LABELS) and house.scheduler.nacks == []


@each_provider
@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (Refused(403, "", XAI), "Content violates usage guidelines. Model: grok-4"),
        (Refused(429, "", TOO_LARGE, retry_after_s=20), "Requested 43210"),
        (Refused(400, "", "Invalid value: 'API key not valid. Please'"), "Invalid value"),
        (Refused(400, "", "Invalid value: 'Your credit balance is too low'"), "Invalid value"),
    ],
    ids=["held back", "too large", "echoed", "echoed too"],
)
async def test_what_is_about_the_request_is_asked_once_and_is_the_clients(
    tmp_path: Path, made: type[FakeProvider], refused: Refused, told: str
) -> None:
    async with house_with_keys(tmp_path, made, WORSE, API_KEY) as (house, provider):
        provider.refusals = dict.fromkeys((BAD, WORSE, API_KEY), refused)
        async with house.post(ask()) as answer:
            text = await answer.text()
        assert answer.status == 400, text
        assert told in text
        for private in ("0f6c6a3e", "b5b1d9c2", "org-"):
            assert private not in text
        assert keys_shown(provider) == [BAD]
        assert nobody_rests(house)


@each_provider
async def test_what_no_key_may_do_is_refused_to_the_client_however_often_it_asks(
    tmp_path: Path, made: type[FakeProvider]
) -> None:
    async with house_with_keys(tmp_path, made, WORSE, API_KEY) as (house, provider):
        provider.refusals = dict.fromkeys(
            (BAD, WORSE, API_KEY), Refused(403, "permission_error", "No, in words that nobody knows")
        )
        for asked in (3, 6, 9, 12):
            async with house.post(ask()) as answer:
                text = await answer.text()
            assert answer.status == 400, text
            assert "whichever of its credentials" in text
            assert "No, in words that nobody knows" in text
            assert len(provider.asked) == asked
        assert nobody_rests(house)


async def test_a_key_that_alone_may_not_rests_once_another_has_shown_that_it_is_the_key(tmp_path: Path) -> None:
    async with house_with_keys(tmp_path, FakeCohere, API_KEY) as (house, provider):
        provider.refusals[BAD] = Refused(401, "", "You have insufficient permissions. Missing scopes: model.request.")
        for _ in range(3):
            async with house.post(ask()) as answer:
                assert answer.status == 200, await answer.text()
        assert keys_shown(provider) == [BAD, API_KEY, API_KEY, API_KEY]
        (line,) = resting(house, "default")
        assert 'fault="forbidden"' in line
        assert house.scheduler.nacks == []


async def test_while_others_rest_the_one_that_is_left_is_no_worse_for_a_request_that_it_may_not_do(
    tmp_path: Path,
) -> None:
    async with house_with_keys(tmp_path, FakeCohere, API_KEY) as (house, provider):
        provider.refusals[BAD] = Refused(401, "", "wrong")
        async with house.post(ask()) as answer:
            assert answer.status == 200, await answer.text()
        provider.refusals[API_KEY] = Refused(403, "", "No, in words that nobody knows")
        for _ in range(2):
            async with house.post(ask()) as answer:
                assert answer.status == 400, await answer.text()
        assert resting(house, "key-2") == []
        assert house.scheduler.nacks == []
        del provider.refusals[API_KEY]
        async with house.post(ask()) as answer:
            assert answer.status == 200, await answer.text()
