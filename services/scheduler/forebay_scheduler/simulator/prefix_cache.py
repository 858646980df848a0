"""An engine's prefix cache: whole blocks, the least recently used one goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    def __init__(self, blocks: int) -> None:
        self._most = blocks
        self._kept: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def match(self, blocks: Sequence[int]) -> int:
        """How many of them, from the first on, are there."""
        kept = self._kept
        found = 0
        for block in blocks:
            if block not in kept:
                break
            found += 1
        return found

    def keep(self, blocks: Sequence[int]) -> None:
        """They were just read. The last block of a prompt grows old before the first: more prompts share that one."""
        kept = self._kept
        for block in reversed(blocks):
            if block in kept:
                kept.move_to_end(block)
            else:
                kept[block] = None
        while len(kept) > self._most:
            kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()
