"""Which backends are believed to have the start of a prompt in their cache. Pure.

Gateways send chained hashes: the n-th names the first n blocks of the prompt together, so it is enough to look each one up.
A hash maps to a bit mask of backends. Nobody tells what an engine evicts, so each backend has a list of what it was given,
least recently used first, as long as its cache. Engines evict the end of a prompt before its start, and so does this."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from forebay_scheduler.request import BlockName

SHARDS = 64
"""Growing one dictionary of half a million entries stops everything for 70 ms; growing a 64th of it does not."""

DROPPED_PER_INSERT = 32
"""Of what backends that left had, so that no single moment pays for all of it."""


class PrefixIndex:
    def __init__(self, block_tokens: int = 512, unknown_kv_tokens: int = 262_144) -> None:
        self.block_tokens = block_tokens
        self._unknown_kv_tokens = unknown_kv_tokens
        self._holders: list[dict[BlockName, int]] = [{} for _ in range(SHARDS)]
        self._given: list[OrderedDict[BlockName, None]] = []
        self._most: list[int] = []
        self._leaving: list[int] = []
        self._vacant: list[int] = []

    def enter(self, kv_tokens: int | None) -> int:
        """A backend's number: its bit in every mask."""
        if self._vacant:
            number = self._vacant.pop()
        else:
            number = len(self._given)
            self._given.append(OrderedDict())
            self._most.append(0)
        self.resize(number, kv_tokens)
        return number

    def resize(self, number: int, kv_tokens: int | None) -> None:
        most = max(1, (self._unknown_kv_tokens if kv_tokens is None else kv_tokens) // self.block_tokens)
        self._most[number] = most
        given = self._given[number]
        self._shorten(given, number, most)

    def leave(self, number: int) -> None:
        """It is gone. What it had is dropped bit by bit with the inserts that follow; until then its number is nobody's."""
        self._leaving.append(number)

    def insert(self, number: int, hashes: Sequence[BlockName]) -> None:
        """It was given this prompt."""
        given = self._given[number]
        holders = self._holders
        bit = 1 << number
        for block in reversed(hashes):
            if block in given:
                given.move_to_end(block)
            else:
                given[block] = None
                shard = holders[hash(block) & 63]
                shard[block] = shard.get(block, 0) | bit
        if len(given) > self._most[number]:
            self._shorten(given, number, self._most[number])
        if self._leaving:
            self._drop_leaving()

    def forget(self, number: int) -> None:
        """Its cache is empty now: it was restarted, or the model was loaded anew."""
        given = self._given[number]
        while given:
            self._drop(given.popitem()[0], number)

    def held_by(self, number: int) -> Collection[BlockName]:
        """The blocks that it was given and that are remembered. To look at, not to change."""
        return self._given[number].keys()

    def depth(self, number: int, hashes: Sequence[BlockName]) -> int:
        """Blocks of this prompt, from its start, that this backend holds."""
        given = self._given[number]
        matched = 0
        for block in hashes:
            if block not in given:
                break
            matched += 1
        return matched

    def levels(self, hashes: Sequence[BlockName], among: int) -> list[tuple[int, int]]:
        """(depth, mask of the backends whose match is exactly so deep), shallowest first. None without a match."""
        found: list[tuple[int, int]] = []
        mask = among
        depth = 0
        holders = self._holders
        for block in hashes:
            deeper = mask & holders[hash(block) & 63].get(block, 0)
            if deeper != mask:
                if depth:
                    found.append((depth, mask ^ deeper))
                if not deeper:
                    return found
                mask = deeper
            depth += 1
        if depth:
            found.append((depth, mask))
        return found

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._holders)

    def _shorten(self, given: OrderedDict[BlockName, None], number: int, most: int) -> None:
        others = ~(1 << number)
        holders = self._holders
        while len(given) > most:
            block = given.popitem(last=False)[0]
            shard = holders[hash(block) & 63]
            left = shard[block] & others
            if left:
                shard[block] = left
            else:
                del shard[block]

    def _drop(self, block: BlockName, number: int) -> None:
        shard = self._holders[hash(block) & 63]
        left = shard[block] & ~(1 << number)
        if left:
            shard[block] = left
        else:
            del shard[block]

    def _drop_leaving(self) -> None:
        number = self._leaving[-1]
        given = self._given[number]
        for _ in range(min(DROPPED_PER_INSERT, len(given))):
            self._drop(given.popitem()[0], number)
        if not given:
            self._leaving.pop()
            self._vacant.append(number)
