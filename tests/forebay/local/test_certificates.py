"""Our own authority and what it signs, judged by OpenSSL."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forebay.errors import CannotStart
from forebay.local.certificates import ServerCertificate, open_authority, server_certificate

NOW = datetime.now(UTC)
HOSTS = ["127.0.0.1", "::1", "node.example"]


def certificate(place: Path, hosts: Sequence[str] = HOSTS, now: datetime = NOW) -> ServerCertificate:
    return server_certificate(open_authority(place, now), place, "gateway", hosts, now)


async def test_a_client_that_knows_the_authority_trusts_the_server_by_name_and_by_address(
    place: Path, free_port: Callable[[], int]
) -> None:
    made = certificate(place)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made.certificate_file, made.key_file)
    port = free_port()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    knowing = ssl.create_default_context(cafile=str(open_authority(place, NOW).certificate_file))
    knowing.verify_flags |= ssl.VERIFY_X509_STRICT
    async with await asyncio.start_server(hang_up, "127.0.0.1", port, ssl=serving):
        for name in ("127.0.0.1", "node.example"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=knowing, server_hostname=name)
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=knowing, server_hostname="other.example")


def test_keys_are_the_owners_alone(place: Path) -> None:
    made = certificate(place)
    assert stat.S_IMODE(made.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((place / "ca" / "ca.key").stat().st_mode) == 0o600


def test_the_same_names_keep_their_certificate_and_other_names_get_another(place: Path) -> None:
    first = certificate(place)
    assert certificate(place).pin == first.pin
    assert certificate(place, [*HOSTS, "new.example"]).pin != first.pin


def test_a_certificate_that_is_about_to_expire_is_made_anew_under_the_same_authority(place: Path) -> None:
    first = certificate(place)
    authority = open_authority(place, NOW).certificate
    assert certificate(place, now=NOW + timedelta(days=330)).pin == first.pin
    renewed = certificate(place, now=NOW + timedelta(days=340))
    assert renewed.pin != first.pin
    assert open_authority(place, NOW).certificate == authority


def test_a_new_authority_replaces_what_the_old_one_signed(place: Path) -> None:
    first = certificate(place)
    shutil.rmtree(place / "ca")
    assert certificate(place).pin != first.pin


def test_a_damaged_authority_is_told_and_never_replaced_silently(place: Path) -> None:
    certificate(place)
    (place / "ca" / "ca.key").write_text("not a key")
    with pytest.raises(CannotStart, match="remove that folder to get a new one and enrol the agents again"):
        open_authority(place, NOW)


async def test_curl_accepts_the_pin_and_no_other(place: Path, free_port: Callable[[], int]) -> None:
    made, other = certificate(place), server_certificate(open_authority(place, NOW), place, "other", HOSTS, NOW)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(made.certificate_file, made.key_file)
    port = free_port()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def curl(pin: str) -> bytes:
        words = ("curl", "-sk", "--noproxy", "*", "--pinnedpubkey", pin, f"https://127.0.0.1:{port}/")
        asked = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        return (await asked.communicate())[0]

    async with await asyncio.start_server(answer, "127.0.0.1", port, ssl=serving):
        assert await curl(made.pin) == b"ok"
        assert await curl(other.pin) == b""
