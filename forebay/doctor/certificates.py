"""Whether certificates are what they are used for: valid now and for a while, with the key that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from forebay.doctor.finding import Finding, Grade

SOON = timedelta(days=14)
_AREA = "certificates"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Of the first certificate in a file, and the one that ends first of them all."""

    subject: str
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    """Host names and addresses that it is for; empty for an authority's."""
    fits_key: bool | None
    """None: no key belongs to it here, as with an authority's."""
    is_signed_by_ours: bool | None = None
    """By an authority of the file beside it; None where there is none."""


def judge_certificate(setting: str, path: str, facts: CertificateFacts | str, now: datetime) -> Finding:
    """`facts` may be why it could not be read."""
    if isinstance(facts, str):
        return Finding(
            _AREA, setting, Grade.FAIL, f"{path}: {facts}", "It has to be a certificate in PEM, its chain after it."
        )
    names = ", ".join(facts.names)
    named = f"{facts.subject} for {names}" if names else facts.subject
    if facts.fits_key is False:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{named}: the key beside it belongs to another",
            "Issue both anew, or name the right pair.",
        )
    if facts.is_signed_by_ours is False:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{named}: no authority in the CA file signed it",
            "Peers will refuse it: `forebay pki issue`, or give the CA that did.",
        )
    if now < facts.not_before:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{named} is valid from {facts.not_before:%Y-%m-%d %H:%M} UTC",
            "Its maker's clock or this machine's is wrong.",
        )
    left = facts.not_after - now
    until = f"valid until {facts.not_after:%Y-%m-%d}"
    if left <= timedelta():
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{named} ended on {facts.not_after:%Y-%m-%d}",
            "Renew it: it is read again without a restart.",
        )
    if left <= SOON:
        return Finding(
            _AREA,
            setting,
            Grade.WARN,
            f"{named}: {until}, in {left.days} days",
            "Renew it: it is read again without a restart.",
        )
    return Finding(_AREA, setting, Grade.OK, f"{named}: {until}")
