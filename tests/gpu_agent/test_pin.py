"""Trust in a public key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from forebay.errors import NotAuthenticated
from forebay.local.certificates import open_authority, server_certificate
from forebay.pki.certificates import pin
from forebay_gpu_agent.pin import open_pinned, pin_of
from tests.gpu_agent.admin_door import AdminDoor


@pytest.mark.parametrize(
    "key_of", [lambda: ec.generate_private_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)]
)
def test_the_pin_is_the_one_that_curl_would_compute(key_of: object) -> None:
    key = key_of()  # type: ignore[operator]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    assert pin_of(certificate.public_bytes(Encoding.DER)) == pin(certificate)


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x30", b"\x30\x82\xff\xff\x30\x03\x02\x01\x01", b"no certificate at all", bytes(40)]
)
def test_what_is_no_certificate_has_no_pin(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="certificate"):
        pin_of(rubbish)


def test_a_server_with_the_pinned_key_is_spoken_to_and_another_learns_nothing(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = open_authority(tmp_path, now)
    held = server_certificate(authority, tmp_path, "admin", ["admin.example"], now)
    with AdminDoor({"token": (200, {})}, tls=(held.certificate_file, held.key_file)) as door:
        for pins in (held.pin, f"sha256//AAAA;{held.pin}"):
            with open_pinned(pins).open(f"{door.url}/join/token", data=b"{}", timeout=10) as response:
                assert response.status == 200
        with pytest.raises(NotAuthenticated, match="another key") as refused:
            open_pinned("sha256//AAAA").open(f"{door.url}/join/token", data=b"{}", timeout=10)
        assert held.pin in refused.value.message
        assert len(door.brought) == 2
