"""`forebay key …` and `forebay quota request …` against a real admin."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput
from forebay.launch import cli
from forebay_admin.cli.people.key_options import parse_labels, terms_change
from tests.admin.replica import Running


def test_a_list_is_replaced_as_a_whole_and_none_takes_it_away() -> None:
    nothing: dict[str, Any] = {
        **dict.fromkeys(("models", "denied", "pools", "addresses", "calls"), ()),
        **dict.fromkeys(("max_output", "max_context", "audit", "band")),
    }
    assert terms_change("k", **nothing).ListFields() == terms_change("k", **nothing).ListFields()[:1]
    change = terms_change("k", **{**nothing, "addresses": ("none",), "calls": ("chat",), "max_output": "none"})
    assert change.HasField("addresses")
    assert list(change.addresses.words) == []
    assert list(change.calls.words) == ["chat"]
    assert change.HasField("max_output_tokens")
    assert not change.max_output_tokens.HasField("tokens")


def test_a_label_has_a_name_and_a_value() -> None:
    assert parse_labels(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    with pytest.raises(BadInput):
        parse_labels(["a"])


async def test_a_keys_life_from_the_command_line(admin: Running) -> None:
    async def forebay(*words: str, token: str = "") -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": token or admin.site.first_key}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)
        assert result.exit_code == 0, (words, result.output, result.exception)
        return result

    async def told(*words: str, token: str = "") -> Any:
        return json.loads((await forebay(*words, "--json", token=token)).stdout)

    await forebay("user", "add", "alice")
    terms = ("--from", "10.0.0.7", "--call", "chat", "--max-output", "100", "--pool", "day", "--pool", "night")
    made = await told("key", "create", "--user", "alice", "--name", "laptop", "--label", "team=core", *terms)
    key_id = made["key"]["id"]
    assert made["key"]["terms"]["addresses"] == ["10.0.0.7/32"]
    assert (made["key"]["pool"], made["key"]["terms"]["other_pools"]) == ("day", ["night"])
    assert "desk" in (await forebay("key", "rename", key_id, "desk")).output
    after = await told("key", "restrict", key_id, "--from", "none", "--max-output", "50", "--unlabel", "team")
    assert (after["terms"]["addresses"], after["terms"]["max_output_tokens"], after["labels"]) == ([], 50, {})
    assert "expires in 30 days" in (await forebay("key", "renew", key_id, "--expires", "30d")).output
    assert "The old one works for 7d more." in (await forebay("key", "rotate", key_id, "--overlap", "7d")).output
    await forebay("key", "block", key_id, "--reason", "looked into", "--for", "1h")
    assert [key["block_reason"] for key in await told("key", "list", "--state", "blocked")] == ["looked into"]
    assert "works again" in (await forebay("key", "unblock", key_id)).output
    assert "There are more" in (await forebay("key", "list", "--limit", "1")).output
    own = (await told("key", "create", "--user", "alice"))["secret"]
    asked = await told("quota", "request", "--key", key_id, "--max-output", "500", "--reason", "long tales", token=own)
    assert "max_output_tokens=500" in (await forebay("quota", "requests")).output
    granted = (await forebay("quota", "approve", asked["id"])).output
    assert granted == f"What alice asked for is granted: key terms: key_id={key_id}, max_output_tokens=500.\n"
    again = await told("quota", "request", "--concurrency", "9", "--reason", "more", token=own)
    assert "is denied" in (await forebay("quota", "deny", again["id"], "--answer", "not now")).output
    states = [one["state"] for one in await told("quota", "requests", "--all", token=own)]
    assert states == ["denied", "approved"]
