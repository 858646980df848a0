"""The wanted fleet as bytes, for the sealed file that a registry starts from while Postgres is away. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from forebay.errors import ForebayError
from forebay_registry.backend import BackendId, Desired, EngineKind, Kept, Model, Node, NodeId, Seen

FORMAT = 1


class NotReadable(ForebayError):
    """This snapshot was written by another version of Forebay."""


def encode(kept: Kept) -> bytes:
    return orjson.dumps(
        {
            "format": FORMAT,
            "backends": [asdict(b) for b in kept.backends],
            "nodes": [asdict(n) for n in kept.nodes],
            "seen": {backend_id: asdict(seen) for backend_id, seen in kept.seen.items()},
        }
    )


def decode(payload: bytes) -> Kept:
    """Raises NotReadable."""
    try:
        page = orjson.loads(payload)
        if page["format"] != FORMAT:
            raise NotReadable
        return Kept(
            tuple(_desired(b) for b in page["backends"]),
            tuple(Node(**{**n, "id": NodeId(n["id"])}) for n in page["nodes"]),
            {
                BackendId(i): Seen(
                    _kind(s["kind"]),
                    s["slots"],
                    tuple(Model(**{**m, "capabilities": tuple(m["capabilities"])}) for m in s["models"]),
                )
                for i, s in page["seen"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReadable from error


def _desired(told: Any) -> Desired:
    names = tuple((name, at_engine) for name, at_engine in told.get("model_names", ()))
    return Desired(**{**told, "id": BackendId(told["id"]), "kind": _kind(told["kind"]), "model_names": names})


def _kind(word: str | None) -> EngineKind | None:
    return EngineKind(word) if word is not None else None
