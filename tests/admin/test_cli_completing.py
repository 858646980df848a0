"""Which parameters complete to which names of a running Forebay, and that nothing is said where none answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.metadata import entry_points

import click
import pytest

from forebay_admin.cli import completing
from forebay_admin.cli.completing import Kind, complete_names, kind_of
from tests.admin.replica import Running


def found(noun: str) -> dict[str, Kind]:
    """`verb parameter` → what it completes to."""
    (entry,) = entry_points(group="forebay.commands", name=noun)
    return {
        f"{path} {parameter.name}": kind
        for path, command in _commands("", entry.load())
        for parameter in command.params
        if (kind := kind_of(noun, command.name or "", parameter)) is not None
    }


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(f"{path} {name}".strip(), inner)
    else:
        yield path, command


def test_parameters_are_known_by_what_they_are_called() -> None:
    users, keys, backends = found("user"), found("key"), found("backend")
    assert users["set name"] is users["rights name"] is Kind.USER
    assert users["set group"] is users["add group"] is Kind.GROUP
    assert "add name" not in users
    assert keys["revoke key_id"] is Kind.KEY
    assert keys["create user"] is Kind.USER
    assert keys["create models"] is keys["restrict denied"] is Kind.MODEL
    assert not {"create name", "rename name", "create band"} & set(keys)
    assert backends["drain name"] is backends["credential list backend"] is Kind.BACKEND
    assert backends["add pool"] is Kind.POOL
    assert backends["set node"] is Kind.NODE
    assert not {"add name", "adopt name"} & set(backends)
    assert found("drain") == {" backend": Kind.BACKEND}
    assert found("model")["fallback set others"] is Kind.MODEL
    assert found("node")["show name"] is found("node")["drain node"] is Kind.NODE


async def test_names_come_from_the_server_and_its_silence_is_silence(
    admin: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice")
    await operator.AddUser(name="bob", group="faculty")
    await operator.RegisterBackend(name="big", url="http://127.0.0.1:1")
    made = (await operator.CreateKey(user="alice", name="laptop")).key
    monkeypatch.setattr(completing, "WAIT_S", 60.0)  # a busy machine is slow to answer
    monkeypatch.setenv("FOREBAY_ADMIN", admin.grpc_address)
    monkeypatch.setenv("FOREBAY_TOKEN", admin.site.first_key)

    async def completed(noun: str, verb: str, parameter: str, incomplete: str) -> list[str]:
        (entry,) = entry_points(group="forebay.commands", name=noun)
        command = entry.load()
        complete_names(noun, command)
        verb_ = command.commands[verb]
        (found,) = [one for one in verb_.params if one.name == parameter]
        items = await asyncio.to_thread(found.shell_complete, click.Context(verb_), incomplete)
        return [item.value for item in items]

    assert await completed("user", "set", "name", "") == ["admin", "alice", "bob"]
    assert await completed("user", "set", "group", "f") == ["faculty"]
    assert await completed("key", "revoke", "key_id", made.id[:6]) == [made.id]
    assert await completed("backend", "show", "name", "b") == ["big"]
    assert await completed("model", "show", "model", "t") == ["tiny"]
    monkeypatch.setenv("FOREBAY_ADMIN", "127.0.0.1:1")
    assert await completed("user", "set", "name", "") == []
    monkeypatch.setenv("FOREBAY_TOKEN", "né")
    assert await completed("user", "set", "name", "") == []


def test_what_a_shell_would_run_or_take_for_an_option_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["org/a:8b-q4_K", "tiny@v1,x=y"]
    named = [(name, "of\nx") for name in ("$(touch x)", "a;b", "a b", "a\nplain,c", "--yes", "=ls", "`x`", "a*", *kept)]
    monkeypatch.setattr(completing, "ask", lambda work: named)
    option = click.Argument(["model"])
    complete_names("model", click.Command("show", params=[option]))
    items = option.type.shell_complete(click.Context(click.Command("show")), option, "")
    assert [(item.value, item.help) for item in items] == [(name, "of?x") for name in kept]
