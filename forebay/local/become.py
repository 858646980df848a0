"""What a child of `forebay up` does before it becomes itself: drops its rights and ties its life to its parent's.

Run as a script, with an interpreter that loads nothing else: `become.py PARENT_PID SIGNAL UID GID COMMAND…`; `-` for UID and
GID means to stay who we are. It is a program of its own, and not a function between fork and exec, since code there may
deadlock in a process that has threads; and the tie must come after the change of user, which would undo it.

The tie is Linux's PR_SET_PDEATHSIG: the kernel sends SIGNAL to the child when its parent ends, however that ends, so that
`kill -9` of `forebay up` leaves nothing running. It survives exec. Elsewhere there is no such thing, and nothing is tied."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, death_signal: int, uid: int | None, gid: int | None, argv: list[str]) -> None:
    """Replaces this process by `argv`. Raises OSError when that cannot be run."""
    if uid is not None and gid is not None:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the tie was made
            sys.exit(1)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    parent, death_signal, uid, gid, *argv = sys.argv[1:]
    try:
        become(int(parent), int(death_signal), None if uid == "-" else int(uid), None if gid == "-" else int(gid), argv)
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be run: {error.strerror}")
