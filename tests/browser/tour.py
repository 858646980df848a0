"""Every page there is, and who may see it: the menu's own table, the pages for everybody, and one of each kind of thing that
has a page of its own. And what has to have happened so that there is something on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, reach
from forebay_admin.web.navigation import GROUPS
from tests.browser.visiting import NOBODY, PHONE, ROLES, WIDE, House

MODEL = "gemma-3-270m"


@dataclass(frozen=True, slots=True)
class Stop:
    """A page on the tour."""

    name: str
    path: str
    """With {node} and {backend} for what they are called."""
    call: str | None = None
    """The call that it lives on; None: nobody needs a right for it."""
    whole: bool = False
    is_public: bool = False

    def address(self, house: House) -> str:
        return self.path.format(**house.names)

    def is_for(self, role: str) -> bool:
        if role == NOBODY:
            return self.is_public
        if self.call is None:
            return True
        far = reach(Role(role), self.call)
        return far is Reach.ALL or (far is Reach.OWN and not self.whole)


def _menu() -> Iterator[Stop]:
    for group in GROUPS:
        for place in group.places:
            yield Stop(place.path.strip("/").replace("/", "-"), place.path, place.call, place.whole)


PUBLIC = (
    Stop("status", "/", is_public=True),
    Stop("models", "/models", is_public=True),
    Stop("request-access", "/request-access", is_public=True),
    Stop("sign-in", "/sign-in", is_public=True),
    Stop("not-found", "/nowhere", is_public=True),
)
ONES = (
    Stop("model", f"/models/{MODEL}", is_public=True),
    Stop("node", "/console/nodes/{node}", "ShowNodes", whole=True),
    Stop("backend", "/console/backends/{backend}", "ShowBackends", whole=True),
    Stop("console-model", f"/console/models/{MODEL}", "DescribeModel", whole=True),
    Stop("user", "/console/users/some-member", "ListUsers", whole=True),
    Stop("group", "/console/groups/everyone", "ListGroups", whole=True),
    Stop("import-users", "/console/import/users", "ImportUsers"),
    Stop("import-keys", "/console/import/keys", "ImportKeys", whole=True),
    Stop("new-key", "/console/keys/new", "CreateKey", whole=True),
    Stop("limits", "/console/limits/user/some-member", "ListQuotas"),
    Stop("balances", "/console/balances", "ListBalances"),
    Stop("audit-check", "/console/audit/verify?check=yes", "VerifyAudit"),
    Stop("recording-policies", "/console/recording-policies", "ListRecordingPolicies"),
    Stop("bans", "/console/security/bans", "ListBans"),
    Stop("addresses", "/console/security/addresses", "ListAddressRules"),
    Stop("subscriptions", "/console/events/subscriptions", "ListSubscriptions", whole=True),
    Stop("playground", "/playground"),
)
STOPS = (*PUBLIC, *_menu(), *ONES)


ONE_LOOK_EACH = {
    NOBODY: [("light", PHONE)],
    "admin": [("dark", PHONE)],
    "operator": [("light", WIDE)],
    "auditor": [("dark", WIDE)],
    "member": [("light", PHONE)],
}
"""How each looks, by theme and width, where there is no time for all ways."""


def stops_for(role: str) -> list[Stop]:
    return [stop for stop in STOPS if stop.is_for(role)]


def furnish(house: House) -> None:
    """Somebody of each role, keys, limits, prices, and requests that were answered and that were refused."""
    for role in ROLES:
        house.state_of(role)
    cli = house.running.cli
    house.names["node"] = cli("node", "list")[0]["name"]
    house.names["backend"] = cli("backend", "list")[0]["name"]
    secret = cli("key", "create", "--user", "some-member", "--name", "notebook")["secret"]
    cli("key", "create", "--user", "some-admin", "--name", "ci")
    cli("group", "create", "teaching")
    cli("quota", "set", "--user", "some-member", "--requests-per-minute", "100", "--concurrency", "4")
    cli("quota", "budget", "add", "--user", "some-member", "--tokens", "100000", "--period", "month")
    for number in range(4):
        status, said = _ask(house, secret, f"Say {number}.")
        assert status == 200, said
    assert _ask(house, "fb-000000000000-wrong", "Hello.")[0] == 401


def _ask(house: House, secret: str, text: str) -> tuple[int, str]:
    """Gives the status, and what was said instead of an answer."""
    body = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    request = Request(f"{house.running.gateway}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, ""
    except HTTPError as refusal:
        return refusal.code, refusal.read().decode()
