"""`forebay login`, `logout`, `whoami` and the commands about people, against a real admin."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput
from forebay.launch import cli
from forebay_admin.cli import connection
from forebay_admin.cli.connection import find_connection
from forebay_admin.cli.login_file import Login, login_path, read_login, write_login
from forebay_admin.sign_in.devices import shown
from tests.admin.replica import Running
from tests.admin.sign_in.browser import hidden, open_browser
from tests.admin.test_operator import query

Invoke = Callable[..., Coroutine[Any, Any, Result]]
GOOD = "correct horse battery"


@pytest.fixture
async def forebay(admin: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """`await forebay("whoami")`, as who signed in; with `key`, as the first admin. What else runs on this machine is not
    looked for."""
    monkeypatch.setattr(connection, "data_directories", lambda environ, is_root: [tmp_path / "nothing"])

    async def invoke(*words: str, key: bool = False, stdin: str | None = None) -> Result:
        environment = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "FOREBAY_ADMIN": "", "FOREBAY_TOKEN": ""}
        if key:
            environment |= {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    return invoke


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


async def test_a_person_signs_in_on_the_command_line_and_out_again(
    admin: Running, forebay: Invoke, tmp_path: Path
) -> None:
    await forebay("user", "add", "alice", key=True)
    reset = told(await forebay("user", "reset-password", "alice", "--json", key=True))
    async with open_browser(admin.http_address) as browser:
        assert (await browser.call("POST", "/sign-in/password", {"token": reset["token"], "password": GOOD}))[0] == 200
        assert (await browser.submit("/sign-in", name="alice", password=GOOD))[0] == 303
        signing_in = asyncio.create_task(forebay("login", "--url", browser.url, "--json"))
        codes: list[Any] = []
        async with asyncio.timeout(60):
            while not codes:
                codes = await query(admin, "SELECT user_code FROM admin.device_codes")
        code = shown(codes[0]["user_code"])
        _, page, _ = await browser.get(f"/device?code={code}")
        assert "forebay login on" in page
        assert (await browser.submit("/device", code=code, decision="confirm", csrf=hidden(page, "csrf")))[0] == 200
        result = await signing_in
        made = told(result)
        assert code in result.stderr
    assert (made["user"], made["url"], made["admin"]) == ("alice", browser.url, admin.grpc_address)
    kept = login_path({"XDG_CONFIG_HOME": str(tmp_path / "config")})
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    me = told(await forebay("whoami", "--json"))
    assert (me["user"], me["role"], me["credential"]) == ("alice", "member", "session")
    assert "alice (member)" in (await forebay("whoami")).output
    assert (await forebay("session", "list")).output.count("alice") == 2
    changed = await forebay("user", "password", stdin=f"{GOOD}\nstaple and paper clip\nstaple and paper clip\n")
    assert "Changed; 1 other sessions ended." in changed.output
    assert GOOD not in changed.output
    assert told(await forebay("logout", "--json")) == {"signed_out": True}
    assert not kept.exists()
    assert told(await forebay("logout", "--json")) == {"signed_out": False}
    nobody = await forebay("whoami")
    assert isinstance(nobody.exception, BadInput), nobody.output
    assert (await query(admin, "SELECT count(*) FROM admin.sessions WHERE ended_at IS NULL"))[0]["count"] == 0


async def test_people_are_given_roles_tokens_and_shown(forebay: Invoke) -> None:
    assert "Role helpdesk: users:read." in (await forebay("role", "set", "helpdesk", "users:read", key=True)).output
    await forebay("group", "create", "platform", key=True)
    made = await forebay("user", "add-service", "bot", "--owner-group", "platform", key=True)
    assert "platform answers for it" in made.output
    assert told(await forebay("role", "give", "helpdesk", "--user", "bot", "--json", key=True))["custom_roles"] == [
        "helpdesk"
    ]
    listed = await forebay("role", "list", key=True)
    assert "helpdesk" in listed.output
    assert "keys:write" in listed.output
    shown_user = await forebay("user", "show", "bot", key=True)
    assert "a service account that platform answers for" in shown_user.output
    token = told(await forebay("token", "create", "--may", "users:read", "--expires", "1h", "--json", key=True))
    assert token["secret"].startswith("fbadm-")
    assert token["token"]["id"] in (await forebay("token", "list", key=True)).output
    assert "is revoked" in (await forebay("token", "revoke", token["secret"], key=True)).output
    assert told(await forebay("role", "take", "helpdesk", "--user", "bot", "--json", key=True))["custom_roles"] == []
    assert told(await forebay("role", "remove", "helpdesk", "--json", key=True))["name"] == "helpdesk"
    assert told(await forebay("user", "rights", "bot", "--disable", "--json", key=True))["disabled"] is True
    assert told(await forebay("session", "end", "--user", "bot", "--json", key=True)) == {"ended": 0}
    assert isinstance((await forebay("session", "end", key=True)).exception, BadInput)


def test_what_was_kept_lets_in_where_nothing_else_is_said(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert read_login(environ) is None
    login = Login("https://admin.example", "admin.example:8092", "fbses-x", "alice", "2027-01-15T12:00:00.000Z")
    path = write_login(environ, login)
    assert read_login(environ) == login
    found = find_connection(environ, is_root=False)
    assert (found.admin, found.token, found.source) == ("admin.example:8092", "fbses-x", str(path))
    assert "fbses-x" not in repr((login, found))
    named = {**environ, "FOREBAY_ADMIN": "other:1", "FOREBAY_TOKEN": "fb-1"}
    assert find_connection(named, is_root=False).admin == "other:1"
    path.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        find_connection(environ, is_root=False)
    path.chmod(0o600)
    path.write_text("[]")
    with pytest.raises(BadInput, match="is not what `forebay login` writes"):
        find_connection(environ, is_root=False)
