"""Calls signed as the `ollama` command line signs them: who is let in by them, and what is refused in which words."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from forebay import signing_keys
from forebay.errors import NotAuthenticated, Unavailable
from forebay.keys import ForebayKey
from forebay.wire.v1 import admin_pb2
from forebay_gateway.callers.call import read_call
from forebay_gateway.callers.principals import KeyState, KnownKey, Principal, Principals
from forebay_gateway.callers.signed_call import signer_of
from forebay_gateway.refused import BadSignature, KeyExpired, KeyRevoked, UntrustedSigner
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, ask, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=3)
NOW = 1_700_000_000
PINNED_KEY = bytes(range(32))
PINNED = (
    "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4:"
    "YpIlY9MqDonNkzVj3U9VfQZvOV1JDg05ni0+rlbqTJvhc9s+q/ISBQgbk0YC3fwqAuo6Gxs6ODg/6Rjs6lm2BA=="
)
"""Of that key, for POST,/api/chat?ts=1700000000."""


class CommandLine(httpx.Auth):
    """Signs as ollama/ollama does in auth/auth.go and api/client.go; also for the official Python library."""

    def __init__(self, private: Ed25519PrivateKey | None = None) -> None:
        self._private = private or Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def sign(self, method: str, path: str, moment: float) -> str:
        line = self._private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        signature = self._private.sign(f"{method},{path}?ts={moment:.0f}".encode())
        return f"{line.split()[1].decode()}:{base64.b64encode(signature).decode()}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        moment = time.time()
        request.headers["authorization"] = self.sign(request.method, request.url.path, moment)
        request.url = request.url.copy_set_param("ts", f"{moment:.0f}")
        yield request

    async def send(
        self,
        house: House,
        method: str,
        path: str,
        body: Any = None,
        *,
        signed: tuple[str, str] | None = None,
        late_s: float = 0.0,
        query: str | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        """`signed`: another method and path than those that are sent; `query`: another than what is signed."""
        moment = time.time() - late_s
        headers = {"authorization": self.sign(*(signed or (method, path)), moment)}
        url = f"{house.url}{path}?{f'ts={moment:.0f}' if query is None else query}"
        async with house.client.request(method, url, headers=headers, json=body) as answer:
            return answer.status, answer.headers, await answer.json() if method != "HEAD" else None


async def trusting(house: House, *lines: CommandLine, **fields: Any) -> ForebayKey:
    """A new key that trusts these, and that the gateway knows."""
    key = house.admin.add_key(signing_keys=[line.public_key for line in lines], **fields)
    await known(house, key)
    return key


async def known(house: House, key: ForebayKey) -> None:
    """Returns when the gateway has heard of the last change, which is told after those before it."""
    last = house.admin.add_key()
    headers = {"authorization": f"Bearer {last}"}
    while True:
        async with house.client.get(f"{house.url}/v1/models", headers=headers) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.01)


# --- who is let in --------------------------------------------------------------------------------------------------


async def test_ollamas_own_library_is_served_under_the_key_that_trusts_what_it_signs_with(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        key = await trusting(house, CommandLine(), line, user_id="u-9")
        async with ollama.AsyncClient(host=house.url, auth=line) as client:
            assert [model.model for model in (await client.list()).models] == [MODEL]
            assert (await client.show(MODEL)).capabilities is not None
            messages = [{"role": "user", "content": "Say some words, please."}]
            answer = await client.chat(MODEL, messages)
            assert answer.message.content == "word0 word1 word2"
            pieces = [piece async for piece in await client.chat(MODEL, messages, stream=True)]
            assert "".join(piece.message.content or "" for piece in pieces) == "word0 word1 word2"
            await client.ps()
        assert {(row.key_id, row.user_id) for row in await house.rows(2)} == {(key.public_id, "u-9")}


async def test_the_address_of_the_command_lines_first_call_is_open_with_any_signature(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        assert (await CommandLine().send(house, "HEAD", "/"))[0] == 200
        assert (await CommandLine().send(house, "HEAD", "/", late_s=1000))[0] == 200


async def test_what_a_key_may_not_what_it_signs_with_may_not(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        member, operator = CommandLine(), CommandLine()
        await trusting(house, member, allowed_models=["other"])
        await trusting(house, operator, role=admin_pb2.ROLE_OPERATOR)
        status, _, body = await member.send(house, "POST", "/api/chat", ask(stream=False))
        assert (status, "does not allow the model" in body["error"]) == (403, True)
        status, _, body = await member.send(house, "POST", "/api/pull", {"model": "x"})
        assert (status, "operator" in body["error"]) == (403, True)
        _, headers, _ = await operator.send(house, "POST", "/api/chat", ask(stream=False))
        assert headers["x-forebay-backend"] == "name-of-b1"
        _, headers, _ = await member.send(house, "HEAD", f"/api/blobs/sha256:{'0' * 64}")
        assert headers["x-forebay-reason"] == "not_allowed", "a colon in the path is signed as it is sent"


async def test_calls_of_one_second_have_one_signature_and_all_are_served(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        await trusting(house, line)
        moment = time.time()
        signed = {line.sign("POST", "/api/show", moment) for _ in range(2)}
        assert len(signed) == 1
        answers = [
            await line.send(house, "POST", "/api/show", {"model": MODEL}, late_s=time.time() - moment) for _ in range(2)
        ]
        assert [status for status, _, _ in answers] == [200, 200]


async def test_an_api_key_goes_before_a_signature(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        status, _, _ = await CommandLine().send(house, "GET", f"/k/{house.key}/api/tags")
        assert status == 200
        headers = {"authorization": PINNED, "x-api-key": str(house.key)}
        async with house.client.get(f"{house.url}/v1/models", headers=headers) as answer:
            assert answer.status == 200


# --- who is not -----------------------------------------------------------------------------------------------------


async def test_what_was_changed_on_the_way_or_is_too_old_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        await trusting(house, line)
        now = f"{time.time():.0f}"
        for wrong, words in (
            ({"signed": ("POST", "/api/tags")}, "The signature of this call is not that of"),
            ({"signed": ("GET", "/api/ps")}, "The signature of this call is not that of"),
            ({"signed": ("GET", "/k/fb-1-2/api/tags")}, "The signature of this call is not that of"),
            ({"query": f"ts={int(now) - 30}"}, "The signature of this call is not that of"),
            ({"late_s": 70}, "signed 70 s ago"),
            ({"late_s": -70}, "s ahead"),
            ({"query": ""}, "?ts=SECONDS"),
            ({"query": "ts="}, "?ts=SECONDS"),
            ({"query": f"ts={now}&limit=3"}, "?ts=SECONDS"),
            ({"query": f"ts={now}&ts={now}"}, "?ts=SECONDS"),
            ({"query": f"ts={'9' * 400}"}, "?ts=SECONDS"),
        ):
            status, headers, body = await line.send(house, "GET", "/api/tags", **wrong)
            assert (status, headers["x-forebay-reason"]) == (403, "invalid_key"), wrong
            assert words in body["error"], wrong
        for late_s in (50, -50):
            assert (await line.send(house, "GET", "/api/tags", late_s=late_s))[0] == 200


async def test_an_unknown_public_key_is_told_what_to_do(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        told = signing_keys.fingerprint(line.public_key)
        for method, path in (("GET", "/api/tags"), ("POST", "/api/chat"), ("POST", "/api/show"), ("POST", "/api/pull")):
            status, headers, body = await line.send(house, method, path)
            assert (status, headers["x-forebay-reason"]) == (403, "invalid_key")
            assert told in body["error"]
            assert "forebay key trust" in body["error"]
        status, headers, body = await line.send(house, "GET", "/v1/models")
        assert (status, body["error"]["code"], told in body["error"]["message"]) == (401, "invalid_api_key", True)
        assert [row.reason for row in await house.rows(1)] == ["invalid_key"]


async def test_who_cannot_sign_does_not_learn_whether_a_public_key_is_known(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        await trusting(house, line)
        forged = base64.b64encode(bytes(64)).decode()
        told = []
        for public_key in (line.public_key, CommandLine().public_key):
            headers = {"authorization": f"{signing_keys.to_base64(public_key)}:{forged}"}
            async with house.client.get(f"{house.url}/api/tags?ts={time.time():.0f}", headers=headers) as answer:
                told.append((answer.status, await answer.json()))
        assert told[0] == told[1]


async def test_trust_that_is_withdrawn_and_a_key_that_is_revoked_or_has_expired_end_it_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        key = await trusting(house, line)

        async def reason() -> str:
            status, headers, _ = await line.send(house, "GET", "/api/tags")
            return headers["x-forebay-reason"] if status != 200 else ""

        assert await reason() == ""
        house.admin.trust(key)
        await known(house, key)
        assert await reason() == "invalid_key"
        house.admin.trust(key, line.public_key)
        await known(house, key)
        assert await reason() == ""
        house.admin.revoke(key)
        await known(house, key)
        assert await reason() == "key_revoked"
        house.admin.trust(key)
        await trusting(house, line, expires_at_us=round((time.time() - 1) * 1e6))
        assert await reason() == "key_expired"


async def test_trust_outlives_a_restart_without_admin(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        line = CommandLine()
        await trusting(house, line)
        await house.stop_gateway()
        await house.stop_server(house.admin)
        await house.start_gateway()
        await house.wait_ready()
        assert (await line.send(house, "GET", "/api/tags"))[0] == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "AAAA:",
        "AAAA:AAAA",
        ":AAAA",
        PINNED.replace(":", ""),
        PINNED.replace(":", " "),
        PINNED[:-4],
        PINNED + "=",
        PINNED + ":x",
        PINNED.replace("AAAAC3", "AAAAB3"),
        f"Bearer {PINNED}",
        "AAAA" + "A" * 8000 + ":x",
        "AAAA\xe9\xff:\xe9",
    ],
)
async def test_a_malformed_header_is_a_refusal_and_nothing_worse(tmp_path: Path, authorization: str) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        asked = f"GET /api/tags?ts={time.time():.0f} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        writer.write(f"{asked}authorization: {authorization}\r\n\r\n".encode("latin-1"))
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403 "), answer


# --- the form, without a gateway ------------------------------------------------------------------------------------


def test_the_form_is_pinned() -> None:
    private = Ed25519PrivateKey.from_private_bytes(PINNED_KEY)
    assert CommandLine(private).sign("POST", "/api/chat", NOW) == PINNED
    signer = signer_of(PINNED, method="POST", path="/api/chat", query=f"ts={NOW}", now=NOW)
    assert signer.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    # As `ssh-keygen -l` shows it.
    assert signing_keys.fingerprint(signer) == "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"


@pytest.mark.parametrize(
    ("now", "is_good"), [(NOW - 61, False), (NOW - 60, True), (NOW + 60, True), (NOW + 60.5, False)]
)
def test_the_window_has_two_edges(now: float, is_good: bool) -> None:
    try:
        signer_of(PINNED, method="POST", path="/api/chat", query=f"ts={NOW}", now=now)
    except BadSignature:
        assert not is_good
    else:
        assert is_good


_PIECES = st.one_of(st.text(max_size=80), st.sampled_from(["AAAA", ":", PINNED, PINNED.split(":")[0], "\ud800", "ts="]))


@given(st.lists(_PIECES, max_size=6).map("".join), st.text(max_size=20), st.text(max_size=40), _PIECES)
def test_whatever_comes_is_a_signer_or_a_refusal(authorization: str, method: str, path: str, query: str) -> None:
    call = read_call(method, path, {"authorization": authorization}, query)
    if call.signature is not None:
        with pytest.raises(BadSignature):
            signer_of(call.signature, method=method, path=path, query=query, now=NOW)
        with pytest.raises(BadSignature):
            signer_of(call.signature, method=method, path=path, query=f"ts={NOW}", now=NOW)


@given(st.sampled_from(range(len(PINNED))), st.characters(min_codepoint=33, max_codepoint=126))
def test_no_changed_character_passes_for_the_same_signer(place: int, character: str) -> None:
    changed = PINNED[:place] + character + PINNED[place + 1 :]
    try:
        signer = signer_of(changed, method="POST", path="/api/chat", query=f"ts={NOW}", now=NOW)
    except NotAuthenticated:
        return
    assert base64.b64decode(changed.split(":")[1]) == base64.b64decode(PINNED.split(":")[1])
    assert signer_of(PINNED, method="POST", path="/api/chat", query=f"ts={NOW}", now=NOW) == signer


# --- who trusts whom, without a gateway -----------------------------------------------------------------------------

ONE, TWO = b"1" * 32, b"2" * 32


def key(key_id: str, *signers: bytes, **fields: Any) -> KnownKey:
    return KnownKey(Principal(key_id, "u"), b"", signing_keys=signers, **fields)


def trusted_by(principals: Principals, public_key: bytes) -> str | None:
    try:
        return principals.find_signer(public_key, now=100.0).key_id
    except UntrustedSigner:
        return None


def test_before_any_keys_came_nobody_is_refused_for_good() -> None:
    with pytest.raises(Unavailable):
        Principals(b"").find_signer(ONE, now=0.0)


def test_a_public_key_that_passes_from_key_to_key_is_the_laters_whatever_the_order() -> None:
    for order in (("a", "b"), ("b", "a")):
        principals = Principals(b"")
        principals.replace_all([key("a", ONE, TWO), key("b")], version=1)
        told = {"a": key("a", TWO), "b": key("b", ONE)}
        principals.change([told[name] for name in order], [], version=2)
        assert (trusted_by(principals, ONE), trusted_by(principals, TWO)) == ("b", "a")


def test_trust_goes_with_its_key() -> None:
    principals = Principals(b"")
    principals.replace_all([key("a", ONE), key("b", TWO)], version=1)
    principals.change([], ["a"], version=2)
    assert (trusted_by(principals, ONE), trusted_by(principals, TWO)) == (None, "b")
    principals.replace_all([key("c", ONE)], version=3)
    assert (trusted_by(principals, ONE), trusted_by(principals, TWO)) == ("c", None)
    principals.change([key("c", ONE, state=KeyState.REVOKED)], [], version=4)
    with pytest.raises(KeyRevoked):
        principals.find_signer(ONE, now=100.0)
    principals.change([key("c", ONE, expires_at=100.0)], [], version=5)
    with pytest.raises(KeyExpired):
        principals.find_signer(ONE, now=100.0)


# --- files of public keys -------------------------------------------------------------------------------------------


def test_a_line_is_read_with_its_comment_and_written_again() -> None:
    encoded = PINNED.split(":")[0]
    line = signing_keys.parse_line(f"ssh-ed25519 {encoded} alice's laptop\n")
    assert line.comment == "alice's laptop"
    assert signing_keys.to_line(line.public_key) == f"ssh-ed25519 {encoded}"
    assert signing_keys.parse_line(f"\n  ssh-ed25519\t{encoded}\r\n").comment == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is empty"),
        ("ssh-rsa AAAAB3NzaC1yc2E= x", "'ssh-rsa' begins this one"),
        ("sk-ssh-ed25519@openssh.com AAAA x", "kind ed25519"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "This is a private key"),
        (f"ssh-ed25519 {PINNED.split(':')[0]}\nssh-ed25519 {PINNED.split(':')[0]}", "this is more"),
        ("x" * 20_000, "this is more"),
        ("ssh-ed25519", "not an ed25519 key"),
        ("ssh-ed25519 AAAAB3NzaC1yc2E=", "not an ed25519 key"),
        (f"ssh-ed25519 {PINNED.split(':')[0][:-4]}", "not an ed25519 key"),
        ("ssh-ed25519 ###", "not an ed25519 key"),
        ("ssh-ed25519 é", "not an ed25519 key"),
    ],
)
def test_what_is_no_line_of_an_ed25519_key_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        signing_keys.parse_line(text)
