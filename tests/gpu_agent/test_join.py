"""How a machine becomes a node."""

from __future__ import annotations

import hashlib
import stat
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nkeys
import pytest
from click.testing import CliRunner

from forebay.config import read_file, read_settings
from forebay.errors import AlreadyExists, CannotStart, NotAllowed, NotAuthenticated, Unavailable
from forebay.local.certificates import open_authority, server_certificate
from forebay.signed_commands import CommandKey
from forebay_gpu_agent.cli import agent
from forebay_gpu_agent.config import GpuAgentSettings
from forebay_gpu_agent.join import Invitation, Membership, ask_for_admission, has_used, join, keep_seed, parse_admission
from tests.gpu_agent.admin_door import AdminDoor

COMMAND_KEY = CommandKey(bytes(32)).public_line
ADMITTED = {
    "node": "gpu-1",
    "nats_url": "tls://10.0.0.1:4222",
    "ca_pem": "-----BEGIN CERTIFICATE-----\n",
    "command_key": COMMAND_KEY,
}
WITHOUT_TLS = {"node": "gpu-1", "nats_url": "nats://10.0.0.1:4222", "ca_pem": None}


@pytest.fixture
def door() -> Iterator[AdminDoor]:
    answers: dict[str, tuple[int, object]] = {
        "good": (200, ADMITTED),
        "again": (200, {**ADMITTED, "nats_url": "tls://10.0.0.2:4222"}),
        "plain": (200, WITHOUT_TLS),
        "spent": (410, {"error": "This invitation was used on 3 May."}),
        "down": (503, {"error": "Postgres is away."}),
        "proxy": (502, b"<html>Bad Gateway</html>"),
        "odd": (200, b"<html>hello</html>"),
    }
    with AdminDoor(answers) as door:
        yield door


@pytest.fixture
def membership(tmp_path: Path) -> Membership:
    return Membership(tmp_path / "var" / "agent")


def test_a_machine_that_joins_holds_all_that_its_agent_needs(door: AdminDoor, membership: Membership) -> None:
    admission = join(Invitation(door.url, "good", "gpu-1"), membership)
    assert admission.node == "gpu-1"
    settings = read_settings(GpuAgentSettings, "gpu-agent", file=read_file(membership.settings_file), environ={})
    assert (settings.node, settings.nats_url) == ("gpu-1", "tls://10.0.0.1:4222")
    assert settings.nats_seed_file == membership.seed_file
    assert settings.nats_ca_file == membership.ca_file
    assert settings.disk_path == membership.directory
    assert settings.command_key == COMMAND_KEY
    assert membership.ca_file.read_text() == ADMITTED["ca_pem"]


def test_the_secret_is_made_here_for_its_owner_alone_and_only_its_public_half_leaves(
    door: AdminDoor, membership: Membership
) -> None:
    join(Invitation(door.url, "good", "gpu-1"), membership)
    seed = membership.seed_file.read_bytes().strip()
    assert seed.startswith(b"SU")
    assert stat.S_IMODE(membership.seed_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(membership.directory.stat().st_mode) == 0o700
    (brought,) = door.brought
    assert brought["public_nkey"] == nkeys.from_seed(bytearray(seed)).public_key.decode()
    assert seed.decode() not in str(brought)
    assert brought["hostname"]


def test_without_tls_there_is_no_ca_in_the_settings(door: AdminDoor, membership: Membership) -> None:
    join(Invitation(door.url, "plain", "gpu-1"), membership)
    written = tomllib.loads(membership.settings_file.read_text())["gpu_agent"]
    assert not {"nats_ca_file", "command_key"} & set(written)
    assert not membership.ca_file.exists()


def test_a_folder_with_an_odd_name_is_written_down_so_that_it_is_found_again(door: AdminDoor, tmp_path: Path) -> None:
    membership = Membership(tmp_path / 'a "b" \\ größe 😀')
    join(Invitation(door.url, "good", "gpu-1"), membership)
    written = tomllib.loads(membership.settings_file.read_text())["gpu_agent"]
    assert Path(written["nats_seed_file"]) == membership.seed_file
    assert membership.node == "gpu-1"


def test_the_same_invitation_is_known_again_and_another_one_is_used_with_the_same_secret(
    door: AdminDoor, membership: Membership
) -> None:
    first, another = Invitation(door.url, "good", "gpu-1"), Invitation(door.url, "again", "gpu-1")
    assert not has_used(first, membership)
    join(first, membership)
    assert has_used(first, membership)
    assert not has_used(another, membership)
    join(another, membership)
    assert has_used(another, membership)
    assert len({str(brought["public_nkey"]) for brought in door.brought}) == 1
    assert "10.0.0.2" in membership.settings_file.read_text()
    assert membership.invitation_file.read_text().strip() == hashlib.sha256(b"again").hexdigest()  # not the token


def test_the_folder_of_another_node_is_left_alone(door: AdminDoor, membership: Membership) -> None:
    join(Invitation(door.url, "good", "gpu-1"), membership)
    with pytest.raises(AlreadyExists, match="belongs to the agent of the node gpu-1"):
        join(Invitation(door.url, "good", "gpu-2"), membership)
    assert len(door.brought) == 1


@pytest.mark.parametrize(
    ("token", "error", "words"),
    [
        ("unknown", NotAllowed, "no such invitation"),
        ("spent", NotAllowed, "used on 3 May"),
        ("down", Unavailable, "Postgres is away"),
        ("proxy", Unavailable, "status 502"),
        ("odd", Unavailable, "cannot be understood"),
    ],
)
def test_whoever_is_not_let_in_hears_why_and_has_not_joined(
    door: AdminDoor, membership: Membership, token: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        join(Invitation(door.url, token, "gpu-1"), membership)
    assert membership.node is None
    assert not membership.settings_file.exists()


def test_an_admin_that_is_away_is_named(membership: Membership) -> None:
    with AdminDoor({}) as gone:
        url = gone.url
    with pytest.raises(Unavailable, match=url):
        join(Invitation(url, "good", "gpu-1"), membership)


def test_a_pin_lets_the_pinned_server_in_and_no_other(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = open_authority(tmp_path, now)
    held = server_certificate(authority, tmp_path, "admin", ["127.0.0.1"], now)
    with AdminDoor({"good": (200, ADMITTED)}, tls=(held.certificate_file, held.key_file)) as door:
        assert ask_for_admission(Invitation(door.url, "good", "gpu-1", held.pin), "U").node == "gpu-1"
        with pytest.raises(NotAuthenticated):
            ask_for_admission(Invitation(door.url, "good", "gpu-1", "sha256//AAAA"), "U")
        with pytest.raises(Unavailable, match="certificate verify failed"):
            ask_for_admission(Invitation(door.url, "good", "gpu-1"), "U")
        assert len(door.brought) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"node": "a.b", "nats_url": "nats://x"}',
        b'{"node": 7, "nats_url": "nats://x"}',
        b'{"node": "a", "nats_url": "http://x"}',
        b'{"node": "a", "nats_url": "nats://x", "ca_pem": 5}',
        b'{"node": "a", "nats_url": "nats://x", "command_key": 5}',
        b'{"node": "a", "nats_url": "nats://x", "command_key": "ssh-rsa AAAA"}',
    ],
)
def test_an_answer_that_no_agent_could_begin_with_is_refused(body: bytes) -> None:
    with pytest.raises(Unavailable):
        parse_admission(body)


def test_a_file_that_holds_no_secret_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "agent.nk"
    file.write_text("something else")
    with pytest.raises(CannotStart, match="holds no nkey"):
        keep_seed(file)
    assert file.read_text() == "something else"


def test_a_folder_that_cannot_be_written_is_named(door: AdminDoor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="Not a directory"):
        join(Invitation(door.url, "good", "gpu-1"), Membership(tmp_path / "file" / "agent"))
    assert door.brought == []


# --- the command ------------------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(agent, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_joins_once_and_then_says_that_it_has(door: AdminDoor, tmp_path: Path) -> None:
    words = ("join", "--admin", door.url + "/", "--token", "good", "--node", "gpu-1", "--dir", str(tmp_path / "agent"))
    status, said = run(*words)
    assert (status, len(door.brought)) == (0, 1)
    assert "has joined as gpu-1" in said
    status, said = run(*words)
    assert (status, len(door.brought)) == (0, 1)
    assert "has already joined as gpu-1" in said
    assert "good" not in said  # a token is not for the screen


@pytest.mark.parametrize(
    "words",
    [
        ("--admin", "ftp://x", "--token", "t", "--node", "n"),
        ("--admin", "file:///etc/passwd", "--token", "t", "--node", "n"),
        ("--admin", "admin:8091", "--token", "t", "--node", "n"),
        ("--admin", "http://x", "--token", "t", "--node", "n", "--pin", "sha256//AAAA"),
    ],
)
def test_an_address_that_is_none_is_wrong_use(words: tuple[str, ...], tmp_path: Path) -> None:
    assert run("join", "--dir", str(tmp_path), *words)[0] == 2


def test_a_machine_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="forebay node enroll"):
        run("run", "--dir", str(tmp_path))
