"""Which doors open, and under which names."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from forebay.errors import BadSettings, CannotStart
from forebay.local.certificates import open_authority, server_certificate
from forebay.local.data_directory import DataDirectory, open_data_directory
from forebay.local.front import Front, expired_on, open_front

NOW = datetime.now(UTC)


@pytest.fixture
def data(place: Path) -> Iterator[DataDirectory]:
    with open_data_directory(place) as data:
        yield data


def front(data: DataDirectory, **wanted: Any) -> Front:
    return open_front(
        data, **{"listen": None, "tls_cert": None, "tls_key": None, "plain_http": False, "now": NOW, **wanted}
    )


def names_in(file: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*named.get_values_for_type(x509.DNSName), *(str(a) for a in named.get_values_for_type(x509.IPAddress))}


def test_by_itself_everything_stays_on_loopback_without_tls(data: DataDirectory) -> None:
    alone = front(data)
    assert alone.url(8090) == alone.near_url(8090) == "http://127.0.0.1:8090"
    assert not alone.is_open
    assert not (data.root / "ca.pem").exists()


def test_open_to_others_it_speaks_https_and_nats_tls_from_the_local_authority(data: DataDirectory) -> None:
    opened = front(data, listen="10.87.0.1")
    assert opened.is_open
    assert opened.url(8090) == "https://10.87.0.1:8090"
    assert opened.certificate is not None
    assert opened.certificate.file == data.secrets / "tls" / "server.pem"
    assert names_in(opened.certificate.file) == {"10.87.0.1"}
    assert opened.certificate.ca == data.root / "ca.pem"
    assert opened.certificate.pin is not None
    assert opened.certificate.pin.startswith("sha256//")
    assert opened.nats_tls is not None
    assert names_in(opened.nats_tls.certificate) == {"10.87.0.1"}
    assert front(data, listen="10.87.0.1") == opened


def test_on_all_addresses_the_certificate_names_this_machine_and_we_reach_it_on_loopback(data: DataDirectory) -> None:
    opened = front(data, listen="0.0.0.0")
    assert opened.certificate is not None
    assert {"localhost", "127.0.0.1", platform.node()} <= names_in(opened.certificate.file)
    assert opened.near_url(8090) == "https://127.0.0.1:8090"
    assert opened.shown_host not in ("0.0.0.0", "")


def test_addresses_of_the_sixth_version_are_written_in_brackets(data: DataDirectory) -> None:
    assert front(data, listen="::1").url(8090) == "https://[::1]:8090"
    assert front(data, listen="[::1]").host == "::1", "as they stand in addresses"


def test_an_empty_address_is_a_mistake_and_not_a_wish(data: DataDirectory) -> None:
    with pytest.raises(BadSettings, match="there is no address in it"):
        front(data, listen=" ")


def test_a_given_certificate_is_used_and_gives_its_name(data: DataDirectory, place: Path) -> None:
    given = server_certificate(open_authority(place / "theirs", NOW), place / "theirs", "x", ["llm.example.org"], NOW)
    opened = front(data, listen="0.0.0.0", tls_cert=given.certificate_file, tls_key=given.key_file)
    assert opened.url(443) == "https://llm.example.org:443"
    assert opened.certificate is not None
    assert opened.certificate.file == given.certificate_file
    # Others trust its own authority, and it may be renewed with another key any day.
    assert (opened.certificate.ca, opened.certificate.pin) == (None, None)


def test_a_certificate_that_cannot_be_served_is_refused_before_anything_starts(
    data: DataDirectory, place: Path
) -> None:
    authority = open_authority(place / "theirs", NOW)
    one, other = (server_certificate(authority, place / "theirs", name, ["localhost"], NOW) for name in ("a", "b"))
    with pytest.raises(CannotStart, match="key values mismatch"):
        front(data, tls_cert=one.certificate_file, tls_key=other.key_file)
    locked = place / "locked.key"
    locked.write_bytes(
        authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(CannotStart, match="locked with a passphrase"):
        front(data, tls_cert=authority.certificate_file, tls_key=locked)
    with pytest.raises(CannotStart, match="give a PEM certificate"):
        front(data, tls_cert=one.key_file, tls_key=one.key_file)


def test_the_day_on_which_a_certificate_expired_is_known(data: DataDirectory, place: Path) -> None:
    given = server_certificate(open_authority(place / "theirs", NOW), place / "theirs", "x", ["localhost"], NOW)
    certificate = front(data, tls_cert=given.certificate_file, tls_key=given.key_file).certificate
    assert certificate is not None
    assert expired_on(certificate, NOW) is None
    ended = expired_on(certificate, NOW + timedelta(days=400))
    assert ended is not None
    assert NOW < ended < NOW + timedelta(days=400)


def test_behind_a_proxy_http_is_plain_and_nats_still_speaks_tls(data: DataDirectory) -> None:
    opened = front(data, listen="10.87.0.1", plain_http=True)
    assert opened.url(8090) == "http://10.87.0.1:8090"
    assert opened.nats_tls is not None


def test_half_a_certificate_or_two_wishes_at_once_are_refused(data: DataDirectory, place: Path) -> None:
    with pytest.raises(BadSettings, match="belong together"):
        front(data, tls_cert=place / "x.pem")
    with pytest.raises(BadSettings, match="--plain-http needs no certificate"):
        front(data, tls_cert=place / "x.pem", tls_key=place / "x.key", plain_http=True)
    with pytest.raises(CannotStart, match=r"x\.pem is not there"):
        front(data, tls_cert=place / "x.pem", tls_key=place / "x.key")
