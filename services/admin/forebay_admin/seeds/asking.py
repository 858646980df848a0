"""One request of another gateway's script at work: what it said, and the operators' calls that it comes to, which are made
right here, with the rights of whoever signed it, and no others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from forebay.errors import ForebayError, NotAllowed
from forebay.rpc import caller
from forebay.wire.v1 import admin_pb2
from forebay_admin.people.access import OPERATOR, Access
from forebay_admin.people.roles import Reach
from forebay_admin.rest.asked import read_json
from forebay_admin.rest.streams import first_of
from forebay_admin.seeds.fields import Fields, as_body
from forebay_admin.sign_in.door import Door

_CALLS = admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods_by_name


class Asking:
    def __init__(
        self,
        operator: Any,
        access: Access,
        door: Door,
        *,
        calls: tuple[str, ...],
        bearer: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes,
        now: float,
    ) -> None:
        """`operator`: the servicer of the operators' calls. `calls`: those that may be made. `now`: seconds."""
        self._operator = operator
        self._access = access
        self._calls = calls
        self._bearer = bearer
        self.door = door
        self.path = path
        self.query = Fields(query, "query")
        self._body = body
        self.now = now

    def demand_rights(self) -> None:
        """Raises NotAuthenticated, NotAllowed, Unavailable."""
        for call in self._calls:
            caller.set(self._access(f"{OPERATOR}/{call}", self._bearer))
            actor = self._access.actor()
            if actor.reach(call) is not Reach.ALL:
                raise NotAllowed(f"{actor.name} may do this with their own things only: use /api/v1 instead.")

    @property
    def caller_name(self) -> str:
        return self._access.actor().name

    def body(self) -> Fields:
        """Raises BadInput. Nothing at all is an empty object."""
        return Fields(as_body(read_json(self._body)) if self._body else {}, "body")

    async def call(self, name: str, /, **fields: Any) -> Any:
        """The answer, or the first one where there are several. Raises what the call raises."""
        return await self.make(name, GetMessageClass(_CALLS[name].input_type)(**fields))

    async def make(self, name: str, request: Any) -> Any:
        if name not in self._calls:
            raise ForebayError(f"{name} is made where only {', '.join(self._calls)} may be.")
        made = getattr(self._operator, name)(request, None)
        return await (first_of(made) if isinstance(made, AsyncIterator) else made)


def parsed_json(text: str) -> Any:
    """None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
