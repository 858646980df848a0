"""What the doctor makes of facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forebay.doctor.certificates import CertificateFacts, judge_certificate
from forebay.doctor.clocks import judge_skew, judge_synchronised
from forebay.doctor.files import PathFacts, judge_directory, judge_file
from forebay.doctor.finding import Finding, Grade, worst
from forebay.doctor.machine import judge_memory, judge_open_files, judge_python, judge_room
from forebay.doctor.network import (
    PortFacts,
    PostgresFacts,
    judge_nats,
    judge_port,
    judge_postgres,
    judge_reach,
    judge_shared_ports,
    judge_versions,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)
GIB = 1024**3


@pytest.mark.parametrize(
    ("soft", "grade"), [(-1, "ok"), (65_536, "ok"), (20_000, "warn"), (1_024, "warn"), (256, "fail")]
)
def test_few_files_are_few_streams(soft: int, grade: str) -> None:
    finding = judge_open_files(soft, 1_048_576)
    assert finding.grade == grade
    assert (finding.advice == "") is (grade == "ok")


def test_a_hard_limit_is_raised_where_it_is_set() -> None:
    assert "LimitNOFILE" in judge_open_files(1_024, 4_096).advice
    assert "ulimit -n" in judge_open_files(1_024, -1).advice


def test_python_memory_and_room() -> None:
    assert judge_python((3, 10)).grade is Grade.FAIL
    assert judge_python((3, 13)).grade is Grade.OK
    assert [judge_memory(8 * GIB, free).grade for free in (4 * GIB, GIB, GIB // 4)] == ["ok", "warn", "fail"]
    assert [judge_room("/d", free, 100 * GIB).grade for free in (10 * GIB, 4 * GIB, GIB // 8)] == ["ok", "warn", "fail"]


@pytest.mark.parametrize(
    ("ahead_s", "uncertain_s", "grade"),
    [(0.2, 0.1, "ok"), (-1.5, 0.2, "warn"), (1.5, 1.0, "ok"), (-60.0, 0.5, "fail"), (60.0, 0.5, "fail")],
)
def test_clocks_that_differ_by_more_than_the_asking_took(ahead_s: float, uncertain_s: float, grade: str) -> None:
    finding = judge_skew("PostgreSQL", ahead_s, uncertain_s)
    assert finding.grade == grade
    assert ("behind" in finding.found) is (ahead_s < 0)


def test_a_kernel_that_does_not_say_is_no_fault() -> None:
    assert [judge_synchronised(told).grade for told in (True, False, None)] == ["ok", "warn", "unknown"]
    assert worst([judge_synchronised(None)]) is Grade.OK


GOOD = PathFacts(exists=True, can_read=True, can_write=True, mode=0o640, size_bytes=10)


@pytest.mark.parametrize(
    ("setting", "facts", "grade"),
    [
        ("gateway.token_file", GOOD, "ok"),
        ("gateway.token_file", PathFacts(exists=False), "fail"),
        ("gateway.token_file", PathFacts(exists=True, is_directory=True, can_read=True), "fail"),
        ("gateway.token_file", PathFacts(exists=True, mode=0o600, size_bytes=10), "fail"),
        ("gateway.token_file", PathFacts(exists=True, can_read=True, mode=0o600), "fail"),
        ("gateway.token_file", PathFacts(exists=True, can_read=True, mode=0o644, size_bytes=10), "fail"),
        ("gateway.tls_key", PathFacts(exists=True, can_read=True, mode=0o604, size_bytes=10), "fail"),
        ("gateway.tls_cert", PathFacts(exists=True, can_read=True, mode=0o644, size_bytes=10), "ok"),
        ("registry.callers_file", PathFacts(exists=True, can_read=True, mode=0o644, size_bytes=10), "ok"),
        ("gateway.nats_ca_file", PathFacts(exists=True, can_read=True, mode=0o644, size_bytes=10), "ok"),
        ("admin.bootstrap_key_file", PathFacts(exists=False), "ok"),
    ],
)
def test_a_file_is_there_readable_and_secret_if_it_is_a_secret(setting: str, facts: PathFacts, grade: str) -> None:
    finding = judge_file(setting, "/etc/forebay/x", facts)
    assert finding.grade == grade
    assert (finding.advice == "") is (grade == "ok")


def test_a_directory_can_be_written_or_made() -> None:
    folder = PathFacts(exists=True, is_directory=True, can_read=True, can_write=True)
    away, closed = PathFacts(exists=False), PathFacts(exists=True, is_directory=True, can_read=True)
    grades = [
        judge_directory("gateway.journal_dir", "/j", facts, can_be_made).grade
        for facts, can_be_made in ((folder, True), (away, True), (away, False), (closed, True), (GOOD, True))
    ]
    assert grades == ["ok", "ok", "fail", "fail", "fail"]


def _certificate(**changes: object) -> CertificateFacts:
    usual = {
        "subject": "CN=gateway-1",
        "not_before": NOW - timedelta(days=1),
        "not_after": NOW + timedelta(days=90),
        "names": ("gateway-1", "10.0.0.7"),
        "fits_key": True,
        "is_signed_by_ours": True,
    }
    return CertificateFacts(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "grade", "said"),
    [
        (_certificate(), "ok", "valid until 2027-02-28"),
        (_certificate(not_after=NOW + timedelta(days=3)), "warn", "in 3 days"),
        (_certificate(not_after=NOW - timedelta(days=3)), "fail", "ended on 2026-11-27"),
        (_certificate(not_before=NOW + timedelta(hours=3)), "fail", "valid from 2026-11-30 03:00"),
        (_certificate(fits_key=False), "fail", "belongs to another"),
        (_certificate(is_signed_by_ours=False), "fail", "no authority"),
        (_certificate(fits_key=None, is_signed_by_ours=None, names=()), "ok", "CN=gateway-1: valid"),
        ("No such file or directory", "fail", "No such file"),
    ],
)
def test_a_certificate_is_valid_for_a_while_and_fits_its_key(
    facts: CertificateFacts | str, grade: str, said: str
) -> None:
    finding = judge_certificate("gateway.tls_cert", "/etc/forebay/tls.crt", facts, NOW)
    assert finding.grade == grade
    assert said in finding.found


def test_a_port_is_free_or_held_by_the_service_that_is_to_have_it() -> None:
    told = [
        judge_port("admin.listen", "127.0.0.1:8092", "admin", facts)
        for facts in (
            PortFacts(True),
            PortFacts(False, "Address already in use", "admin"),
            PortFacts(False, "Address already in use", "registry"),
            PortFacts(False, "Permission denied"),
        )
    ]
    assert [one.grade for one in told] == ["ok", "ok", "fail", "fail"]
    assert "Permission denied" in told[3].found
    shared = judge_shared_ports(
        {"a.listen": ":8090", "b.listen": ":8090", "c.listen": ":0", "d.listen": ":0", "e.listen": ":1"}
    )
    assert [one.subject for one in shared] == ["a.listen and b.listen"]


def test_a_peer_that_is_away_is_no_fault_where_it_is_to_run_itself() -> None:
    assert judge_reach("a.x_address", "h:1", 0.002, "", runs_here=False).grade is Grade.OK
    assert judge_reach("a.x_address", "h:1", 0.9, "", runs_here=False).grade is Grade.WARN
    assert judge_reach("a.x_address", "h:1", None, "refused", runs_here=False).grade is Grade.WARN
    assert judge_reach("a.x_address", "h:1", None, "refused", runs_here=True).grade is Grade.OK


@pytest.mark.parametrize(
    ("told", "grades"),
    [
        ({"version": "2.15.1", "jetstream": True, "auth_required": True}, ["ok"]),
        ({"version": "2.9.10", "jetstream": True, "auth_required": True}, ["fail"]),
        ({"version": "2.15.1", "auth_required": True}, ["fail"]),
        ({"version": "2.15.1-RC.1", "jetstream": True}, ["warn"]),
        ("Connection refused", ["fail"]),
        ({}, ["fail", "fail", "warn"]),
    ],
)
def test_nats_is_new_enough_keeps_streams_and_knows_users(told: dict[str, object] | str, grades: list[str]) -> None:
    assert [one.grade for one in judge_nats("admin.nats_url", "127.0.0.1:4222", told)] == grades


@pytest.mark.parametrize(
    ("told", "grade"),
    [
        (PostgresFacts("18.6", 100, 12, False), "ok"),
        (PostgresFacts("15.18 (Debian 15.18-0+deb12u1)", 100, 12, False), "ok"),
        (PostgresFacts("13.2", 100, 12, False), "fail"),
        (PostgresFacts("18.6", 100, 95, False), "warn"),
        (PostgresFacts("18.6", 100, 12, True), "fail"),
        ("password authentication failed", "fail"),
    ],
)
def test_postgres_is_new_enough_has_room_and_can_be_written(told: PostgresFacts | str, grade: str) -> None:
    assert [one.grade for one in judge_postgres("admin.database_url_file", "db:5432", told)] == [grade]


def test_services_of_another_version_are_told() -> None:
    assert [one.grade for one in judge_versions("1.2.0", {"admin": "1.2.0", "gateway": "1.1.0"})] == ["ok", "warn"]


def test_the_worst_of_many() -> None:
    def of(grade: Grade) -> Finding:
        return Finding("ports", "x", grade, "")

    assert worst([of(Grade.OK), of(Grade.UNKNOWN)]) is Grade.OK
    assert worst([of(Grade.WARN), of(Grade.OK)]) is Grade.WARN
    assert worst([of(Grade.WARN), of(Grade.FAIL)]) is Grade.FAIL
