"""What a provider says about somebody, and whom it makes of them here. Pure: signatures are checked by `oidc`.

A claim counts only when it is what the standard says it is. One that is missing, of another kind, or about somebody else
lets nobody in; claims that are not known are not looked at."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import NotAuthenticated
from forebay_admin.people.people import Role, demand_name
from forebay_admin.sign_in.providers import Provider, ProviderKind

Claims = Mapping[str, Any]

_LEEWAY_S = 60
_LONGEST_SUBJECT = 255
_MOST_GROUPS = 2000
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9._@+-]")
_RANK = {role: place for place, role in enumerate(Role)}


class BadClaims(NotAuthenticated):
    """What the provider says cannot be relied on."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody whom a provider sent."""

    issuer: str
    subject: str
    """Who they are at the provider, for ever."""
    name: str
    """What they are to be called here."""
    email: str
    """Verified, in lower case; empty when there is none."""
    group: str | None
    """Of ours, by their groups there; None: no group of theirs says."""
    role: Role | None
    """None: the provider decides nothing about it."""


def demand_valid(claims: Claims, provider: Provider, nonce: str, now: float) -> None:
    """An ID token's claims, by OpenID Connect Core 3.1.3.7. Raises BadClaims."""
    if claims.get("iss") != provider.issuer:
        raise BadClaims(f"The provider {provider.name} sent a token of another issuer.")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if provider.client_id not in audiences:
        raise BadClaims(f"The token of {provider.name} is for another program.")
    authorized = claims.get("azp")
    if (len(audiences) > 1 or authorized is not None) and authorized != provider.client_id:
        raise BadClaims(f"The token of {provider.name} was made for another program.")
    expires, issued = claims.get("exp"), claims.get("iat")
    if not _is_number(expires) or not _is_number(issued):
        raise BadClaims(f"The token of {provider.name} does not say from when to when it is good.")
    if now >= float(expires) + _LEEWAY_S:  # type: ignore[arg-type]
        raise BadClaims(f"The token of {provider.name} has expired. Do the clocks agree?")
    not_before = claims.get("nbf", issued)
    if not _is_number(not_before) or max(float(issued), float(not_before)) > now + _LEEWAY_S:  # type: ignore[arg-type]
        raise BadClaims(f"The token of {provider.name} is of the future. Do the clocks agree?")
    told = claims.get("nonce")
    if not isinstance(told, str) or not hmac.compare_digest(told.encode(), nonce.encode()):
        raise BadClaims(f"The token of {provider.name} answers another sign-in.")


def arrival(claims: Claims, provider: Provider, *, groups: Sequence[str] | None = None) -> Arrival:
    """`groups`: where they were asked for elsewhere. Raises BadClaims."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= _LONGEST_SUBJECT:
        raise BadClaims(f"{provider.name} does not say who this is (sub).")
    if provider.kind is ProviderKind.ENTRA and isinstance(claims.get("oid"), str):
        subject = claims["oid"]  # the same for all programs of a tenant, as a sub is not
    email = _verified_email(claims, provider)
    _demand_domain(claims, provider, email)
    theirs = list(groups) if groups is not None else groups_of(claims, provider)
    return Arrival(
        issuer=provider.issuer,
        subject=subject,
        name=_name(claims, provider, email),
        email=email,
        group=next((ours for name, ours in provider.groups.items() if name in theirs), None),
        role=_role(provider, theirs),
    )


def has_too_many_groups(claims: Claims, provider: Provider) -> bool:
    """Entra leaves groups out of a token that would be too long, and says so."""
    if not (provider.groups or provider.roles):
        return False
    elsewhere = claims.get("_claim_names")
    top = provider.groups_claim.partition(".")[0]
    return (isinstance(elsewhere, dict) and top in elsewhere) or claims.get("hasgroups") in (True, "true")


def groups_of(claims: Claims, provider: Provider) -> list[str]:
    """Their groups there, without Keycloak's slash in front. Raises BadClaims for what is no list of names."""
    if not (provider.groups or provider.roles):
        return []
    found = _at(claims, provider.groups_claim)
    if found is None:
        return []
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or len(names) > _MOST_GROUPS or not all(isinstance(name, str) for name in names):
        raise BadClaims(f"{provider.name} says {provider.groups_claim} in a form that is not known here.")
    bare = {name.removeprefix("/") for name in names} if provider.kind is ProviderKind.KEYCLOAK else set()
    return sorted({*names, *bare})


def _at(claims: Claims, path: str) -> Any:
    """`realm_access.roles` lies within realm_access; a name with dots in it, such as an address, may be one claim."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _verified_email(claims: Claims, provider: Provider) -> str:
    email = claims.get("email")
    if email is None:
        return ""
    if not isinstance(email, str) or email.count("@") != 1 or len(email) > _LONGEST_SUBJECT:
        raise BadClaims(f"{provider.name} says an e-mail address that is none.")
    verified = claims.get("email_verified")
    if verified not in (True, False, None, "true", "false"):
        raise BadClaims(f"{provider.name} does not say plainly whether the e-mail address is verified.")
    if verified in (True, "true"):
        return email.lower() if email.isascii() else email  # a Kelvin sign in lower case is somebody else's k
    # Entra says nothing about it, and lets its tenants write any address there: it then is nobody's.
    if verified is None and provider.kind is ProviderKind.ENTRA:
        return ""
    raise BadClaims(f"Verify your e-mail address at {provider.title} first: it says that {email} is not verified.")


def _demand_domain(claims: Claims, provider: Provider, email: str) -> None:
    if not provider.domains:
        return
    if provider.kind is ProviderKind.GOOGLE:
        # Not the address's end: anybody may have a private account with an address of yours.
        told = claims.get("hd")
        domain = told.lower() if isinstance(told, str) else ""
    else:
        domain = email.rpartition("@")[2]
    if domain not in provider.domains:
        raise BadClaims(f"Only people of {', '.join(provider.domains)} sign in with {provider.title}.")


def _name(claims: Claims, provider: Provider, email: str) -> str:
    if provider.name_claim:
        told: Any = _at(claims, provider.name_claim)
    else:
        told = email or claims.get("preferred_username") or claims.get("upn")
    if not isinstance(told, str) or not told.strip():
        raise BadClaims(f"{provider.name} does not say what to call this person; set name_claim.")
    name = _NOT_OF_A_NAME.sub("-", told.strip()).lower()[:64].lstrip("._@+-")
    return demand_name(name, f"The name that {provider.name} says")


def _role(provider: Provider, theirs: Sequence[str]) -> Role | None:
    if not provider.roles:
        return None
    found = [role for name, role in provider.roles.items() if name in theirs]
    return max(found, key=_RANK.__getitem__, default=Role.MEMBER)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
