"""`forebay user import` and `forebay key import` against a real admin."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput
from forebay.launch import cli
from forebay_admin.cli.people import imports
from tests.admin.replica import Running

Forebay = Callable[..., Awaitable[Result]]

PEOPLE = "name,group,role\nalice,research,\nbob,,operator\n"
KEYS = "user,name,expires_in_days\nalice,laptop,30\nbob,desk,\n"


@pytest.fixture
def forebay(admin: Running) -> Forebay:
    async def run(*words: str, given: bytes | None = None, fails: bool = False) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, given, environment)
        assert (result.exception is not None) == fails, (words, result.output, result.exception)
        return result

    return run


async def test_files_are_shown_and_imported_from_the_command_line(
    forebay: Forebay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, keys = tmp_path / "people.csv", tmp_path / "keys.csv"
    people.write_bytes(("\ufeff" + PEOPLE).replace("\n", "\r\n").encode())
    keys.write_text(KEYS)

    shown = (await forebay("user", "import", str(people), "--dry-run")).output
    assert "New groups: research" in shown
    assert shown.endswith("Nothing was changed.\n")
    unasked = await forebay("user", "import", str(people), fails=True)
    assert isinstance(unasked.exception, BadInput)
    assert "say --yes" in unasked.exception.message
    assert len(json.loads((await forebay("user", "list", "--json")).output)) == 1
    monkeypatch.setattr(imports, "somebody_is_there", lambda: True)
    assert isinstance((await forebay("user", "import", str(people), given=b"n\n", fails=True)).exception, SystemExit)
    assert len(json.loads((await forebay("user", "list", "--json")).output)) == 1
    monkeypatch.undo()
    assert "2 users added." in (await forebay("user", "import", "-", "--yes", given=PEOPLE.encode())).output
    again = await forebay("user", "import", str(people), "--yes", fails=True)
    assert isinstance(again.exception, BadInput)
    assert again.exception.message.splitlines() == [
        "The file has 2 problems; nothing was changed.",
        f"  {people}:2 name: There is a user alice already.",
        f"  {people}:3 name: There is a user bob already.",
    ]

    odd = b"user,name\nbob\x1b[2J,a\nbob\x1b[2J,a\n"
    twice = await forebay("key", "import", "-", "--dry-run", given=odd, fails=True)
    assert "bob?[2J gets a key a on line 2" in str(twice.exception)

    kept = tmp_path / "keys.secrets.csv"
    kept.write_text("of before")
    refused = await forebay("key", "import", str(keys), "--yes", fails=True)
    assert isinstance(refused.exception, BadInput)
    assert kept.read_text() == "of before"
    kept.unlink()
    made = (await forebay("key", "import", str(keys), "--yes")).output
    assert f"2 keys made. They are in {kept}, and nowhere else.\n" in made
    assert "fb-" not in made
    assert kept.stat().st_mode & 0o777 == 0o600
    with kept.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["user"], row["name"]) for row in rows] == [("alice", "laptop"), ("bob", "desk")]
    assert all(row["secret"].startswith(f"fb-{row['key_id']}-") for row in rows)

    wrong = await forebay("key", "import", str(keys), "--secrets", str(tmp_path / "x.csv"), "--yes", fails=True)
    assert isinstance(wrong.exception, BadInput)
    assert not (tmp_path / "x.csv").exists()
    nowhere = await forebay("key", "import", "-", "--yes", given=b"user,name\nbob,third\n", fails=True)
    assert isinstance(nowhere.exception, BadInput)
    told = json.loads(
        (
            await forebay(
                "key",
                "import",
                "-",
                "--secrets",
                str(tmp_path / "third.csv"),
                "--yes",
                "--json",
                given=b"user,name\nbob,third\n",
            )
        ).output
    )
    assert (told["done"], told["keys"][0]["name"], "secret" in told["keys"][0]) == (True, "third", False)
    asked = (await forebay("key", "import", "-", "--secrets", "-", "--yes", given=b"user,name\nbob,fourth\n")).output
    assert asked.splitlines()[0] == "user,name,key_id,secret"
    assert asked.splitlines()[1].startswith("bob,fourth,")
