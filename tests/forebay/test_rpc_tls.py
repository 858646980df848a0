"""gRPC with certificates on both sides: who is let in, and that new files are taken up while streams run."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from forebay.errors import CannotStart, ForebayError, NotAuthenticated, Unavailable
from forebay.internal_tls import (
    LOOK_EVERY_S,
    Authorities,
    PeerTls,
    WatchedTls,
    client_context,
    demand_bus_pair,
    peer_tls,
)
from forebay.pki.folder import Folder, Step, make_folder
from forebay.rpc import Peer, ServiceTokens, is_certificate_of, open_peer, open_server, render_tokens, translated
from forebay.wire.v1 import registry_pb2
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer, RegistryStub, add_RegistryServicer_to_server

TOKENS = {"gateway": "token-of-gateway", "admin": "token-of-admin"}
RIGHTS = {"/forebay.wire.v1.Registry/*": frozenset(TOKENS)}
YEAR = timedelta(days=365)


def now() -> datetime:
    return datetime.now(UTC)


class Desk(RegistryServicer):
    """Answers, streams what it is given, and notes with which certificate each call came."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.updates: asyncio.Queue[int] = asyncio.Queue()

    async def ListBackends(self, request: Any, context: Any) -> registry_pb2.ListBackendsResponse:
        self.shown.append((context.auth_context().get("x509_pem_cert") or [b""])[0])
        return registry_pb2.ListBackendsResponse()

    async def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[registry_pb2.FleetUpdate]:
        while True:
            yield registry_pb2.FleetUpdate(version=await self.updates.get())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = make_folder(tmp_path / "pki", now())
    for name in ("registry", "gateway-1", "admin"):
        made.issue(name, (), now(), YEAR)
    return made


@pytest.fixture
def desk() -> Desk:
    return Desk()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED


@pytest.fixture
async def address(desk: Desk, folder: Folder, tmp_path: Path) -> AsyncIterator[str]:
    async with serving(desk, folder, tmp_path) as address:
        yield address


@asynccontextmanager
async def serving(
    desk: Desk, folder: Folder, tmp_path: Path, listen: str = "127.0.0.1:0", *, demands_certificates: bool = True
) -> AsyncIterator[str]:
    callers = tmp_path / "callers"
    callers.write_text(render_tokens(TOKENS))
    async with open_server(
        listen,
        lambda server: add_RegistryServicer_to_server(desk, server),
        ServiceTokens(callers, RIGHTS),
        grace_s=0.1,
        tls=files_of(folder, "registry"),
        demands_certificates=demands_certificates,
    ) as address:
        yield address


def files_of(folder: Folder, name: str) -> PeerTls:
    place = folder.part(name)
    return PeerTls(place / "ca.crt", place / "tls.crt", place / "tls.key")


async def ask(peer: Peer) -> None:
    with translated():
        await RegistryStub(peer.channel).ListBackends(
            registry_pb2.ListBackendsRequest(), metadata=peer.metadata, timeout=20
        )


async def outcome(address: str, tls: PeerTls | None, name: str = "gateway") -> type[ForebayError] | None:
    async with open_peer(address, token=TOKENS[name], tls=tls) as peer:
        try:
            await ask(peer)
        except ForebayError as error:
            return type(error)
    return None


async def until_certificate(desk: Desk, peer: Peer, wanted: bytes) -> int:
    """Calls until one comes with that certificate; gives how many it took. None of them may fail."""
    calls = 0
    async with asyncio.timeout(60):
        while True:
            await ask(peer)
            calls += 1
            if desk.shown[-1].strip() == wanted.strip():
                return calls
            await asyncio.sleep(LOOK_EVERY_S / 5)  # files are looked at now and then, not at each call


# --- who is let in ----------------------------------------------------------------------------------------------------


async def test_a_part_with_its_certificate_and_its_token_is_served(address: str, folder: Folder, desk: Desk) -> None:
    assert await outcome(address, files_of(folder, "gateway-1")) is None
    assert desk.shown == [(folder.part("gateway-1") / "tls.crt").read_bytes()]


async def test_without_a_certificate_nobody_gets_as_far_as_a_call(address: str, folder: Folder, desk: Desk) -> None:
    assert await outcome(address, PeerTls(folder.part("gateway-1") / "ca.crt")) is Unavailable
    assert desk.shown == []


async def test_plain_grpc_gets_no_answer_from_a_port_with_certificates(address: str, desk: Desk) -> None:
    assert await outcome(address, None) is Unavailable
    assert desk.shown == []


async def test_the_certificate_of_another_authority_is_refused_by_both_sides(
    address: str, folder: Folder, tmp_path: Path, desk: Desk
) -> None:
    other = make_folder(tmp_path / "other", now())
    other.issue("gateway-1", (), now(), YEAR)
    stranger = files_of(other, "gateway-1")
    known = files_of(folder, "gateway-1")
    assert await outcome(address, PeerTls(known.ca, stranger.cert, stranger.key)) is Unavailable
    assert await outcome(address, PeerTls(stranger.ca, known.cert, known.key)) is Unavailable
    assert desk.shown == []


async def test_an_expired_certificate_is_refused(address: str, folder: Folder, desk: Desk) -> None:
    folder.issue("gateway-1", (), now() - timedelta(days=3), timedelta(days=2))
    assert await outcome(address, files_of(folder, "gateway-1")) is Unavailable
    assert desk.shown == []


async def test_an_expired_server_is_not_believed(folder: Folder, tmp_path: Path, desk: Desk) -> None:
    folder.issue("registry", (), now() - timedelta(days=3), timedelta(days=2))
    async with serving(desk, folder, tmp_path) as address:
        assert await outcome(address, files_of(folder, "gateway-1")) is Unavailable


async def test_a_server_that_is_not_of_that_name_is_not_believed(folder: Folder, tmp_path: Path, desk: Desk) -> None:
    async with serving(desk, folder, tmp_path, "127.0.0.2:0") as address:
        assert await outcome(address, files_of(folder, "gateway-1")) is Unavailable
        folder.issue("registry", ["127.0.0.2"], now(), YEAR)
        assert await outcome(address, files_of(folder, "gateway-1")) is None


async def test_the_token_of_one_part_with_the_certificate_of_another_is_refused(address: str, folder: Folder) -> None:
    assert await outcome(address, files_of(folder, "gateway-1"), "admin") is NotAuthenticated
    assert await outcome(address, files_of(folder, "admin"), "gateway") is NotAuthenticated
    assert await outcome(address, files_of(folder, "admin"), "admin") is None


async def test_what_a_part_is_reached_by_makes_it_no_other_part(address: str, folder: Folder) -> None:
    folder.issue("gateway-1", ["admin", "admin.example.org"], now(), YEAR)
    assert await outcome(address, files_of(folder, "gateway-1"), "admin") is NotAuthenticated


async def test_a_port_that_asks_for_none_serves_over_tls_and_goes_by_the_token(
    folder: Folder, tmp_path: Path, desk: Desk
) -> None:
    async with serving(desk, folder, tmp_path, demands_certificates=False) as address:
        assert await outcome(address, PeerTls(folder.part("admin") / "ca.crt")) is None
        async with open_peer(address, token="guess", tls=PeerTls(folder.part("admin") / "ca.crt")) as peer:
            with pytest.raises(NotAuthenticated):
                await ask(peer)


@pytest.mark.parametrize(
    ("part", "name", "fits"),
    [
        ("gateway", "gateway", True),
        ("gateway", "gateway-12", True),
        ("gateway", "gatewayx", False),
        ("gateway", "admin", False),
        ("up", "upgrade", False),
    ],
)
def test_a_certificate_is_of_a_part_by_its_name(part: str, name: str, fits: bool) -> None:
    assert is_certificate_of(part, name) is fits


# --- new files --------------------------------------------------------------------------------------------------------


async def test_new_certificates_are_taken_up_while_a_stream_runs_and_goes_on(
    address: str, folder: Folder, desk: Desk
) -> None:
    async with open_peer(address, token=TOKENS["gateway"], tls=files_of(folder, "gateway-1")) as peer:
        stream: Any = RegistryStub(peer.channel).WatchFleet(registry_pb2.WatchFleetRequest(), metadata=peer.metadata)
        desk.updates.put_nowait(1)
        assert (await stream.read()).version == 1
        await ask(peer)
        before = desk.shown[-1]
        folder.renew(now(), YEAR, everything=True)
        renewed = (folder.part("gateway-1") / "tls.crt").read_bytes()
        assert renewed != before
        await until_certificate(desk, peer, renewed)
        desk.updates.put_nowait(2)
        assert (await stream.read()).version == 2
        stream.cancel()
    assert await served_certificate(address, folder) == (folder.part("registry") / "tls.crt").read_bytes()


async def test_grpc_is_handed_files_when_they_are_new_and_not_at_each_connection(
    folder: Folder, tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is, it replaces what it shakes hands with, while other threads may be doing so."""
    handed: list[object] = []

    def hand(*pairs: Any, **more: Any) -> Any:
        handed.append(made := make(*pairs, **more))
        return made

    make = grpc.ssl_server_certificate_configuration
    monkeypatch.setattr(grpc, "ssl_server_certificate_configuration", hand)
    async with serving(desk, folder, tmp_path) as address:
        for _ in range(3):
            assert await outcome(address, files_of(folder, "gateway-1")) is None
        assert len(handed) == 1
        folder.issue("registry", (), now(), YEAR)
        for _ in range(3):
            assert await outcome(address, files_of(folder, "gateway-1")) is None
        assert len(handed) == 2


async def test_the_authority_is_replaced_in_three_steps_without_a_call_that_fails(
    address: str, folder: Folder, desk: Desk
) -> None:
    old = PeerTls(*(copy_of(file) for file in (folder.part("gateway-1") / n for n in ("ca.crt", "tls.crt", "tls.key"))))
    async with open_peer(address, token=TOKENS["gateway"], tls=files_of(folder, "gateway-1")) as peer:
        stream: Any = RegistryStub(peer.channel).WatchFleet(registry_pb2.WatchFleetRequest(), metadata=peer.metadata)
        desk.updates.put_nowait(1)
        assert (await stream.read()).version == 1
        folder.rotate(Step.BEGIN, now(), YEAR)
        await until_certificate(desk, peer, (folder.part("gateway-1") / "tls.crt").read_bytes())
        assert await outcome(address, files_of(folder, "admin"), "admin") is None
        folder.rotate(Step.SWITCH, now(), YEAR)
        assert (
            await outcome(address, old) is Unavailable
        )  # it has heard of no new authority, and sees a new certificate
        await until_certificate(desk, peer, (folder.part("gateway-1") / "tls.crt").read_bytes())
        folder.rotate(Step.FINISH, now(), YEAR)
        await ask(peer)
        newer = folder.part("gateway-1") / "ca.crt"
        assert await outcome(address, PeerTls(newer, old.cert, old.key)) is Unavailable
        assert await outcome(address, files_of(folder, "gateway-1")) is None
        desk.updates.put_nowait(2)
        assert (await stream.read()).version == 2
        stream.cancel()


async def test_files_that_the_other_side_refuses_break_nothing_that_works(
    address: str, folder: Folder, desk: Desk, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", now())
    other.issue("gateway-1", (), now(), YEAR)
    async with open_peer(address, token=TOKENS["gateway"], tls=files_of(folder, "gateway-1")) as peer:
        await ask(peer)
        good = desk.shown[-1]
        for name in ("tls.key", "tls.crt"):
            (folder.part("gateway-1") / name).write_bytes((other.part("gateway-1") / name).read_bytes())
        for _ in range(10):
            await asyncio.sleep(LOOK_EVERY_S / 5)
            await ask(peer)
            assert desk.shown[-1] == good
        folder.issue("gateway-1", (), now(), YEAR)
        await until_certificate(desk, peer, (folder.part("gateway-1") / "tls.crt").read_bytes())


async def test_a_peer_whose_server_returned_under_a_new_authority_connects_by_itself(
    folder: Folder, tmp_path: Path, desk: Desk
) -> None:
    async with serving(desk, folder, tmp_path) as address:
        peer_at = open_peer(address, token=TOKENS["gateway"], tls=files_of(folder, "gateway-1"))
        peer = await peer_at.__aenter__()
        await ask(peer)
    try:
        for step in Step:
            folder.rotate(step, now(), YEAR)
        async with serving(desk, folder, tmp_path, address):
            async with asyncio.timeout(60):
                while True:
                    try:
                        await ask(peer)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.1)
        assert desk.shown[-1].strip() == (folder.part("gateway-1") / "tls.crt").read_bytes().strip()
    finally:
        await peer_at.__aexit__(None, None, None)


# --- the files --------------------------------------------------------------------------------------------------------


def test_a_certificate_without_its_key_is_not_taken_up_until_the_key_is_there(folder: Folder) -> None:
    watched = WatchedTls(files_of(folder, "admin"))
    before, key = watched.newest(), folder.part("admin") / "tls.key"
    old_key = key.read_bytes()
    folder.issue("admin", (), now(), YEAR)
    new_key = key.read_bytes()
    key.write_bytes(old_key)
    assert watched.newest(at_once=True) is before
    key.write_bytes(new_key)
    taken = watched.newest(at_once=True)
    assert taken is not before
    assert taken.cert == (folder.part("admin") / "tls.crt").read_bytes()


def test_files_that_are_away_leave_the_last_ones_in_use(folder: Folder) -> None:
    watched = WatchedTls(files_of(folder, "admin"))
    before = watched.newest()
    (folder.part("admin") / "tls.crt").unlink()
    assert watched.newest(at_once=True) is before


def test_new_files_that_could_not_be_read_are_taken_up_when_they_can_be_though_none_of_them_has_changed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, read = WatchedTls(files_of(folder, "admin")), Path.read_bytes
    before = watched.newest()
    folder.issue("admin", (), now(), YEAR)

    def closed(self: Path) -> bytes:
        if self.name == "tls.key":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", closed)
        assert watched.newest(at_once=True) is before
    assert watched.newest(at_once=True).cert == (folder.part("admin") / "tls.crt").read_bytes()


def test_files_that_cannot_be_used_are_told_once_for_each_change(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    watched, place = WatchedTls(files_of(folder, "admin")), folder.part("admin")

    def look() -> int:
        caplog.clear()
        for _ in range(5):
            watched.newest(at_once=True)
        return sum(record.levelname == "WARNING" for record in caplog.records)

    whole = (place / "tls.crt").read_bytes()
    assert look() == 0
    (place / "tls.crt").unlink()
    assert look() == 1
    (place / "tls.crt").write_bytes(b"no certificate")
    assert look() == 1
    (place / "tls.crt").write_bytes(b"no certificate either")
    assert look() == 1
    (place / "tls.crt").write_bytes(whole)
    assert look() == 0
    (place / "tls.crt").unlink()
    assert look() == 1


async def test_https_to_another_part_believes_what_the_file_says_now(folder: Folder) -> None:
    authorities = Authorities(folder.part("admin") / "ca.crt")
    before = authorities.context()
    assert authorities.context() is before
    assert len(before.get_ca_certs()) == 1
    folder.rotate(Step.BEGIN, now(), YEAR)
    async with asyncio.timeout(30):
        while authorities.context() is before:
            await asyncio.sleep(LOOK_EVERY_S / 5)
    assert len(authorities.context().get_ca_certs()) == 2


def test_what_stands_between_authorities_may_be_in_any_language(folder: Folder) -> None:
    file = folder.part("admin") / "ca.crt"
    file.write_bytes("# Főtanúsítvány\n".encode() + file.read_bytes())
    assert len(Authorities(file).context().get_ca_certs()) == 1


def test_what_cannot_be_used_at_the_start_is_told(folder: Folder) -> None:
    (folder.part("admin") / "tls.key").write_bytes((folder.part("registry") / "tls.key").read_bytes())
    with pytest.raises(CannotStart, match="key values mismatch"):
        WatchedTls(files_of(folder, "admin"))
    with pytest.raises(CannotStart, match="No such file"):
        WatchedTls(PeerTls(folder.root / "nothing"))


def test_settings_name_all_three_files_or_none() -> None:
    file = Path("file")
    assert peer_tls("internal", None, None, None) is None
    assert peer_tls("internal", file, file, file) == PeerTls(file, file, file)
    with pytest.raises(ValueError, match=r"^internal_key_file: missing beside"):
        peer_tls("internal", file, file, None)
    with pytest.raises(ValueError, match=r"^internal_ca_file and internal_cert_file: missing"):
        peer_tls("internal", None, None, file)


def test_the_bus_gets_a_pair_and_an_authority() -> None:
    file = Path("file")
    demand_bus_pair(file, None, None)
    demand_bus_pair(file, file, file)
    with pytest.raises(ValueError, match="both or neither"):
        demand_bus_pair(file, file, None)
    with pytest.raises(ValueError, match="nats_ca_file"):
        demand_bus_pair(None, file, file)


def copy_of(file: Path) -> Path:
    copy = file.with_suffix(f"{file.suffix}.before")
    copy.write_bytes(file.read_bytes())
    return copy


async def served_certificate(address: str, folder: Folder) -> bytes:
    """What a new connection is shown, as PEM."""
    host, _, port = address.rpartition(":")
    context = client_context(files_of(folder, "gateway-1"))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der).encode()
