"""The wanted fleet as bytes, for the sealed file that a registry starts from while Postgres is away. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from forebay.errors import ForebayError
from forebay_registry.backend import (
    BackendId,
    Desired,
    EngineKind,
    Kept,
    Model,
    ModelFacts,
    Node,
    NodeId,
    Pool,
    Pull,
    Seen,
)

FORMAT = 1


class NotReadable(ForebayError):
    """This snapshot was written by another version of Forebay."""


def encode(kept: Kept, epoch: int = 0) -> bytes:
    """`epoch`: of the lead under which it is known."""
    return orjson.dumps(
        {
            "format": FORMAT,
            "epoch": epoch,
            "backends": kept.backends,
            "nodes": kept.nodes,
            "seen": kept.seen,
            "pools": kept.pools,
            "models": kept.models,
            "version": kept.version,
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
            tuple(_node(n) for n in page["nodes"]),
            {
                BackendId(i): Seen(
                    _kind(s["kind"]),
                    s["slots"],
                    tuple(Model(**{**m, "capabilities": tuple(m["capabilities"])}) for m in s["models"]),
                )
                for i, s in page["seen"].items()
            },
            pools=tuple(_pool(p) for p in page.get("pools", ())),  # the version before kept none
            models=tuple(ModelFacts(**{**m, "capabilities": tuple(m["capabilities"])}) for m in page.get("models", ())),
            version=page.get("version", 0),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReadable from error


def epoch_in(payload: bytes) -> int:
    """Of a payload that `decode` has read; 0 where it does not tell."""
    epoch = orjson.loads(payload).get("epoch")
    return epoch if isinstance(epoch, int) and epoch > 0 else 0


def _desired(told: Any) -> Desired:
    return Desired(
        **{
            **told,
            "id": BackendId(told["id"]),
            "kind": _kind(told["kind"]),
            "model_names": _pairs(told.get("model_names", ())),
            "gpu_indices": tuple(told.get("gpu_indices", ())),
            "labels": _pairs(told.get("labels", ())),
        }
    )


def _node(told: Any) -> Node:
    return Node(**{**told, "id": NodeId(told["id"]), "labels": _pairs(told.get("labels", ()))})


def _pool(told: Any) -> Pool:
    lists = {"hosts": tuple(told["hosts"]), "required_models": tuple(told["required_models"])}
    return Pool(**{**told, **lists, "pull": Pull(told["pull"])})


def _pairs(told: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in told)


def _kind(word: str | None) -> EngineKind | None:
    return EngineKind(word) if word is not None else None
