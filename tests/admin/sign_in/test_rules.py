"""What is decided about signing in without a database or a clock: permissions, passwords, waits, claims, codes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput, CannotStart, NotAllowed, NotAuthenticated
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import GROUPS, Permission, known_permissions, parse_permission, parse_permissions
from forebay_admin.people.rights import Rights, demand_no_wider, too_wide
from forebay_admin.people.roles import Reach, calls, reach
from forebay_admin.rest.credential import NotFromOurPage, signed_with
from forebay_admin.sign_in.bearers import SESSION_COOKIE, BearerKind, csrf_token, new_bearer, parse_bearer
from forebay_admin.sign_in.claims import BadClaims, arrival, demand_valid, groups_of, has_too_many_groups
from forebay_admin.sign_in.devices import Device, Standing, new_user_code, parse_user_code, shown, standing
from forebay_admin.sign_in.lockout import LONGEST, Failures, one_less, one_more, wait_s
from forebay_admin.sign_in.origin import ForeignPage, demand_own_page, safe_next
from forebay_admin.sign_in.pace import Pace, TooOften
from forebay_admin.sign_in.passwords import BadPassword, demand_good
from forebay_admin.sign_in.providers import Provider, ProviderKind, read_providers
from forebay_admin.sign_in.sessions import Badge, why_not

NOW = datetime(2027, 1, 15, 12, 0, tzinfo=UTC)
PERMISSIONS = st.lists(st.sampled_from([*GROUPS, *calls()]).map(Permission), min_size=1, max_size=4).map(tuple)


# --- permissions and rights -------------------------------------------------------------------------------------------


def test_every_call_stands_in_one_group() -> None:
    grouped = [call for members in GROUPS.values() for call in members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= set(calls())
    assert set(calls()) - set(grouped) == {"WhoAmI"}, "put new calls into a group of people/permissions.py"


@pytest.mark.parametrize("name", [*GROUPS, *sorted(calls())])
def test_a_permission_gives_its_calls_and_no_others(name: str) -> None:
    permission = parse_permission(name)
    expected = GROUPS.get(name, frozenset({name}))
    rights = Rights(Role.MEMBER, (permission,))
    narrow = Rights(Role.ADMIN, within=(permission,))
    for call in calls():
        most = reach(Role.ADMIN, call)
        assert permission.reach(call) is (most if call in expected else Reach.NONE)
        assert rights.reach(call) is (most if call in expected else reach(Role.MEMBER, call))
        assert narrow.reach(call) is (most if call in expected or call == "WhoAmI" else Reach.NONE)


@given(role=st.sampled_from(list(Role)), given_=PERMISSIONS, within=PERMISSIONS)
def test_a_narrow_token_never_does_more_than_its_user(
    role: Role, given_: tuple[Permission, ...], within: tuple[Permission, ...]
) -> None:
    whole = Rights(role, given_)
    narrow = Rights(role, given_, within)
    assert too_wide(narrow, whole) == ()
    assert set(narrow.may()) <= {*whole.may(), *(f"{call}:own" for call in whole.may())}
    demand_no_wider(narrow, whole, "it")


def test_what_is_about_ones_own_things_stays_so() -> None:
    own = parse_permission("usage:read:own")
    assert own.reach("ShowUsage") is Reach.OWN
    assert Rights(Role.ADMIN, within=(own,)).reach("ShowUsage") is Reach.OWN
    assert Rights(Role.MEMBER, (own, Permission("usage:read"))).reach("ShowUsage") is Reach.ALL


@pytest.mark.parametrize("text", ["", "keys", "keys:eat", "fleet:write:own", "DropEverything", "keys:read:mine"])
def test_what_is_no_permission_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_permission(text)


def test_names_of_a_newer_version_give_nothing() -> None:
    assert known_permissions(["keys:read", "moon:land"]) == (Permission("keys:read"),)
    with pytest.raises(BadInput):
        parse_permissions([])


def test_nobody_gives_what_they_do_not_have() -> None:
    clerk = Rights(Role.MEMBER, (Permission("users:write"), Permission("keys:write")))
    demand_no_wider(Rights(Role.MEMBER), clerk, "it")
    with pytest.raises(NotAllowed, match=r"what you may not: .* and \d+ more"):
        demand_no_wider(Rights(Role.ADMIN), clerk, "An admin")
    with pytest.raises(NotAllowed):
        demand_no_wider(Rights(Role.MEMBER, (Permission("fleet:write"),)), clerk, "it")


# --- bearers ----------------------------------------------------------------------------------------------------------


def test_a_bearer_is_what_it_was_made_as_and_keeps_its_secret() -> None:
    made = new_bearer(BearerKind.SESSION)
    assert parse_bearer(str(made)) == made
    assert made.secret not in repr(made)
    assert all(parse_bearer(text) is None for text in ("", "fbses-", "fb-0123456789ab-x", "fbses-12-x", f"{made}é"))


@pytest.mark.parametrize("verb", ["GET", "POST", "DELETE"])
def test_a_cookie_changes_nothing_without_the_token_of_a_page(verb: str) -> None:
    made, pepper = new_bearer(BearerKind.SESSION), b"p" * 32
    cookies, token = {SESSION_COOKIE: str(made)}, csrf_token(b"p" * 32, made)
    assert signed_with(verb, {"x-forebay-csrf": token}, cookies, pepper) == str(made)
    if verb == "GET":
        assert signed_with(verb, {}, cookies, pepper) == str(made)
        return
    for wrong in ("", token[:-1], csrf_token(pepper, new_bearer(BearerKind.SESSION))):
        with pytest.raises(NotFromOurPage):
            signed_with(verb, {"x-forebay-csrf": wrong}, cookies, pepper)


def test_a_bearer_counts_before_a_cookie() -> None:
    cookies = {SESSION_COOKIE: str(new_bearer(BearerKind.SESSION))}
    assert signed_with("POST", {"authorization": "Bearer fb-x"}, cookies, b"p") == "fb-x"
    with pytest.raises(NotAuthenticated):
        signed_with("GET", {"authorization": "Bearer nonsense"}, cookies, b"p")
    with pytest.raises(NotAuthenticated):
        signed_with("GET", {}, {SESSION_COOKIE: str(new_bearer(BearerKind.TOKEN))}, b"p")


# --- passwords and waits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        *(
            "",
            "short",
            "elevenchars",
            "aaaaaaaaaaaa",
            "ababababababab",
            "password1234",
            "12345678901234",
            "abcdefghijklmn",
        ),
        *("Password!2027", "2026passw0rd!", "my-name-is-alice", "x" * 257, "with\0zero bytes"),
    ],
)
def test_a_bad_password_is_refused_without_being_told(password: str) -> None:
    with pytest.raises(BadPassword) as refused:
        demand_good(password, "alice@example.org")
    assert not password or password not in refused.value.message


@pytest.mark.parametrize(
    "password", ["correct horse battery", "Grüße aus Köln 7", "日本語のとても長いパスワード", " spaces count "]
)
def test_a_good_password_is_taken_in_one_form(password: str) -> None:
    assert demand_good(password, "alice") == demand_good(password.replace("ü", "u\u0308"), "alice")


def test_waits_grow_and_are_forgotten() -> None:
    found: Failures | None = None
    waits = []
    for _ in range(20):
        found = one_more(found, NOW, free=5)
        waits.append(wait_s(found, NOW))
    assert waits[:7] == [0, 0, 0, 0, 1, 2, 4]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST.total_seconds()
    assert found is not None
    assert wait_s(found, NOW + LONGEST) == 0
    assert one_more(found, NOW + timedelta(hours=2), free=5).number == 1
    assert one_less(found).number == 19
    assert wait_s(found, NOW - timedelta(days=3)) == LONGEST.total_seconds()  # a clock that was set back


def test_an_address_has_a_few_at_once_and_then_waits_its_turn() -> None:
    pace = Pace(at_once=3, every_s=2.0)
    for _ in range(3):
        pace.demand("a", 100.0)
    pace.demand("b", 100.0)
    with pytest.raises(TooOften) as refused:
        pace.demand("a", 100.5)
    assert refused.value.retry_after_s == pytest.approx(1.5)
    pace.demand("a", 102.1)


# --- sessions, devices, pages -----------------------------------------------------------------------------------------


def badge(**more: Any) -> Badge:
    usual: dict[str, Any] = {
        "kind": BearerKind.SESSION,
        "id": "0123456789ab",
        "secret_hmac": b"",
        "user_id": "u",
        "user_name": "alice",
        "role": Role.MEMBER,
        "is_disabled": False,
        "is_ended": False,
        "expires_at": NOW + timedelta(days=1),
        "last_seen_at": NOW,
        "idle": timedelta(hours=1),
        "within": None,
    }
    return Badge(**{**usual, **more})


def test_a_session_ends_when_it_is_idle_old_or_its_user_disabled() -> None:
    assert why_not(badge(), None, NOW) == ""
    assert "not used" in why_not(badge(), None, NOW + timedelta(hours=1))
    assert why_not(badge(), NOW + timedelta(minutes=50), NOW + timedelta(hours=1)) == ""
    assert "expired" in why_not(badge(), NOW + timedelta(days=1), NOW + timedelta(days=1))
    assert "disabled" in why_not(badge(is_disabled=True), None, NOW)
    assert "ended" in why_not(badge(is_ended=True), None, NOW)


def test_a_device_is_told_where_it_stands() -> None:
    waiting = Device(new_user_code(), "1.2.3.4", "cli", NOW + timedelta(minutes=10), asked_at=NOW)
    assert standing(None, NOW) is Standing.EXPIRED
    assert standing(waiting, NOW + timedelta(minutes=10)) is Standing.EXPIRED
    assert standing(waiting, NOW + timedelta(seconds=1)) is Standing.SLOW_DOWN
    assert standing(waiting, NOW + timedelta(seconds=5)) is Standing.PENDING
    assert parse_user_code(f" {shown(waiting.user_code).lower()} ") == waiting.user_code
    for wrong in ("", "ABCDEFGH", "BCDF-GHJ", "BCDFGHJKL"):
        with pytest.raises(BadInput):
            parse_user_code(wrong)


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "", "/a b", "/\tx", "/" * 600, "/é"],
)
def test_nobody_is_sent_on_to_another_site(path: str) -> None:
    assert safe_next(path) == "/"
    assert safe_next("/device?code=BCDF-GHJK") == "/device?code=BCDF-GHJK"


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({}, True),
        ({"origin": "https://forebay.example"}, True),
        ({"origin": "http://127.0.0.1:8091", "host": "127.0.0.1:8091"}, True),
        ({"origin": "https://forebay.example", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "https://forebay.example"}, False),
    ],
)
def test_another_sites_page_does_nothing_here(headers: dict[str, str], is_own: bool) -> None:
    if is_own:
        demand_own_page(headers, "https://forebay.example")
    else:
        with pytest.raises(ForeignPage):
            demand_own_page(headers, "https://forebay.example")


# --- what providers say -----------------------------------------------------------------------------------------------

ISSUER = "https://id.example"
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "forebay",
    "sub": "42",
    "exp": 1_000_300,
    "iat": 1_000_000,
    "nonce": "n",
    "email": "Alice@Example.org",
    "email_verified": True,
}


def provider(**more: Any) -> Provider:
    usual: dict[str, Any] = {
        "name": "id",
        "kind": ProviderKind.OIDC,
        "title": "ID",
        "issuer": ISSUER,
        "client_id": "forebay",
        "client_secret": "",
    }
    return Provider(**{**usual, **more})


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "other"}, "another program"),
        ({"aud": ["forebay", "other"]}, "another program"),
        ({"aud": ["forebay", "other"], "azp": "other"}, "another program"),
        ({"azp": "other"}, "another program"),
        ({"exp": None}, "from when to when"),
        ({"exp": "tomorrow"}, "from when to when"),
        ({"exp": float("inf")}, "from when to when"),
        ({"exp": True}, "from when to when"),
        ({"exp": 999_000}, "expired"),
        ({"iat": 1_002_000}, "future"),
        ({"nbf": 1_002_000}, "future"),
        ({"nonce": "other"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
    ],
)
def test_a_token_that_is_not_for_us_now_lets_nobody_in(changed: dict[str, Any], why: str) -> None:
    demand_valid(CLAIMS, provider(), "n", 1_000_100.0)
    demand_valid({**CLAIMS, "aud": ["forebay", "x"], "azp": "forebay"}, provider(), "n", 1_000_100.0)
    with pytest.raises(BadClaims, match=why):
        demand_valid({**CLAIMS, **changed}, provider(), "n", 1_000_100.0)


@pytest.mark.parametrize(
    ("kind", "changed", "more", "why"),
    [
        ("oidc", {"sub": None}, {}, "who this is"),
        ("oidc", {"sub": "x" * 256}, {}, "who this is"),
        ("oidc", {"email_verified": False}, {}, "not verified"),
        ("oidc", {"email_verified": None}, {}, "not verified"),
        ("oidc", {"email_verified": 1.5}, {}, "plainly"),
        ("oidc", {"email": ["a@b"]}, {}, "that is none"),
        ("oidc", {"email": "a@b@c"}, {}, "that is none"),
        ("oidc", {"email": None}, {}, "what to call"),
        ("oidc", {}, {"domains": ("other.org",)}, "Only people of other.org"),
        ("google", {"hd": "evil.org"}, {"domains": ("example.org",)}, "Only people"),
        ("google", {}, {"domains": ("example.org",)}, "Only people"),
        ("oidc", {"groups": [1]}, {"groups": {"a": "b"}}, "form"),
        ("oidc", {"groups": {"a": 1}}, {"groups": {"a": "b"}}, "form"),
        ("oidc", {"groups": ["x"] * 2001}, {"groups": {"a": "b"}}, "form"),
    ],
)
def test_missing_and_lying_claims_let_nobody_in(
    kind: str, changed: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadClaims, match=why):
        arrival({**CLAIMS, **changed}, provider(kind=ProviderKind(kind), **more))


def test_who_arrives_has_a_name_a_group_and_a_role() -> None:
    plain = arrival({**CLAIMS, "groups": ["x"], "unknown": {"deep": [1]}}, provider())
    assert (plain.name, plain.email, plain.group, plain.role) == ("alice@example.org", "alice@example.org", None, None)
    mapped = provider(groups={"ml": "research", "all": "staff"}, roles={"ops": Role.OPERATOR, "root": Role.ADMIN})
    found = arrival({**CLAIMS, "groups": ["all", "ml", "ops", "root"]}, mapped)
    assert (found.group, found.role) == ("research", Role.ADMIN)
    nothing = arrival(CLAIMS, mapped)
    assert (nothing.group, nothing.role) == (None, Role.MEMBER)
    assert arrival({**CLAIMS, "hd": "example.org"}, provider(kind=ProviderKind.GOOGLE, domains=("example.org",)))


def test_each_kind_of_provider_is_understood() -> None:
    keycloak = provider(kind=ProviderKind.KEYCLOAK, groups_claim="realm_access.roles", groups={"ml": "research"})
    assert "ml" in groups_of({"realm_access": {"roles": ["/ml"]}}, keycloak)
    assert groups_of({"realm_access": "nothing"}, keycloak) == []
    addressed = provider(groups_claim="https://example.org/groups", groups={"ml": "research"})
    assert groups_of({"https://example.org/groups": "ml"}, addressed) == ["ml"]
    entra = provider(kind=ProviderKind.ENTRA, groups={"ml": "research"})
    claims = {**CLAIMS, "oid": "o-1", "email_verified": None, "upn": "alice@corp.example"}
    found = arrival({**claims, "_claim_names": {"groups": "src1"}}, entra, groups=["ml"])
    assert (found.subject, found.email, found.name, found.group) == ("o-1", "", "alice@corp.example", "research")
    assert has_too_many_groups({"_claim_names": {"groups": "src1"}}, entra)
    assert not has_too_many_groups({"_claim_names": {"groups": "src1"}}, provider(kind=ProviderKind.ENTRA))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("= 1", "cannot be read"),
        ('[a]\nissuer = "https://x.example"', "client_id is missing"),
        ('[a]\nissuer = "http://x.example"\nclient_id = "f"', "https://"),
        ('[a]\nissuer = "https://x.example?x"\nclient_id = "f"', "https://"),
        ('[a]\nkind = "google"\nissuer = "https://x.example"\nclient_id = "f"', "domains must say"),
        ('[a]\nkind = "entra"\nissuer = "https://x.example/common/v2.0"\nclient_id = "f"', "one tenant"),
        ('[a]\nissuer = "https://x.example"\nclient_id = "f"\ncolour = 1', "colour is not known"),
        ('[a]\nissuer = "https://x.example"\nclient_id = "f"\nroles = {a = "king"}', "is no role"),
        ('[a]\nissuer = "https://x.example"\nclient_id = "f"\ndefault_limits = {concurrency = 0}', "from 1"),
        ('[a]\nissuer = "https://x.example"\nclient_id = "f"\nclient_secret_file = "none"', "cannot be read"),
    ],
)
def test_a_file_of_providers_that_is_wrong_is_told_before_anything_starts(tmp_path: Any, text: str, why: str) -> None:
    (tmp_path / "providers.toml").write_text(text)
    with pytest.raises(CannotStart, match=why):
        read_providers(tmp_path / "providers.toml")


def test_a_file_of_providers_is_read_and_its_secret_told_nobody(tmp_path: Any) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "providers.toml").write_text(
        '[corp]\nissuer = "https://id.example"\nclient_id = "f"\nclient_secret_file = "secret"\n'
        'default_group = "guests"\ndefault_limits = { concurrency = 2 }\ngroups = { ml = "research" }\n'
    )
    found = read_providers(tmp_path / "providers.toml")["corp"]
    assert (found.client_secret, found.default_limits, found.groups) == (
        "s3cret",
        {"concurrency": 2},
        {"ml": "research"},
    )
    assert "s3cret" not in repr(found)
    assert read_providers(None) == {}
