"""The folder of `forebay pki`: what lies in it, when it is renewed, and how its authority is replaced. Judged by OpenSSL."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from forebay.errors import AlreadyExists, BadInput, NotFound, NotPossible
from forebay.pki.certificates import common_name, names, pem_of, read_certificate
from forebay.pki.folder import NEARBY, Folder, Standing, Step, make_folder
from forebay.pki.installation import parts_of

NOW = datetime.now(UTC)
YEAR, DAY = timedelta(days=365), timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "pki", NOW)


def certificate(folder: Folder, name: str) -> x509.Certificate:
    return read_certificate((folder.part(name) / "tls.crt").read_bytes())


def talks_to(folder: Folder, caller: str, server: str, host: str) -> bool:
    """Whether a TLS handshake with certificates on both sides succeeds, in memory and by OpenSSL's strict rules."""
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder.part(server) / "ca.crt"))
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.load_cert_chain(folder.part(server) / "tls.crt", folder.part(server) / "tls.key")
    calling = ssl.create_default_context(cafile=str(folder.part(caller) / "ca.crt"))
    calling.load_cert_chain(folder.part(caller) / "tls.crt", folder.part(caller) / "tls.key")
    for context in (accepting, calling):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        calling.wrap_bio(back, there, server_hostname=host),
        accepting.wrap_bio(there, back, server_side=True),
    ]
    left = list(ends)
    for _ in range(10):
        for end in list(left):
            try:
                end.do_handshake()
                left.remove(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return not left


def test_a_part_has_what_kubernetes_calls_a_tls_secret_and_its_key_is_its_owners_alone(folder: Folder) -> None:
    folder.issue("gateway-1", ["10.0.0.7", "forebay.example.com"], NOW, YEAR)
    assert sorted(file.name for file in folder.part("gateway-1").iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert stat.S_IMODE((folder.part("gateway-1") / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder.root / "ca" / "ca.key").stat().st_mode) == 0o600
    made = certificate(folder, "gateway-1")
    assert common_name(made) == "gateway-1"
    assert names(made) == ["gateway-1", *NEARBY, "10.0.0.7", "forebay.example.com"]


def test_each_may_call_and_be_called_by_the_names_it_was_issued_for(folder: Folder) -> None:
    folder.issue("admin", ["forebay.example.com"], NOW, YEAR)
    folder.issue("gateway-1", (), NOW, YEAR)
    for host in ("admin", "localhost", "127.0.0.1", "::1", "forebay.example.com"):
        assert talks_to(folder, "gateway-1", "admin", host), host
    assert talks_to(folder, "admin", "gateway-1", "gateway-1")
    assert not talks_to(folder, "gateway-1", "admin", "other.example.com")
    assert not talks_to(folder, "gateway-1", "admin", "10.0.0.7")


def test_a_certificate_is_due_in_the_last_third_of_its_life_and_renewed_for_the_same_hosts(folder: Folder) -> None:
    folder.issue("scheduler", ["10.0.0.7"], NOW, 90 * DAY)
    folder.issue("registry", (), NOW, YEAR)
    first = certificate(folder, "scheduler")
    assert [one.standing for one in folder.show(NOW + 59 * DAY)] == [Standing.GOOD, Standing.GOOD]
    assert folder.renew(NOW + 59 * DAY, YEAR) == []
    assert [one.standing for one in folder.show(NOW + 61 * DAY)] == [Standing.GOOD, Standing.DUE]
    assert [one.standing for one in folder.show(NOW + 91 * DAY)] == [Standing.GOOD, Standing.EXPIRED]
    (renewed,) = folder.renew(NOW + 61 * DAY, YEAR)
    assert (renewed.name, renewed.standing) == ("scheduler", Standing.GOOD)
    assert certificate(folder, "scheduler") != first
    assert names(certificate(folder, "scheduler")) == names(first)
    assert certificate(folder, "scheduler").public_key() != first.public_key()


def test_what_is_good_is_kept_and_what_is_missing_or_for_other_hosts_is_made(folder: Folder) -> None:
    folder.keep("nats", ["10.0.0.7"], NOW, YEAR)
    first = certificate(folder, "nats")
    folder.keep("nats", ["10.0.0.7"], NOW + DAY, YEAR)
    folder.keep("nats", [], NOW + DAY, YEAR)
    assert certificate(folder, "nats") == first
    folder.keep("nats", ["10.0.0.8"], NOW + DAY, YEAR)
    assert certificate(folder, "nats") != first
    (folder.part("nats") / "tls.key").unlink()
    folder.keep("nats", ["10.0.0.8"], NOW + DAY, YEAR)
    assert (folder.part("nats") / "tls.key").exists()


def test_no_certificate_outlasts_its_authority(folder: Folder) -> None:
    late = NOW + timedelta(days=3600)
    folder.issue("admin", (), late, YEAR)
    assert certificate(folder, "admin").not_valid_after_utc == folder.authority.certificate.not_valid_after_utc


def test_the_authority_is_replaced_and_at_no_step_two_parts_refuse_each_other(folder: Folder, tmp_path: Path) -> None:
    """Folders are carried one by one, so at each moment one part has the files of this step and another those before."""
    for name in ("admin", "gateway-1"):
        folder.issue(name, (), NOW, YEAR)
    first = certificate(folder, "admin")
    for step in Step:
        before = Folder(Path(shutil.copytree(folder.root, tmp_path / f"before-{step}")))
        Folder(folder.root).rotate(step, NOW, YEAR)
        mixed = Folder(Path(shutil.copytree(folder.root, tmp_path / f"during-{step}")))
        shutil.rmtree(mixed.part("admin"))
        shutil.copytree(before.part("admin"), mixed.part("admin"))
        for caller, server in (("admin", "gateway-1"), ("gateway-1", "admin")):
            assert talks_to(before, caller, server, server)
            assert talks_to(mixed, caller, server, server), step
            assert talks_to(folder, caller, server, server)
    assert certificate(folder, "admin") != first
    opened = Folder(folder.root)
    assert opened.believed == [opened.authority.certificate]
    assert opened.authority.certificate != folder.authority.certificate
    (folder.part("gateway-1") / "tls.crt").write_bytes(
        (tmp_path / "before-begin" / "gateway-1" / "tls.crt").read_bytes()
    )
    assert [one.standing for one in opened.show(NOW)] == [Standing.GOOD, Standing.FOREIGN]


def test_steps_go_one_after_the_other(folder: Folder) -> None:
    folder.issue("admin", (), NOW, YEAR)
    for step in (Step.SWITCH, Step.FINISH):
        with pytest.raises(NotPossible):
            folder.rotate(step, NOW, YEAR)
    folder.rotate(Step.BEGIN, NOW, YEAR)
    with pytest.raises(NotPossible, match="next step is `switch`"):
        folder.rotate(Step.BEGIN, NOW, YEAR)
    folder.issue("registry", (), NOW, YEAR)  # of the old authority, and it believes both
    assert (folder.part("registry") / "ca.crt").read_bytes() == (folder.part("admin") / "ca.crt").read_bytes()
    old = certificate(folder, "registry")
    folder.rotate(Step.SWITCH, NOW, YEAR)
    for step in (Step.BEGIN, Step.SWITCH):
        with pytest.raises(NotPossible, match="next step is `finish`"):
            folder.rotate(step, NOW, YEAR)
    (folder.part("registry") / "tls.crt").write_bytes(pem_of(old))
    assert [one.standing for one in folder.show(NOW)] == [Standing.GOOD, Standing.DUE]
    with pytest.raises(NotPossible, match="in use still, by registry"):
        folder.rotate(Step.FINISH, NOW, YEAR)
    folder.renew(NOW, YEAR)
    folder.rotate(Step.FINISH, NOW, YEAR)
    assert (folder.part("registry") / "ca.crt").read_bytes().count(b"BEGIN CERTIFICATE") == 1


class Interrupted(BaseException):
    """As a process that is killed."""


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """After so many files were put in their places, nothing goes on."""
    left = [after]
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        if not left[0]:
            raise Interrupted
        left[0] -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", counted)


@pytest.mark.parametrize("step", Step)
def test_a_step_that_is_interrupted_anywhere_is_finished_by_taking_it_again(
    step: Step, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("admin", "gateway-1"):
        folder.issue(name, (), NOW, YEAR)
    for before in list(Step)[: list(Step).index(step)]:
        Folder(folder.root).rotate(before, NOW, YEAR)
    for after in range(100):
        copy = Path(shutil.copytree(folder.root, tmp_path / f"{after}"))
        with monkeypatch.context() as patched:
            interrupt(patched, after)
            try:
                Folder(copy).rotate(step, NOW, YEAR)
                break
            except Interrupted:
                pass
        assert [one.name for one in Folder(copy).show(NOW)] == ["admin", "gateway-1"]
        Folder(copy).rotate(step, NOW, YEAR)
        taken = Folder(copy)
        assert len(taken.believed) == (1 if step is Step.FINISH else 2)
        assert {one.standing for one in taken.show(NOW)} == {Standing.GOOD}, after
        for name in taken.parts:
            assert (taken.part(name) / "ca.crt").read_bytes() == b"".join(map(pem_of, taken.believed)), after
        assert talks_to(taken, "admin", "gateway-1", "gateway-1")
        assert talks_to(taken, "gateway-1", "admin", "admin")
        assert (
            sorted(file.name for file in (copy / "ca").iterdir() if not file.name.startswith("."))
            == {
                Step.BEGIN: ["ca.crt", "ca.key", "next.crt", "next.key"],
                Step.SWITCH: ["ca.crt", "ca.key", "old.crt"],
                Step.FINISH: ["ca.crt", "ca.key"],
            }[step]
        )
    assert after > 1


def test_a_certificate_whose_key_is_another_s_since_somebody_was_interrupted_is_issued_anew(folder: Folder) -> None:
    for name in ("admin", "gateway-1"):
        folder.issue(name, (), NOW, YEAR)
    shutil.copy(folder.part("gateway-1") / "tls.key", folder.part("admin") / "tls.key")
    assert [one.name for one in folder.renew(NOW, YEAR)] == ["admin"]
    assert talks_to(folder, "admin", "gateway-1", "gateway-1")


def test_who_was_let_read_a_key_reads_the_one_that_takes_its_place(folder: Folder) -> None:
    folder.issue("admin", (), NOW, YEAR)
    key = folder.part("admin") / "tls.key"
    key.chmod(0o640)
    if os.getuid() == 0:
        os.chown(key, 12, 34)
    before = key.stat()
    folder.renew(NOW, YEAR, everything=True)
    after = key.stat()
    assert before.st_ino != after.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_an_authority_is_made_once_and_one_that_is_damaged_is_told(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists, match="rotate-ca"):
        make_folder(folder.root, NOW)
    with pytest.raises(NotFound, match="forebay pki init"):
        Folder(tmp_path / "elsewhere")
    other = make_folder(tmp_path / "other", NOW)
    shutil.copy(other.root / "ca" / "ca.key", folder.root / "ca" / "ca.key")
    with pytest.raises(NotPossible, match=r"ca\.key is not the key of ca\.crt"):
        Folder(folder.root)


@pytest.mark.parametrize("name", ["ca", "", "../admin", "a b", ".hidden", "x" * 64])
def test_a_name_that_cannot_be_a_folder_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be the name of a part"):
        folder.issue(name, (), NOW, YEAR)


@pytest.mark.parametrize("host", ["http://a", "a:8090", "a b", "", "-a", "ä.example", "*"])
def test_a_host_that_is_no_name_and_no_address_is_refused(folder: Folder, host: str) -> None:
    with pytest.raises(BadInput, match="neither a host name nor an address"):
        folder.issue("admin", [host], NOW, YEAR)
    assert folder.parts == []


def test_an_installation_has_a_folder_for_each_part_and_hosts_of_all_or_of_one() -> None:
    parts = parts_of(
        gateways=2,
        schedulers=2,
        registries=2,
        agents=["gpu-7"],
        hosts=["10.0.0.7", "admin=forebay.example.com"],
        domain="forebay.svc",
    )
    assert list(parts) == [
        *("gateway-1", "gateway-2", "scheduler", "scheduler-2", "registry", "registry-2"),
        *("admin", "nats", "postgres", "gpu-7"),
    ]
    assert parts["gateway-2"] == ["10.0.0.7", "gateway-2.forebay.svc", "gateway.forebay.svc"]
    assert parts["admin"] == ["10.0.0.7", "forebay.example.com", "admin.forebay.svc"]
    assert parts["gpu-7"] == ["10.0.0.7", "gpu-7.forebay.svc"]
    with pytest.raises(BadInput, match="there is no part 'gatway'"):
        parts_of(gateways=1, hosts=["gatway=10.0.0.7"])
