"""Pages about what happened, over HTTP: looking for it, checking the log, and what forms do."""

from __future__ import annotations

import asyncio
import csv
import io
import re

import pytest

from forebay_admin.people.people import Role
from tests.admin.web.conftest import HTML, House, page, send
from tests.admin.web.refused import Wrong, demand_refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_page_about_what_happened_is_there_for_an_admin(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    for path in (
        "/console/audit",
        "/console/audit/verify",
        "/console/recordings",
        "/console/recording-policies",
        "/console/security",
        "/console/security/bans",
        "/console/security/addresses",
        "/console/events",
        "/console/events/subscriptions",
    ):
        assert "<h1>" in await page(admin, path), path


# --- the audit log ------------------------------------------------------------------------------------------------------


async def test_the_log_is_searched_by_who_and_what_and_shows_what_changed(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddGroup(name="searched")
    await house.root.ChangeGroup(name="searched", weight_milli=2500)
    text = await page(admin, "/console/audit?subject=searched&action=group.set")
    assert "<del>weight_milli: 1000</del>" in text
    assert "<ins>weight_milli: 2500</ins>" in text
    assert "Nothing in the log fits" in await page(admin, "/console/audit?subject=searched&actor=nobody-at-all")


async def test_a_page_is_audited_as_one(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert (await send(admin, "/console/groups", name="by-a-page"))[0] == 303
    (entry,) = (await house.root.ListAudit(subject="by-a-page")).entries
    assert (entry.actor, entry.interface) == ("some-admin", "web")


async def test_the_log_goes_on_on_the_next_page(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    for number in range(60):
        await house.root.AddGroup(name=f"paged-{number}")
        await house.root.RemoveGroup(name=f"paged-{number}")
    text = await page(admin, "/console/audit?text=paged-")
    found = re.search(r'href="(/console/audit\?[^"]*page=\d+)"', text)
    assert found is not None
    rest = await page(admin, found[1].replace("&amp;", "&"))
    assert "paged-0" in rest
    assert "page=" not in rest.partition("Previous")[0].rpartition("href=")[2]


async def test_a_filter_that_cannot_be_says_so_beside_its_field(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    text = await page(admin, "/console/audit?from=yesterday&actor=root", status=400)
    assert 'id="f-filter-from-error"' in text
    assert 'value="yesterday"' in text
    assert 'value="root"' in text
    # Said twice, or under a name that a field of the code has.
    await page(admin, "/console/audit?text=a&text=b&name=c&self=d")


async def test_the_log_as_a_file_runs_no_formula(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.SetCustomRole(name="for-the-file", permissions=["users:read"], about="=1+1")
    status, text, _ = await admin.get("/console/audit.csv?subject=for-the-file", headers=HTML)
    assert status == 200
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["action"] == "role.set"
    assert not row["subject"].startswith("=")
    assert (await admin.get("/console/audit.csv?through=nowhere", headers=HTML))[0] == 400


async def test_the_chain_is_checked_and_ends_with_an_anchor_that_a_later_check_takes(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    text = await page(admin, "/console/audit/verify?check=yes")
    assert "The log is what was written" in text
    assert text.rstrip().endswith("</html>"), text
    found = re.search(r"\d+:[0-9a-f]{64}", text)
    assert found is not None
    assert "The log is what was written" in await page(admin, f"/console/audit/verify?check=yes&anchor={found[0]}")
    number = int(found[0].partition(":")[0])
    forged = f"{number}:{'0' * 64}"
    assert "The log is not what was written" in await page(admin, f"/console/audit/verify?check=yes&anchor={forged}")


async def test_a_check_that_cannot_be_made_says_why(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    text = await page(admin, "/console/audit/verify?check=yes&anchor=nonsense", status=400)
    assert 'id="f-check-anchor-error"' in text
    text = await page(admin, "/console/audit/verify?check=yes&from_seq=many", status=400)
    assert 'id="f-check-from_seq-error"' in text


# --- recordings ---------------------------------------------------------------------------------------------------------


async def test_who_searches_recordings_is_in_the_log(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    await page(auditor, "/console/recordings?text=needle-in-here")
    told = await house.root.ListAudit(action="recording", text="needle-in-here")
    assert [entry.actor for entry in told.entries] == ["some-auditor"]


async def test_those_who_run_machines_read_no_recordings_and_see_the_policies(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    await page(operator, "/console/recordings", status=403)
    assert "What is recorded" in await page(operator, "/console/recording-policies")


async def test_a_policy_is_set_once_that_is_ticked(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddGroup(name="recorded")
    sent = {"group": "recorded", "policy": "sampled", "permille": "20"}
    status, text, _ = await send(admin, "/console/recording-policies", **sent)
    assert (status, 'id="f-policy-sure-error"' in text) == (400, True)
    assert (await send(admin, "/console/recording-policies", **sent, sure="yes"))[0] == 303
    (policy,) = (one for one in (await house.root.ListRecordingPolicies()).policies if one.group == "recorded")
    assert policy.permille == 20


# --- security -----------------------------------------------------------------------------------------------------------


async def test_a_ban_is_made_and_taken_back(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    sent = {"network": "198.51.100.0/24", "lasts": "2h", "reason": "too many guesses", "spare_valid": "yes"}
    assert (await send(admin, "/console/security/bans", **sent))[0] == 303
    text = await page(admin, "/console/security/bans")
    assert "198.51.100.0/24" in text
    assert "too many guesses" in text
    assert (await send(admin, "/console/security/bans/lift", network="198.51.100.0/24"))[0] == 303
    assert '<th scope="row" class="mono">198.51.100.0/24' not in await page(admin, "/console/security/bans")
    assert "some-admin" in await page(admin, "/console/security/bans?over=yes")
    assert "198.51.100.0/24" in await page(admin, "/console/security?kind=banned")


async def test_a_rule_is_put_on_a_list_and_taken_off_once_that_is_ticked(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    path, rule = "/console/security/addresses", {"list": "deny", "network": "203.0.113.0/24"}
    assert (await send(admin, path, **rule, note="a botnet"))[0] == 303
    assert "a botnet" in await page(admin, path)
    assert (await send(admin, f"{path}/remove", **rule))[0] == 400
    assert (await send(admin, f"{path}/remove", **rule, sure="yes"))[0] == 303
    assert "a botnet" not in await page(admin, path)


async def test_what_happens_stands_on_the_open_page_without_its_being_asked_for(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    assert 'data-live="security"' in await page(auditor, "/console/security")
    assert 'data-live="security"' not in await page(auditor, "/console/security?user=root")
    async with auditor.session.get(f"{auditor.url}/live?topics=security") as answer:
        assert answer.status == 200
        async with asyncio.timeout(60):
            await house.root.AddBan(network="198.51.100.77/32", reason="seen live", lasts_s=60)
            told = ""
            while "198.51.100.77" not in told:
                told = (await answer.content.readline()).decode()
    assert "csrf" not in told
    assert (await (await house.of(Role.MEMBER)).get("/live?topics=security"))[0] == 403


async def test_the_policy_of_addresses_keeps_what_was_set(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    path = "/console/security/addresses"
    sent = {"mode": "permissive", "ban_after": "33", "ban_window": "5m", "ban_first": "10m", "ban_longest": "12h"}
    assert (await send(admin, f"{path}/policy", **sent))[0] == 303
    assert "After 33 wrong keys or passwords within 5 min" in await page(admin, path)


# --- events -------------------------------------------------------------------------------------------------------------


async def test_a_subscription_is_added_tried_and_removed(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    path = "/console/events/subscriptions"
    status, text, _ = await send(admin, path, channel="webhook", address="https://hooks.example/x", kinds="budget.*")
    assert status == 200
    assert re.search(r"whsec_[\w+/=]{20,}", text)
    assert not re.search(r"whsec_[\w+/=]{20,}", await page(admin, path))
    (made,) = (one for one in (await house.root.ListSubscriptions()).subscriptions if one.address == "hooks.example")
    status, _, after = await send(admin, f"{path}/{made.id}/test")
    assert status == 303
    assert "notify.test" in await page(admin, after)
    assert "notify.test" in await page(admin, "/console/events?kind=notify.test")
    status, text, _ = await send(admin, f"{path}/{made.id}/remove")
    assert (status, f'id="f-remove-{made.id}-sure-error"' in text) == (400, True)
    assert (await send(admin, f"{path}/{made.id}/remove", sure="yes"))[0] == 303
    assert made.id not in [one.id for one in (await house.root.ListSubscriptions()).subscriptions]


async def test_dead_messages_are_tried_again(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert (await send(admin, "/console/deliveries/retry"))[0] == 303


WRONG = (
    Wrong("/console/recording-policies", "policy", "policy", {"policy": "everything"}),
    Wrong("/console/recording-policies", "policy", "permille", {"policy": "sampled", "permille": "2000"}),
    Wrong("/console/recording-policies", "policy", "permille", {"policy": "sampled"}),
    Wrong("/console/recording-policies", "policy", "group", {"policy": "full", "group": "no-such", "sure": "yes"}),
    Wrong("/console/recordings/delete-of-user", "delete", "user", {}),
    Wrong("/console/recordings/delete-of-user", "delete", "typed", {"user": "some-admin", "typed": "some"}),
    Wrong("/console/recordings/delete-of-user", "delete", "user", {"user": "no-such", "typed": "no-such"}),
    Wrong("/console/security/bans", "ban", "network", {"reason": "x"}),
    Wrong("/console/security/bans", "ban", "network", {"network": "999.1.2.3", "reason": "x"}),
    Wrong("/console/security/bans", "ban", "lasts", {"network": "192.0.2.1", "reason": "x", "lasts": "a while"}),
    Wrong("/console/security/bans", "ban", "reason", {"network": "192.0.2.1"}),
    Wrong("/console/security/addresses", "rule", "list", {"list": "maybe", "network": "192.0.2.1"}),
    Wrong("/console/security/addresses", "rule", "network", {"list": "deny", "network": "nowhere"}),
    Wrong("/console/security/addresses", "rule", "network", {"list": "deny", "network": "127.0.0.0/8"}),
    Wrong("/console/security/addresses/policy", "policy", "mode", {"mode": "closed"}),
    Wrong("/console/security/addresses/policy", "policy", "ban_after", {"mode": "permissive", "ban_after": "-1"}),
    Wrong("/console/security/addresses/policy", "policy", "ban_window", {"mode": "permissive", "ban_after": "3"}),
    Wrong("/console/events/subscriptions", "add", "channel", {"channel": "pigeon"}),
    Wrong("/console/events/subscriptions", "add", "address", {"channel": "webhook"}),
    Wrong("/console/events/subscriptions", "add", "address", {"channel": "webhook", "address": "ftp://x"}),
    Wrong(
        "/console/events/subscriptions", "add", "address", {"channel": "mail", "address": "a@b.example", "kinds": "x.y"}
    ),
)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_what_is_wrong_in_a_form_stands_beside_its_field_and_what_was_typed_stays(
    house: House, wrong: Wrong
) -> None:
    await demand_refused(await house.of(Role.ADMIN), wrong)
