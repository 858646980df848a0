"""The folder that `forebay pki` keeps: an authority, and for each part a folder that can be mounted as it is.

    DIR/ca/ca.crt, ca.key      the authority; its key signs, and goes nowhere else
    DIR/<name>/tls.crt         the certificate of a part, as Kubernetes calls it
    DIR/<name>/tls.key         its private key
    DIR/<name>/ca.crt          whom that part believes: one authority, or two while one replaces the other

An authority is replaced in three steps, with the folders carried to where they are used after each: `begin` makes the next
one and has it believed, `switch` signs everything anew with it, `finish` has the old one believed no more. A step that was
interrupted, wherever that was, is finished by taking it again; until then what is there can be used."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from forebay.errors import AlreadyExists, BadInput, NotFound, NotPossible
from forebay.pki.certificates import (
    Authority,
    common_name,
    is_of,
    issue,
    name_of,
    names,
    new_authority,
    pem_of,
    pem_of_key,
    read_certificate,
    read_key,
)
from forebay.pki.files import PRIVATE, PUBLIC, replace_whole

AUTHORITY_DAYS, PART_DAYS = 3650, 365
NEARBY = ("localhost", "127.0.0.1", "::1")
"""Names that every part has for those on its own machine."""

_CA = "ca"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Step(StrEnum):
    """Of replacing the authority."""

    BEGIN = "begin"
    SWITCH = "switch"
    FINISH = "finish"


class Standing(StrEnum):
    """Of a certificate."""

    GOOD = "good"
    DUE = "due"
    """Less than a third of its life is left, or its authority is being replaced."""
    EXPIRED = "expired"
    FOREIGN = "foreign"
    """Signed by none of this folder's authorities."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One part's certificate."""

    name: str
    hosts: tuple[str, ...]
    until: datetime
    authority: str
    standing: Standing


class Folder:
    def __init__(self, root: Path) -> None:
        """Raises NotFound where there is no authority, NotPossible where it cannot be read."""
        self.root = root
        if not self._ca("ca.crt").is_file():
            raise NotFound(f"There is no authority in {root}: make one with `forebay pki init {root}`.")
        try:
            is_between = self._is_between
            self.authority = self._authority("next" if is_between else "ca", "ca")
            self.next = self._authority("next", "next") if self._ca("next.crt").exists() and not is_between else None
            old = read_certificate(self._ca("old.crt").read_bytes()) if self._ca("old.crt").exists() else None
            self.old = old if old != self.authority.certificate else None
        except (OSError, ValueError) as error:
            raise NotPossible(
                f"The authority in {root / _CA} cannot be read: {error}. Put it back from a copy."
            ) from error

    @property
    def believed(self) -> list[x509.Certificate]:
        """The authorities in everybody's ca.crt, the one that signs first."""
        more = [self.next.certificate if self.next else None, self.old]
        return [self.authority.certificate, *(one for one in more if one is not None)]

    @property
    def parts(self) -> list[str]:
        return sorted(file.parent.name for file in self.root.glob("*/tls.crt"))

    def part(self, name: str) -> Path:
        """Its folder."""
        return self.root / name

    def issue(self, name: str, hosts: Sequence[str], now: datetime, lasts: timedelta) -> Shown:
        """A new certificate with a new key for `name`, which is itself one of its hosts. Raises BadInput."""
        demand_name(name)
        wanted = list(dict.fromkeys([name, *NEARBY, *hosts]))
        for host in wanted:
            _demand_host(host)
        made = issue(self.authority, name, wanted, now, lasts)
        place = self.part(name)
        # Whoever reads between two of these finds a pair that does not match, and keeps what it had.
        self._tell_believed(name)
        replace_whole(place / "tls.key", pem_of_key(made.key), PRIVATE)
        replace_whole(place / "tls.crt", pem_of(made.certificate), PUBLIC)
        return self._shown(name, made.certificate, now)

    def show(self, now: datetime) -> list[Shown]:
        return [self._shown(name, self._certificate(name), now) for name in self.parts]

    def renew(self, now: datetime, lasts: timedelta, *, everything: bool = False) -> list[Shown]:
        """Anew, for the same hosts: those that are due, expired or foreign, or whose key is another's since somebody was
        interrupted; or all of them."""
        return [
            self.issue(one.name, one.hosts, now, lasts)
            for one in self.show(now)
            if everything or one.standing is not Standing.GOOD or not self._has_its_key(one.name)
        ]

    def keep(self, name: str, hosts: Sequence[str], now: datetime, lasts: timedelta) -> None:
        """Makes what is missing, due, or for other hosts."""
        if name in self.parts:
            found = self._shown(name, self._certificate(name), now)
            if found.standing is Standing.GOOD and set(found.hosts) >= {name, *hosts} and self._has_its_key(name):
                self._tell_believed(name)
                return
        self.issue(name, hosts, now, lasts)

    def rotate(self, step: Step, now: datetime, lasts: timedelta) -> None:
        """A step that was interrupted is finished. Raises NotPossible when it is another step's turn."""
        if has_moved := self._is_between:
            self._ca("next.crt").replace(self._ca("ca.crt"))
        if step is Step.BEGIN:
            self._begin(now)
        elif step is Step.SWITCH:
            self._switch(now, lasts, has_moved)
        else:
            self._finish(now)

    def _begin(self, now: datetime) -> None:
        if self.old is not None or (self.next is not None and all(map(self._is_told, self.parts))):
            turn = Step.SWITCH if self.next is not None else Step.FINISH
            raise NotPossible(f"The authority is being replaced already; the next step is `{turn}`.")
        if self.next is None:
            self.next = _new_authority(now)
            replace_whole(self._ca("next.key"), pem_of_key(self.next.key), PRIVATE)
            replace_whole(self._ca("next.crt"), pem_of(self.next.certificate), PUBLIC)
        self._tell_all()

    def _switch(self, now: datetime, lasts: timedelta, has_moved: bool) -> None:
        if self.next is None and self.old is None:
            raise NotPossible("No other authority was made yet: `begin` comes first.")
        if self.next is not None:
            replace_whole(self._ca("old.crt"), pem_of(self.authority.certificate), PUBLIC)
            self._ca("next.key").replace(self._ca("ca.key"))
            self._ca("next.crt").replace(self._ca("ca.crt"))
            self.old, self.authority, self.next = self.authority.certificate, self.next, None
            has_moved = True
        renewed = self.renew(now, lasts)  # all that the old one signed is due
        if not (has_moved or renewed):
            raise NotPossible(f"Everything is signed by the new authority already; the next step is `{Step.FINISH}`.")

    @property
    def _is_between(self) -> bool:
        """Interrupted between two renames of `switch`: the key went first, and ca.key is that of next.crt."""
        return self._ca("next.crt").exists() and not self._ca("next.key").exists()

    def _finish(self, now: datetime) -> None:
        if self.old is None:
            raise NotPossible("No old authority is believed any more: there is nothing to finish.")
        left = [name for name in self.parts if is_of(self._certificate(name), self.old)]
        if left:
            raise NotPossible(
                f"The old authority's certificates are in use still, by {', '.join(left)}: `forebay pki renew` comes first."
            )
        self.old = None
        self._tell_all()
        self._ca("old.crt").unlink()

    def _tell_all(self) -> None:
        for name in self.parts:
            self._tell_believed(name)

    def _tell_believed(self, name: str) -> None:
        if not self._is_told(name):
            replace_whole(self.part(name) / "ca.crt", self._told, PUBLIC)

    def _is_told(self, name: str) -> bool:
        file = self.part(name) / "ca.crt"
        return file.exists() and file.read_bytes() == self._told

    @property
    def _told(self) -> bytes:
        return b"".join(map(pem_of, self.believed))

    def _has_its_key(self, name: str) -> bool:
        try:
            key = read_key((self.part(name) / "tls.key").read_bytes())
        except PermissionError:
            return True  # as far as we may know
        except (OSError, ValueError):
            return False
        return key.public_key() == self._certificate(name).public_key()

    def _shown(self, name: str, certificate: x509.Certificate, now: datetime) -> Shown:
        until = certificate.not_valid_after_utc
        signed_by = next((one for one in self.believed if is_of(certificate, one)), None)
        if signed_by is None:
            standing = Standing.FOREIGN
        elif until <= now:
            standing = Standing.EXPIRED
        elif until - now < (until - certificate.not_valid_before_utc) / 3 or signed_by == self.old:
            standing = Standing.DUE
        else:
            standing = Standing.GOOD
        authority = common_name(signed_by) if signed_by else common_name_of_issuer(certificate)
        return Shown(name, tuple(names(certificate)), until, authority, standing)

    def _certificate(self, name: str) -> x509.Certificate:
        file = self.part(name) / "tls.crt"
        try:
            return read_certificate(file.read_bytes())
        except (OSError, ValueError) as error:
            raise NotPossible(f"{file} is no certificate ({error}): issue {name}'s anew.") from error

    def _authority(self, name: str, key_name: str) -> Authority:
        certificate = read_certificate(self._ca(f"{name}.crt").read_bytes())
        key = read_key(self._ca(f"{key_name}.key").read_bytes())
        if key.public_key() != certificate.public_key():
            raise ValueError(f"{key_name}.key is not the key of {name}.crt")
        return Authority(certificate, key)

    def _ca(self, file: str) -> Path:
        return self.root / _CA / file


def make_folder(root: Path, now: datetime) -> Folder:
    """With an authority and nothing else. Raises AlreadyExists, BadInput."""
    if (root / _CA / "ca.crt").exists():
        raise AlreadyExists(
            f"There is an authority in {root} already; replace it with `forebay pki rotate-ca {root} begin`."
        )
    made = _new_authority(now)
    try:
        replace_whole(root / _CA / "ca.key", pem_of_key(made.key), PRIVATE)
        replace_whole(root / _CA / "ca.crt", pem_of(made.certificate), PUBLIC)
    except OSError as error:
        raise BadInput(f"{root} cannot be written: {error.strerror}.") from error
    return Folder(root)


def demand_name(name: str) -> None:
    """Raises BadInput."""
    if not _NAME.fullmatch(name) or name == _CA:
        raise BadInput(f"{name!r} cannot be the name of a part: letters, digits, - and _, 63 at most, and not {_CA!r}.")


def common_name_of_issuer(certificate: x509.Certificate) -> str:
    return certificate.issuer.rfc4514_string()


def _demand_host(host: str) -> None:
    try:
        is_name = isinstance(name_of(host), x509.DNSName)
    except ValueError:
        is_name = True
    if is_name and not _HOST.fullmatch(host):
        raise BadInput(f"{host!r} is neither a host name nor an address: give it without scheme and port.")


def _new_authority(now: datetime) -> Authority:
    # Each with a name of its own: while two are believed, nobody has to try one key after the other.
    return new_authority(f"Forebay CA {secrets.token_hex(4)}", now, timedelta(days=AUTHORITY_DAYS))
