"""Who may say and hear what on NATS: the rights of services and of nodes' agents, written as server configuration.

Two accounts. Services share one; agents share another, which has no JetStream and sees only what crosses over:
samples and answers to the services, commands to the agents. Agents therefore stand in a file of their own, which admin
rewrites at each enrolment and the server reads again on SIGHUP; nobody else's connection notices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from forebay import subjects
from forebay.errors import BadInput

SERVICES_ACCOUNT = "FOREBAY"
AGENTS_ACCOUNT = "AGENTS"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NKEY = re.compile(r"U[A-Z2-7]{55}")


@dataclass(frozen=True, slots=True)
class Rights:
    """Subjects a user may publish and subscribe to; everything else is refused by the server."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox(user: str) -> str:
    """Where this user's replies arrive; a client asks for it with `inbox_prefix="_INBOX_<user>"`."""
    return f"_INBOX_{user}.>"


def rights(user: str) -> Rights:
    """What a service may do. `user` is `scheduler`, `registry`, `admin`, `backup`, or a gateway's name. Raises BadInput."""
    _demand_name(user)
    if user == "scheduler":
        buckets = [w for b in (subjects.LEADER_BUCKET, subjects.SCHEDULER_BUCKET) for w in _bucket(b)]
        return Rights((subjects.usage(user), subjects.DRAINING, *buckets), (inbox(user),))
    if user == "registry":
        return Rights(
            ("forebay.events.registry.>", subjects.health("*"), subjects.alerts("*"), subjects.command("*")),
            (
                subjects.TELEMETRY_OF_ALL,
                subjects.ANSWERS_OF_ALL,
                subjects.ATTEMPTS_OF_ALL,
                subjects.DRAINING,
                inbox(user),
            ),
        )
    if user == "admin":
        streams = [w for s in (subjects.USAGE_STREAM.name, subjects.RECORDINGS_STREAM.name) for w in _stream(s)]
        return Rights(("forebay.events.>", "$JS.API.INFO", *streams), ("forebay.events.>", inbox(user)))
    if user == "backup":
        copied = [w for s in _kept_streams() for w in (f"$JS.API.STREAM.SNAPSHOT.{s}", f"$JS.API.STREAM.RESTORE.{s}")]
        return Rights((*copied, "$JS.SNAPSHOT.ACK.>", "$JS.SNAPSHOT.RESTORE.>"), (inbox(user),))
    return Rights((subjects.usage(user), subjects.attempts(user), subjects.recordings(user)), (inbox(user),))


def agent_rights(node: str) -> Rights:
    """An agent speaks for its own node and hears what is meant for it. Raises BadInput."""
    _demand_name(node)
    return Rights((subjects.telemetry(node), subjects.answer(node)), (subjects.command(node), inbox(node)))


def render_users(users: Iterable[tuple[str, str, Rights]]) -> str:
    """The `users` array of an account, from (name, public nkey, rights). Raises BadInput for what is neither."""
    lines = ["users = ["]
    for name, nkey, allowed in users:
        _demand_name(name)
        if not _NKEY.fullmatch(nkey):
            raise BadInput(f"{nkey!r} is not the public nkey of a user (U and 55 letters or digits).")
        publish, subscribe = json.dumps(allowed.publish), json.dumps(allowed.subscribe)
        lines += [
            f"  # {name}",
            f"  {{ nkey: {nkey}, permissions: {{ publish: {{ allow: {publish} }}, subscribe: {{ allow: {subscribe} }} }} }}",
        ]
    return "\n".join([*lines, "]", ""])


def render_agents(agents: Iterable[tuple[str, str]]) -> str:
    """The whole of `agents.conf`, from (node, public nkey). Write it by rename: the server may read at any moment."""
    return render_users((node, nkey, agent_rights(node)) for node, nkey in agents)


def render_accounts(services: Iterable[tuple[str, str]], agents_file: str) -> str:
    """The `accounts` block of `nats.conf`, from (service user, public nkey); agents come from `agents_file`, a path
    relative to the configuration's own folder."""
    samples, commands = json.dumps(subjects.TELEMETRY_OF_ALL), json.dumps(subjects.command("*"))
    answers = json.dumps(subjects.ANSWERS_OF_ALL)
    return f"""accounts {{
  {SERVICES_ACCOUNT} {{
    jetstream: enabled
    {render_users((user, nkey, rights(user)) for user, nkey in services)}
    exports = [ {{ stream: {commands}, accounts: [{AGENTS_ACCOUNT}] }} ]
    imports = [
      {{ stream: {{ account: {AGENTS_ACCOUNT}, subject: {samples} }} }}
      {{ stream: {{ account: {AGENTS_ACCOUNT}, subject: {answers} }} }}
    ]
  }}
  {AGENTS_ACCOUNT} {{
    include {json.dumps(agents_file)}
    exports = [
      {{ stream: {samples}, accounts: [{SERVICES_ACCOUNT}] }}
      {{ stream: {answers}, accounts: [{SERVICES_ACCOUNT}] }}
    ]
    imports = [ {{ stream: {{ account: {SERVICES_ACCOUNT}, subject: {commands} }} }} ]
  }}
}}
"""


def _bucket(bucket: str) -> tuple[str, ...]:
    """To make it, give it another lifetime, and read and write its keys. Not to empty or delete it: that would let another
    leader think that it is the first."""
    stream = f"KV_{bucket}"
    return (
        f"$KV.{bucket}.>",
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.UPDATE.{stream}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",  # asked of the stream's leader: what it answers is never old
    )


def _stream(stream: str) -> tuple[str, ...]:
    return (
        f"$JS.API.STREAM.CREATE.{stream}",
        f"$JS.API.STREAM.UPDATE.{stream}",
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
        f"$JS.ACK.{stream}.>",
    )


def _kept_streams() -> tuple[str, ...]:
    """Those that hold what is nowhere else. Who leads is for those who run to settle, and is not among them."""
    return (subjects.USAGE_STREAM.name, subjects.RECORDINGS_STREAM.name, f"KV_{subjects.SCHEDULER_BUCKET}")


def _demand_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be a name on NATS: letters, digits, - and _, at most 64.")
