"""Names of a running Forebay, for a shell that completes a command: of users, keys, groups, backends, nodes, pools, models.

Which parameter takes which is told by what it is called. Where nothing answers at once, nothing is said."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from enum import StrEnum

import click
from click.shell_completion import CompletionItem

from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.connection import Calls, ask

WAIT_S = 1.0
"""Whoever presses a key waits no longer than this."""
_MOST_KEYS = 1000
_PLAIN = re.compile(r"[\w./][\w@%+=:,./-]*")
"""What stands at the cursor is run as it stands there, and an engine may call its models what it likes."""


class Kind(StrEnum):
    USER = "user"
    KEY = "key"
    GROUP = "group"
    BACKEND = "backend"
    NODE = "node"
    POOL = "pool"
    MODEL = "model"


_BY_NAME: Mapping[str, Kind] = {
    "user": Kind.USER,
    **dict.fromkeys(("key", "key_id"), Kind.KEY),
    **dict.fromkeys(("group", "parent", "owner_group"), Kind.GROUP),
    **dict.fromkeys(("backend", "backends"), Kind.BACKEND),
    "node": Kind.NODE,
    **dict.fromkeys(("pool", "pools"), Kind.POOL),
    **dict.fromkeys(("model", "models", "denied", "others"), Kind.MODEL),
}
_MADE_BY = frozenset({"add", "create", "enroll", "adopt", "preset", "add-service", "alias", "rename"})
"""Verbs whose NAME is a new one, or another thing's."""

Named = Iterable[tuple[str, str]]
"""Names, each with what else tells it."""


def complete_names(noun: str, command: click.Command) -> None:
    """For `forebay.completions`."""
    if isinstance(command, click.Group):
        for verb, inner in command.commands.items():
            complete_names(verb if noun == "history" else noun, inner)
        return
    for parameter in command.params:
        kind = kind_of(noun, command.name or "", parameter)
        if kind is not None:
            parameter.type = _Name(kind)


def kind_of(noun: str, verb: str, parameter: click.Parameter) -> Kind | None:
    """What a parameter of `forebay NOUN VERB` names; None: nothing that is known here."""
    name = parameter.name or ""
    if not isinstance(parameter.type, click.types.StringParamType):
        return None
    if name == "name" and isinstance(parameter, click.Argument):
        return Kind(noun) if noun in Kind.__members__.values() and verb not in _MADE_BY else None
    return _BY_NAME.get(name)


class _Name(click.types.StringParamType):
    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        named: Named = ()
        with suppress(Exception):  # whatever it is: a TAB is no place to tell it
            named = ask(lambda calls: _in_time(_ASKING[self._kind](calls)))
        fitting = ((name, about) for name, about in named if name.startswith(incomplete) and _PLAIN.fullmatch(name))
        return [CompletionItem(name, help=_shown(about)) for name, about in fitting]


def _shown(about: str) -> str:
    """On one line, which shells take for one of the answer."""
    return "".join(char if char.isprintable() else "?" for char in about)


async def _in_time(asking: Awaitable[Named]) -> Named:
    import asyncio

    async with asyncio.timeout(WAIT_S):
        return await asking


async def _users(calls: Calls) -> Named:
    answer = await calls(calls.stub.ListUsers, admin_pb2.ListUsersRequest())
    return [(user.name, user.group_name) for user in answer.users]


async def _keys(calls: Calls) -> Named:
    answer = await calls(calls.stub.ListKeys, admin_pb2.ListKeysRequest(limit=_MOST_KEYS))
    return [(key.id, f"{key.name} of {key.user_name}") for key in answer.keys]


async def _groups(calls: Calls) -> Named:
    answer = await calls(calls.stub.ListGroups, admin_pb2.ListGroupsRequest())
    return [(group.name, group.parent_name) for group in answer.groups]


async def _backends(calls: Calls) -> Named:
    answer = await calls(calls.stub.ShowBackends, admin_pb2.ShowBackendsRequest())
    return [(backend.name, backend.url) for backend in answer.backends]


async def _nodes(calls: Calls) -> Named:
    answer = await calls(calls.stub.ShowNodes, admin_pb2.ShowNodesRequest())
    return [(node.name, "") for node in answer.nodes]


async def _pools(calls: Calls) -> Named:
    answer = await calls(calls.stub.ListPools, admin_pb2.ListPoolsRequest())
    return [(pool.terms.pool, "") for pool in answer.pools]


async def _models(calls: Calls) -> Named:
    answer = await calls(calls.stub.ShowModels, admin_pb2.ShowModelsRequest())
    return [(model.name, "") for model in answer.models]


_ASKING: Mapping[Kind, Callable[[Calls], Awaitable[Named]]] = {
    Kind.USER: _users,
    Kind.KEY: _keys,
    Kind.GROUP: _groups,
    Kind.BACKEND: _backends,
    Kind.NODE: _nodes,
    Kind.POOL: _pools,
    Kind.MODEL: _models,
}
