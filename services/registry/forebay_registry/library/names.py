"""What a model may be called when an engine is told to do something with it. Pure.

Engines make paths of names, so a name that could be one is refused before any engine sees it."""

from __future__ import annotations

import re

from forebay.errors import BadInput

LONGEST_NAME = 256
LONGEST_SOURCE = 1024
_USUAL_TAG = ":latest"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KEEP_ALIVE = re.compile(r"-1|(?:[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h)){1,4}")


def demand_model(name: str) -> str:
    """`[host/][namespace/]model[:tag]`, as it was given. Raises BadInput."""
    if not name:
        raise BadInput("Say which model.")
    if len(name) > LONGEST_NAME:
        raise BadInput(f"{name[:40]}… is longer than {LONGEST_NAME} characters, and no model is called that.")
    if "://" in name:
        raise BadInput(f"{name!r} is an address: leave out what stands before and with '//', as in hf.co/user/model.")
    if name[0] in "/~." or "\\" in name or ".." in name:
        raise BadInput(f"{name!r} is a path, and a model has a name: model, model:tag or namespace/model:tag.")
    *before, last = name.split("/")
    model, colon, tag = last.partition(":")
    is_good = (
        len(before) <= 2
        and (not before or _HOST.fullmatch(before[0]) or _PART.fullmatch(before[0]))
        and all(_PART.fullmatch(part) for part in (*before[1:], model))
        and (not colon or _PART.fullmatch(tag))
    )
    if not is_good:
        raise BadInput(
            f"{name!r} cannot be the name of a model: write model, model:tag or namespace/model:tag, with letters, digits, "
            "'.', '_' and '-'."
        )
    return name


def demand_source(source: str) -> str:
    """Where an engine finds an adapter: a repository's name, or an absolute path on its own machine. Raises BadInput."""
    if len(source) > LONGEST_SOURCE or not source.isprintable() or source != source.strip():
        raise BadInput(f"{source[:80]!r} is not where an adapter lies: write owner/repository or /absolute/path.")
    if source.startswith("/"):
        if ".." in source.split("/"):
            raise BadInput(f"{source!r} leads out of its own folder; write the path without '..'.")
        return source
    return demand_model(source)


def demand_keep_alive(told: str) -> str:
    """Empty (the engine's own), `-1` (for ever), or a length of time such as `30m`. Raises BadInput."""
    if told and not _KEEP_ALIVE.fullmatch(told):
        raise BadInput(f"{told!r} is not how long a model stays loaded: write 30m, 2h, or -1 for ever.")
    return told


def is_same(one: str, other: str) -> bool:
    """Whether an engine that has one has the other: Ollama writes `:latest` where nothing was said."""
    return one == other or one.removesuffix(_USUAL_TAG) == other.removesuffix(_USUAL_TAG)
