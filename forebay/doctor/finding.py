"""What a look at one thing came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, and will not always."""
    FAIL = "fail"
    """It does not work."""
    UNKNOWN = "unknown"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    """machine, settings, ports, files, certificates, addresses, stores, clocks or versions."""
    subject: str
    grade: Grade
    found: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""


def worst(findings: Iterable[Finding]) -> Grade:
    order = (Grade.FAIL, Grade.WARN)
    grades = {finding.grade for finding in findings}
    return next((grade for grade in order if grade in grades), Grade.OK)
