"""Who may call: every key, in memory, so that a request is authenticated without waiting for anyone.

Pure: where the keys come from is the watch's business. No await and no lock between a request and its answer here."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256
from typing import Protocol

from forebay.errors import ForebayError, NotAllowed, Unavailable
from forebay.keys import is_secret, parse_key
from forebay.signing_keys import fingerprint
from forebay_gateway.callers.key_terms import KeyTerms
from forebay_gateway.refused import InvalidKey, KeyBlocked, KeyExpired, KeyRevoked, UntrustedSigner

_MOST_IN_USE = 20_000


class Band(IntEnum):
    """Urgency; the smaller the more urgent."""

    SYSTEM = 1
    INTERACTIVE = 2
    STANDARD = 3
    BATCH = 4


class Role(StrEnum):
    MEMBER = "member"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    ADMIN = "admin"


class KeyState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"
    USER_DISABLED = "user_disabled"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Principal:
    key_id: str
    user_id: str
    user_name: str = ""
    group_id: str = ""
    role: Role = Role.MEMBER
    allowed_models: frozenset[str] = frozenset()
    """Names, or patterns in which * stands for anything; none: all."""
    pool: str = "default"
    is_bound: bool = False
    """Its key is for that pool and no other."""
    is_visiting: bool = False
    """It came to a virtual endpoint of that pool, and its key says nothing of pools."""
    band_cap: Band = Band.INTERACTIVE
    """The most urgent band that it may ask for."""
    terms: KeyTerms | None = None
    """None: nothing beyond the above."""
    only_models: frozenset[str] = frozenset()
    """Of an ephemeral key: names that it allows, within those that are allowed; none: all of these."""
    may_use_all: bool = field(init=False)
    """Nothing says which models it may use, so that none need be looked at."""
    sees_backends: bool = field(init=False)
    usual_band: Band = field(init=False)
    """Of requests that ask for none."""
    may_manage_models: bool = field(init=False)
    """Pull, create and delete them on the pool's engines."""

    def __post_init__(self) -> None:
        sees = self.role in (Role.OPERATOR, Role.ADMIN)
        know = partial(object.__setattr__, self)
        know("may_use_all", not (self.terms or self.only_models or self.allowed_models))
        know("sees_backends", sees)
        know("usual_band", max(Band.STANDARD, self.band_cap))
        know("may_manage_models", sees and (self.terms is None or not self.terms.calls))

    def may_use(self, *names: str) -> bool:
        """A model with these names: by any of them, if it is denied by none."""
        if self.terms is not None and any(map(self.terms.denies, names)):
            return False
        if self.only_models and self.only_models.isdisjoint(names):
            return False
        allowed = self.allowed_models
        return not allowed or any(name in allowed or any(fnmatchcase(name, one) for one in allowed) for name in names)

    def demand_address(self, address: str) -> None:
        """Raises NotAllowed."""
        if self.terms is not None:
            self.terms.demand_address(address)

    def within(self, pool: str | None) -> Principal:
        """The same caller, at a virtual endpoint of `pool`; None: at none. Raises NotAllowed."""
        if pool is None or pool == self.pool:
            return self
        if self.is_bound and (self.terms is None or pool not in self.terms.other_pools):
            raise NotAllowed(
                f"This API key is for the pool {self.pool}, and this is the address of the pool {pool}. Use the address "
                "of your own pool, or the gateway's general one."
            )
        return replace(self, pool=pool, is_visiting=True)


@dataclass(frozen=True, slots=True)
class KnownKey:
    principal: Principal
    secret_hmac: bytes
    state: KeyState = KeyState.ACTIVE
    expires_at: float | None = None
    """Seconds since the epoch."""
    signing_keys: tuple[bytes, ...] = ()
    """Public keys whose owners may what this key may."""
    old_secret_hmac: bytes = b""
    """Of the secret before, which works until then."""
    old_secret_until: float = 0.0
    blocked_until: float | None = None
    """Of a blocked key: from then on it works again; None: until it is unblocked."""
    block_reason: str = ""

    @property
    def key_id(self) -> str:
        return self.principal.key_id

    def known(self) -> KnownKey:
        return self

    def has_secret(self, pepper: bytes, secret: str, now: float) -> bool:
        if is_secret(pepper, secret, self.secret_hmac):
            return True
        return now < self.old_secret_until and is_secret(pepper, secret, self.old_secret_hmac)


class KeptKey(Protocol):
    """A key in the form in which it is kept: a hundred thousand of them have little room each."""

    @property
    def key_id(self) -> str: ...

    @property
    def signing_keys(self) -> tuple[bytes, ...]: ...

    def known(self) -> KnownKey: ...


class Principals:
    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._keys: dict[str, KeptKey] = {}
        self._in_use: dict[str, KnownKey] = {}
        """Those that somebody called with since it was emptied."""
        self._proved: dict[bytes, KnownKey] = {}
        """By SHA-256 of the key as it was sent: those whose secret was right, since anything changed. Of 256 random bits it
        gives away as little as the HMAC does, at a third of its cost."""
        self._signers: dict[bytes, str] = {}
        """Public key → the id of the key that trusts it."""
        self.version = 0
        """0 until the first snapshot."""

    @property
    def is_known(self) -> bool:
        return self.version > 0

    def replace_all(self, keys: Iterable[KeptKey], version: int) -> list[str]:
        """Takes a snapshot. Gives the ids of keys that worked before and do not any more."""
        before = self._keys
        self._keys = {key.key_id: key for key in keys}
        self._in_use.clear()
        self._proved.clear()
        self._signers = {signer: key_id for key_id, key in self._keys.items() for signer in key.signing_keys}
        self.version = version
        return [key_id for key_id, key in before.items() if _ends(key, self._keys.get(key_id))]

    def change(self, keys: Collection[KeptKey], removed: Collection[str], version: int) -> list[str]:
        """Takes a delta; gives the same."""
        ended = []
        self._proved.clear()
        for key_id in (*(key.key_id for key in keys), *removed):
            self._forget_signers(key_id)  # of all, before any is known again: one may have passed from key to key
            self._in_use.pop(key_id, None)
        for key in keys:
            key_id = key.key_id
            if _ends(self._keys.get(key_id), key):
                ended.append(key_id)
            self._keys[key_id] = key
            self._signers.update(dict.fromkeys(key.signing_keys, key_id))
        for key_id in removed:
            if _ends(self._keys.pop(key_id, None), None):
                ended.append(key_id)
        self.version = version
        return ended

    def verify(self, text: str, now: float) -> Principal:
        """The caller whose key this is. Raises InvalidKey, KeyRevoked, KeyExpired, and Unavailable before any keys came.
        About 1 µs, and 3 for one that has not called lately."""
        if not self.version:
            self._demand_keys()
        sent = sha256(text.encode(errors="surrogatepass")).digest()
        known = self._proved.get(sent)
        if known is None:
            known = self._prove(text, sent, now)
        if known.state is KeyState.ACTIVE and known.expires_at is None:
            return known.principal
        return _working(known, now)

    def find(self, key_id: str, now: float) -> Principal:
        """The caller with this key, which somebody else has proved. Raises as `verify` does."""
        self._demand_keys()
        known = self._find(key_id)
        if known is None:
            raise InvalidKey
        return _working(known, now)

    def find_signer(self, public_key: bytes, now: float) -> Principal:
        """The caller whose key trusts this public key. Raises UntrustedSigner, and as `verify` does."""
        self._demand_keys()
        known = self._find(self._signers.get(public_key, ""))
        if known is None:
            raise UntrustedSigner(
                f"No API key trusts the public key {fingerprint(public_key)}. Let one of yours: "
                "`forebay key trust KEY_ID ~/.ollama/id_ed25519.pub`."
            )
        return _working(known, now)

    def why_ended(self, key_id: str) -> ForebayError:
        """The error that a request of this key gets whose key stopped working while it waited."""
        known = self._find(key_id)
        return _ended(known) if known is not None else KeyRevoked()

    def _prove(self, text: str, sent: bytes, now: float) -> KnownKey:
        given = parse_key(text)
        known = self._find(given.public_id) if given else None
        if given is None or known is None or not known.has_secret(self._pepper, given.secret, now):
            raise InvalidKey
        if not known.old_secret_hmac:  # which works for a while only
            if len(self._proved) >= _MOST_IN_USE:
                self._proved.clear()
            self._proved[sent] = known
        return known

    def _find(self, key_id: str) -> KnownKey | None:
        known = self._in_use.get(key_id)
        if known is not None:
            return known
        kept = self._keys.get(key_id)
        if kept is None:
            return None
        if len(self._in_use) >= _MOST_IN_USE:
            self._in_use.clear()
        known = self._in_use[key_id] = kept.known()
        return known

    def _demand_keys(self) -> None:
        if not self.is_known:
            raise Unavailable(
                "This gateway has just started and does not know any keys yet. Try again in a moment.",
                retry_after_s=1.0,
            )

    def _forget_signers(self, key_id: str) -> None:
        known = self._keys.get(key_id)
        for signer in known.signing_keys if known is not None else ():
            if self._signers.get(signer) == key_id:
                del self._signers[signer]


def _working(known: KnownKey, now: float) -> Principal:
    if known.state is not KeyState.ACTIVE and not _is_over(known, now):
        raise _ended(known)
    if known.expires_at is not None and now >= known.expires_at:
        raise KeyExpired
    return known.principal


def _is_over(known: KnownKey, now: float) -> bool:
    """It was blocked until some time ago."""
    return known.state is KeyState.BLOCKED and known.blocked_until is not None and now >= known.blocked_until


def _ends(before: KeptKey | None, after: KeptKey | None) -> bool:
    """It worked and does not any more."""
    if before is None or before == after or before.known().state is not KeyState.ACTIVE:
        return False
    return after is None or after.known().state is not KeyState.ACTIVE


def _ended(known: KnownKey) -> ForebayError:
    match known.state:
        case KeyState.USER_DISABLED:
            return KeyRevoked("The user of this API key has been disabled. Ask your administrator.")
        case KeyState.BLOCKED:
            why = f": {known.block_reason}" if known.block_reason else ""
            return KeyBlocked(f"This API key is blocked{why.rstrip('.')}. Ask your administrator.")
    return KeyRevoked()
