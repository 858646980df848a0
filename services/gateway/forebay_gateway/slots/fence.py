"""How long the gateway may start work on the word of a leader of whom it has heard nothing newer. Pure.

The renewal that counts began before the leader's frame was sent, and that frame was sent after the newest of our own frames
that it acknowledges. So the renewal is placed as far back as it can have been; a frame that lay in a buffer while this
machine was suspended extends nothing."""

from __future__ import annotations

import math
from collections import deque

_REMEMBERED = 4096  # frames that wait for their acknowledgement; of an older one nothing is concluded


class Fence:
    def __init__(self, fence_s: float) -> None:
        self.fence_s = fence_s
        self.past_at = -math.inf
        """On the monotonic clock."""
        self._sent: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    def session_begins(self) -> None:
        self._sent.clear()

    def sent(self, seq: int, now: float) -> None:
        """Our frame `seq` goes out."""
        self._sent.append((seq, now))

    def heard(self, ack_seq: int, renewed_ago_s: float) -> None:
        """A frame that acknowledges ours up to `ack_seq` says how old the last renewal was."""
        while self._sent and self._sent[0][0] < ack_seq:
            self._sent.popleft()
        if not self._sent or self._sent[0][0] != ack_seq:
            return
        _, sent_at = self._sent[0]
        renewed_at = sent_at - renewed_ago_s
        self.past_at = max(self.past_at, renewed_at + self.fence_s)
