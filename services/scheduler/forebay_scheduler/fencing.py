"""What keeps a deposed leader from writing: all that is stored carries its leader's epoch, and every write is a compare and
set. A later epoch found where one's own should be means that another leads."""

from __future__ import annotations

from functools import lru_cache

from forebay.errors import ForebayError
from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.request import Epoch


class Deposed(ForebayError):
    """A later leader has written here: this one may store nothing more."""


class TooLargeToStore(ForebayError):
    """This does not fit into what the bus takes."""


def demand_not_deposed(ours: Epoch, found: Epoch) -> None:
    """Raises Deposed."""
    if found > ours:
        raise Deposed(
            f"What is stored is of a later leader: epoch {found.term_us}/{found.revision}, ours is "
            f"{ours.term_us}/{ours.revision}. If no other scheduler runs, the bucket of the lead was made anew by a server "
            "whose clock was set back; delete the bucket `forebay-scheduler` while no gateway runs."
        )


def epoch_to_wire(epoch: Epoch) -> scheduler_pb2.Epoch:
    return scheduler_pb2.Epoch(term_us=epoch.term_us, revision=epoch.revision)


_epoch = lru_cache(maxsize=16)(Epoch)
"""Each end names its lease's epoch, and nearly all name the same one."""


def read_epoch(epoch: scheduler_pb2.Epoch) -> Epoch:
    return _epoch(epoch.term_us, epoch.revision)
