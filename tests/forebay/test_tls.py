"""A served certificate is replaced without a restart, and a bad pair never replaces a good one."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forebay.errors import CannotStart
from forebay.tls import serving_tls


def write_pair(cert: Path, key: Path, name: str, *, parts: str = "both") -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    if parts == "both":
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    os.utime(cert, ns=(now.microsecond, now.microsecond + 1))


async def served_name(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    told = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(told).subject.rfc4514_string()


async def test_a_new_certificate_is_served_and_a_broken_one_is_not(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_pair(cert, key, "first")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        serving_tls(cert, key, poll_s=0.02) as context,
        await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        assert await served_name(port) == "CN=first"
        write_pair(cert, key, "second")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if await served_name(port) == "CN=second":
                break
        assert await served_name(port) == "CN=second"
        write_pair(cert, key, "third", parts="certificate only")
        await asyncio.sleep(0.2)
        assert await served_name(port) == "CN=second"


async def test_without_a_certificate_there_is_no_tls_and_half_a_pair_is_refused(tmp_path: Path) -> None:
    async with serving_tls(None, None) as context:
        assert context is None
    with pytest.raises(CannotStart, match="both"):
        async with serving_tls(tmp_path / "cert.pem", None):
            pass
    with pytest.raises(CannotStart, match="cannot be used"):
        async with serving_tls(tmp_path / "cert.pem", tmp_path / "key.pem"):
            pass
