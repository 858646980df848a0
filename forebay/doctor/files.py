"""Whether the files and directories that settings name can be used, and secrets are secret."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.doctor.finding import Finding, Grade

_AREA = "files"
_PUBLIC = ("ca_file", "cert_file", "tls_cert", "callers_file", "providers_file", "agents_file")
"""Ends of names of settings whose files hold nothing secret."""
_MADE = ("bootstrap_key_file", "agents_file")
"""Files that the service itself makes."""


@dataclass(frozen=True, slots=True)
class PathFacts:
    exists: bool
    is_directory: bool = False
    can_read: bool = False
    can_write: bool = False
    mode: int = 0
    """Its permissions, such as 0o600."""
    size_bytes: int = 0


def is_secret(setting: str) -> bool:
    return not setting.endswith(_PUBLIC)


def judge_file(setting: str, path: str, facts: PathFacts) -> Finding:
    """`setting`: service.field, as `gateway.token_file`."""
    if not facts.exists:
        if setting.endswith(_MADE):
            return Finding(_AREA, setting, Grade.OK, f"{path} is not there yet; the service makes it")
        return Finding(
            _AREA, setting, Grade.FAIL, f"{path} does not exist", "Put it there, or name another in the settings."
        )
    if facts.is_directory:
        return Finding(_AREA, setting, Grade.FAIL, f"{path} is a directory", "The setting wants a file.")
    if not facts.can_read:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{path} cannot be read by this user",
            "Ask as the service's own user, or give it the file.",
        )
    if facts.size_bytes == 0 and not setting.endswith(_MADE):
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{path} is empty",
            "Write what belongs there: the service does not start without.",
        )
    if is_secret(setting) and facts.mode & 0o007:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"everybody on this machine may use {path} (mode {facts.mode:03o})",
            f"chmod o= {path}",
        )
    return Finding(_AREA, setting, Grade.OK, path)


def judge_place(setting: str, path: str, facts: PathFacts) -> Finding:
    """Of a path that is only asked how much room is there."""
    if not facts.exists:
        return Finding(
            _AREA, setting, Grade.WARN, f"{path} does not exist", "Mount it, or name another in the settings."
        )
    return Finding(_AREA, setting, Grade.OK, path)


def judge_directory(setting: str, path: str, facts: PathFacts, can_be_made: bool) -> Finding:
    if not facts.exists:
        if can_be_made:
            return Finding(_AREA, setting, Grade.OK, f"{path} is not there yet, and can be made")
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{path} does not exist and cannot be made by this user",
            f"mkdir -p {path}, and give it to the service's user.",
        )
    if not facts.is_directory and facts.can_read:
        return Finding(_AREA, setting, Grade.FAIL, f"{path} is no directory", "The setting wants a directory.")
    if not facts.can_write:
        return Finding(
            _AREA,
            setting,
            Grade.FAIL,
            f"{path} cannot be written by this user",
            "Ask as the service's own user, or give it the directory.",
        )
    return Finding(_AREA, setting, Grade.OK, path)
