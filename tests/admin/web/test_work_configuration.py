"""The fleet's versions and their differences, a file applied with its plan first, and usage that could become no row."""

from __future__ import annotations

import re
from html import unescape

import pytest

from forebay.wire.v1 import audit_pb2, fleet_pb2, usage_queries_pb2
from forebay_admin.fleet.fleet_file import read_fleet_file
from forebay_admin.ledger.usage_rows import Poison
from forebay_admin.people.people import Role
from forebay_admin.web.work.configuration_view import diff_of, letters_of, problems_of, versions_of
from tests.admin.test_usage_queries import enter, opened
from tests.admin.web.conftest import House, page, send

asynchronous = pytest.mark.asyncio(loop_scope="module")
FLEET = "backends:\n- name: page-made\n  url: http://gpu-1:8000\n  slots: 8\n"


def test_a_diff_shows_what_was_added_and_removed_with_a_little_around_it() -> None:
    old = "\n".join(f"line {n}" for n in range(40))
    new = old.replace("line 20", "line twenty").replace("line 39", "line 39\nline 40")
    diff = diff_of(old, new)
    assert (diff.added, diff.removed, diff.is_same) == (2, 1, False)
    assert [line.text for line in diff.lines if line.kind == "removed"] == ["line 20"]
    assert [line.text for line in diff.lines if line.kind == "added"] == ["line twenty", "line 40"]
    assert [line.kind for line in diff.lines].count("gap") == 2
    assert "line 5" not in [line.text for line in diff.lines]
    assert diff_of(old, old).is_same
    assert [line.kind for line in diff_of("", "a").lines] == ["added"]


def test_a_version_says_who_made_it_and_through_what_where_the_audit_tells() -> None:
    change = fleet_pb2.FleetChange(kind="backend", name="big", what=fleet_pb2.FLEET_CHANGE_KIND_CHANGED)
    change.fields.add(field="slots", before="4", after='"eight"')
    told = fleet_pb2.ShowFleetVersionsResponse(
        versions=[fleet_pb2.FleetVersion(version=7, at_us=10_000_000, actor="ada", changes=[change] * 7)]
    )
    near = audit_pb2.AuditEntry(at_us=11_000_000, actor="ada", subject="big", interface="rest")
    others = [
        audit_pb2.AuditEntry(at_us=11_000_000, actor="bob", subject="big", interface="grpc"),
        audit_pb2.AuditEntry(at_us=90_000_000, actor="ada", subject="big", interface="grpc"),
    ]
    (version,) = versions_of(told, [*others, near])
    assert (version.number, version.actor, version.through) == (7, "ada", "rest")
    assert version.in_short == "~ backend big, " * 4 + "~ backend big and 2 more"
    assert (version.changes[0].fields[0].before, version.changes[0].fields[0].after) == ("4", "eight")
    assert versions_of(told)[0].through == ""


def test_problems_of_a_file_stand_by_line_and_keys_in_files_are_refused() -> None:
    file = read_fleet_file("backends:\n- name: big\n  url: http://x\n  colour: red\n  bearer_file: big.key\n")
    told = [
        fleet_pb2.FleetProblem(path="backends.big.colour", why="said twice"),
        fleet_pb2.FleetProblem(path="backends.big.url", why="It is no address."),
    ]
    found = problems_of(file, told)
    assert [one.line for one in found] == sorted(one.line or 0 for one in found)
    assert [one.path for one in found].count("backends.big.colour") == 1
    assert {one.path for one in found} >= {"backends.big.url", "backends.big.bearer_file"}


def test_a_letter_says_by_what_it_came() -> None:
    letter = usage_queries_pb2.DeadLetter(id="ab", received_at_us=5_000_000, why="no batch", bytes=3)
    setattr(letter, "from", "forebay.usage.gw")
    (one,) = letters_of(usage_queries_pb2.ListDeadLettersResponse(letters=[letter]))
    assert (one.id, one.at, one.subject, one.bytes) == ("ab", 5.0, "forebay.usage.gw", 3)


def hidden(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found is not None, text
    return unescape(found[1])


@asynchronous
async def test_a_file_is_planned_first_applied_then_and_stands_in_the_history(house: House) -> None:
    operator, auditor = await house.of(Role.OPERATOR), await house.of(Role.AUDITOR)
    before = (await house.root.ExportFleet()).version
    status, plan, _ = await send(operator, "/console/configuration/plan", file=FLEET)
    assert status == 200
    assert "page-made" in plan
    assert (await house.root.ExportFleet()).version == before, "a plan changes nothing"
    sent = {"file": hidden(plan, "file"), "version": hidden(plan, "version")}
    status, _, to = await send(operator, "/console/configuration/apply", **sent)
    assert (status, to) == (303, "/console/configuration")
    after = (await house.root.ExportFleet()).version
    assert after == before + 1

    text = await page(auditor, "/console/configuration")
    assert "backend page-made" in text
    assert "some-operator" in text
    assert "<td>web</td>" in text, "through what"
    assert "Apply a file" not in text
    assert "page-made" in await page(auditor, f"/console/configuration/versions/{after}")
    diff = await page(auditor, f"/console/configuration/diff?a={before}&b={after}")
    assert re.search(r"<ins>- name: page-made</ins>", diff)
    assert "No difference" in await page(auditor, "/console/configuration/diff")
    assert "url: http://gpu-1:8000" in await page(auditor, "/console/configuration/fleet")
    status, yaml, _ = await auditor.get(f"/console/configuration/fleet.yaml?version={after}")
    assert status == 200
    assert not read_fleet_file(yaml).problems

    status, text, _ = await send(
        operator, "/console/configuration/apply", file=FLEET + "  kind: vllm\n", version=str(before)
    )
    assert status in (400, 409), "the fleet is another one by now than the plan was made for"
    again = (await send(operator, "/console/configuration/plan", file=FLEET))[1]
    assert "It is so already" in again
    back = (await send(operator, "/console/configuration/edit", file=FLEET, prune="yes"))[1]
    assert "name: page-made" in back
    assert "checked" in back


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("", "The file is empty"),
        ("{", "This is not YAML"),
        ("backends:\n- name: a\n  colour: red\n", "colour"),
        ("backends:\n- name: a\n  url: http://a\n  bearer_file: /etc/passwd\n", "A page reads no files of yours"),
        ("backends: !!python/object:os.system {}\n", "kind of value"),
        ("- 1\n", "Line 1"),
    ],
)
@asynchronous
async def test_a_file_with_problems_changes_nothing_and_each_is_told_with_its_line(
    house: House, file: str, told: str
) -> None:
    operator = await house.of(Role.OPERATOR)
    for path in ("plan", "apply"):
        status, text, _ = await send(operator, f"/console/configuration/{path}", file=file, version="0")
        assert status == 400
        assert told in unescape(text)
        assert "nothing was changed" in text


@asynchronous
async def test_numbers_that_are_no_versions_are_said_to_be_none(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    for path in (
        "versions/none",
        "versions/-1",
        "versions/" + "9" * 40,
        "fleet?version=x",
        "fleet.yaml?version=x",
        "diff?a=x",
        "diff?a=1&b=%00",
    ):
        await page(auditor, f"/console/configuration/{path}", status=400)
    await page(auditor, "/console/configuration?before=x", status=400)
    await page(auditor, "/console/configuration/versions/999999", status=404)
    await page(auditor, "/console/configuration/diff?a=999999", status=400)


@asynchronous
async def test_who_may_not_apply_is_shown_no_form_and_refused_all_the_same(house: House) -> None:
    auditor, member = await house.of(Role.AUDITOR), await house.of(Role.MEMBER)
    await page(auditor, "/console/configuration/apply", status=403)
    assert (await send(auditor, "/console/configuration/apply", file=FLEET, version="1"))[0] == 403
    await page(member, "/console/configuration", status=403)
    operator = await house.of(Role.OPERATOR)
    status, _, _ = await operator.submit("/console/configuration/apply", file=FLEET, version="1")
    assert status == 403, "without the token of a page of ours"


@asynchronous
async def test_dead_letters_are_listed_read_and_tried_again(house: House) -> None:
    operator, auditor = await house.of(Role.OPERATOR), await house.of(Role.AUDITOR)
    assert "No dead letters" in await page(auditor, "/console/configuration/letters")
    async with opened(house.admin.site) as database:
        await enter(database, [], [Poison("forebay.usage.gw", b"\xff<b>", "not a UsageBatch: nonsense")])
    text = await page(auditor, "/console/configuration/letters")
    assert "not a UsageBatch" in text
    assert "Read again" not in text, "an auditor looks and does nothing"
    (id_,) = set(re.findall(r"/console/configuration/letters/([0-9a-f]{20,})", text))
    one = await page(auditor, f"/console/configuration/letters/{id_}")
    assert "ff 3c 62 3e" in one
    assert ".&lt;b&gt;" in one
    status, _, to = await send(operator, "/console/configuration/letters/retry", id=id_)
    assert (status, to) == (303, "/console/configuration/letters")
    assert "0 new rows" in unescape(await page(operator, "/console/configuration/letters"))
    assert (await send(auditor, "/console/configuration/letters/retry"))[0] == 403
    await page(operator, "/console/configuration/letters/not-hexadecimal", status=400)
    await page(operator, "/console/configuration/letters?page=none", status=400)
    assert (await send(operator, "/console/configuration/letters/retry", id="none"))[0] == 400
