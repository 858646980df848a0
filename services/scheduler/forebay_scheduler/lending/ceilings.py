"""The most that each gateway process may hold on each backend; together never more than the backend's cap. Pure.

A gateway that reaches no leader goes on within its ceilings, and a leader that dies is followed by one that knows only what
the bus says. So a ceiling is raised only after the bus holds it, and what it is taken from is lowered first and has said so:

    lower G1 ──► G1 acknowledges ──► one write: G1 less, G2 more ──► the bus confirms ──► G2 is told ──► G2 has room

At every instant what a gateway may go by is at most what the bus says of it, and what the bus says fits the cap.

What becomes of requests is `dispatch`'s business, who lives and who is dead is `policy`'s, and when the slots of the dead
return is `quarantine`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum

from forebay_scheduler.decisions import CeilingTold, StoreCeilings, StoredCeilings
from forebay_scheduler.lending.ceiling import Ceiling, Holder, Split
from forebay_scheduler.lending.ceiling_writes import CeilingWrites, shard_of
from forebay_scheduler.request import BackendId, PoolName, Process, SessionId


class Wanted(StrEnum):
    READY = "ready"
    COMING = "coming"
    """It is being raised; `room` will say when."""
    IMPOSSIBLE = "impossible"
    """Nobody within reach has idle room there, or the bus is away."""


def _not_silent(process: Process) -> float:
    return 0.0


class Ceilings:
    def __init__(
        self,
        *,
        local_after_s: float = 2.0,
        local_margin_s: float = 0.5,
        ask_again_s: float = 0.1,
        store_lazily_s: float = 1.0,
        silent_s: Callable[[Process], float] = _not_silent,
        heard_within_s: float = 1.5,
    ) -> None:
        """`local_after_s`: how long a gateway waits after its session's end before it starts work by itself; the margin
        is for what was on its way when it was last heard. `silent_s` says how long a process has been silent: the store
        keeps it, and one that missed a heartbeat and half of the next is not given what others might need until its death
        is proven: it may stand still."""
        self._local_after_s = local_after_s - local_margin_s
        self._ask_again_s = ask_again_s
        self._silent_s = silent_s
        self._heard_within_s = heard_within_s
        self._holders: dict[Process, Holder] = {}
        self._by_session: dict[SessionId, Holder] = {}
        self._splits: dict[BackendId, Split] = {}
        self._writes = CeilingWrites(store_lazily_s)
        self._are_caps_known = False
        self._version = 0
        # Ordered sets: what is decided must not depend on addresses.
        self._changed: dict[Ceiling, None] = {}
        """Those that may have to be told."""
        self._over: dict[Ceiling, None] = {}
        """Those that held more than they were lowered to, and have said so."""
        self._wanting: dict[Split, None] = {}

    # -- the hot path ---------------------------------------------------------------------------------------------------

    def room(self, process: Process, backend: BackendId) -> int:
        """Slots that can be granted to it now. Below zero when it holds more than it may."""
        holder = self._holders.get(process)
        if holder is None or holder.session is None:
            return 0
        ceiling = holder.ceilings.get(backend)
        if ceiling is None:
            return 0
        told, target = ceiling.told, ceiling.target
        return (told if told < target else target) - ceiling.used

    def used(self, process: Process, backend: BackendId) -> int:
        """Slots that it holds or is lent there."""
        holder = self._holders.get(process)
        ceiling = None if holder is None else holder.ceilings.get(backend)
        return 0 if ceiling is None else ceiling.used

    def take(self, process: Process, backend: BackendId, slots: int) -> None:
        """Counted whether there is room or not: what is held is held."""
        holder = self._holders.get(process)
        if holder is None or holder.is_dead:
            return
        ceiling = holder.ceilings.get(backend)
        if ceiling is None:
            ceiling = self._ceiling(holder, backend)
        ceiling.used += slots

    def give_back(self, process: Process, backend: BackendId, slots: int) -> None:
        """What a dead process held is kept until it is released, so this changes nothing there."""
        holder = self._holders.get(process)
        if holder is None or holder.is_dead:
            return
        ceiling = holder.ceilings.get(backend)
        if ceiling is None:
            return
        used = ceiling.used - slots
        ceiling.used = used if used > 0 else 0
        ceiling.has_settled = True

    # -- what is asked --------------------------------------------------------------------------------------------------

    def want(self, process: Process, backend: BackendId, slots: int) -> Wanted:
        """Is there room for so many more than are taken; if not, can there be?

        Asking again moves nothing more. Whoever waits should: what was coming may have stayed with a gateway that went
        out of reach, and then nothing comes unless it is asked for."""
        if self.room(process, backend) >= slots:
            return Wanted.READY
        holder = self._holders.get(process)
        split = self._splits.get(backend)
        if holder is None or holder.session is None or split is None:
            return Wanted.IMPOSSIBLE
        ceiling = self._ceiling(holder, backend)
        wanted = ceiling.used + slots
        if wanted > split.cap or (self._writes.is_away and wanted > ceiling.sure):
            return Wanted.IMPOSSIBLE
        if wanted > ceiling.target:
            if self._silent_s(process) > self._heard_within_s:
                return Wanted.IMPOSSIBLE
            split.wants[process] = wanted
            self._wanting[split] = None
            self._serve(split)
        is_coming = wanted <= ceiling.target or process in split.wants
        return Wanted.COMING if is_coming else Wanted.IMPOSSIBLE

    def unallotted(self, backend: BackendId) -> int:
        split = self._splits.get(backend)
        return 0 if split is None else split.unallotted

    def reserved(self, process: Process) -> Mapping[BackendId, int]:
        """What nobody else may be given, by backend; of a dead process, what is kept."""
        holder = self._holders.get(process)
        return {} if holder is None else {backend: c.reserved for backend, c in holder.ceilings.items() if c.reserved}

    def unheard(self) -> list[Process]:
        """Those known from the store alone, alive for all this leader knows."""
        return [holder.process for holder in self._holders.values() if not holder.is_heard and not holder.is_dead]

    def out_of_reach(self) -> list[Process]:
        """Those that have no session: lost, not heard of yet, or dead."""
        return [holder.process for holder in self._holders.values() if holder.session is None]

    def dead(self) -> list[Process]:
        """Those whose slots have not all returned."""
        return [holder.process for holder in self._holders.values() if holder.is_dead]

    # -- what happens ---------------------------------------------------------------------------------------------------

    def set_caps(self, caps: Mapping[BackendId, int], pools: Mapping[BackendId, PoolName] | None = None) -> None:
        """All backends there are: one that is not among them has a cap of 0 until it is back."""
        is_first, self._are_caps_known = not self._are_caps_known, True
        for backend in [*caps, *(gone for gone in self._splits if gone not in caps)]:
            split = self._split(backend)
            if pools and backend in pools:
                split.pool = pools[backend]
            cap = max(0, caps.get(backend, 0))
            if cap != split.cap or is_first:
                split.cap = cap
                self._fit(split)

    def open(
        self, process: Process, session: SessionId, held: Mapping[BackendId, int], claimed: Mapping[BackendId, int]
    ) -> None:
        """It said Hello: it holds this much and goes by these ceilings, credits of earlier sessions forgotten.

        Its word stands, not what was stored. It may say less than the bus: no one but this leader can raise it any more,
        so the rest is free at once, and the write that gives it to another takes it from here. Where it says more (the
        bus lost something), it may really run that much: that counts, is stored, and is lowered until it fits."""
        holder = self._holders.setdefault(process, Holder(process))
        is_new = not holder.is_heard or holder.is_dead
        self._hang_up(holder)
        holder.session, holder.is_heard, holder.is_dead = session, True, False
        self._by_session[session] = holder
        for backend in dict.fromkeys([*holder.ceilings, *claimed, *held]):
            ceiling = self._ceiling(holder, backend)
            ceiling.told = max(0, claimed.get(backend, 0))
            ceiling.used = max(0, held.get(backend, 0))
            ceiling.believed = max(ceiling.told, ceiling.used)
            ceiling.asked.clear()
            if is_new:
                ceiling.target = ceiling.told
            if ceiling.believed > ceiling.sure:
                self._writes.need(ceiling.split)
            else:
                self._writes.note(ceiling.split)
            self._changed[ceiling] = None
            self._over[ceiling] = None
        if self._are_caps_known:
            for split in self._splits.values():
                self._fit(split)

    def lose(self, process: Process) -> None:
        """It is out of reach: it may go by all it was told. What it was not told yet goes to others."""
        holder = self._holders.get(process)
        if holder is None or holder.is_dead:
            return
        self._hang_up(holder)
        for ceiling in holder.ceilings.values():
            ceiling.split.wants.pop(process, None)
            if ceiling.target > ceiling.believed:
                ceiling.target = ceiling.believed
                self._writes.note(ceiling.split)
                self._spread(ceiling.split)

    def leave(self, process: Process) -> None:
        """It drained and said goodbye: nothing of it runs any more."""
        holder = self._holders.get(process)
        if holder is None:
            return
        self._hang_up(holder)
        for ceiling in list(holder.ceilings.values()):
            self._forget(ceiling)
        self._holders.pop(process, None)
        self._fit_all()

    def bury(self, process: Process, now: float, heard_at: float) -> dict[BackendId, int]:
        """It is dead; returns what its engines may still run, by backend, which stays out of others' reach until released.

        That is what this leader knows it to hold, credits included, if it died before it can have begun to start work by
        itself, counted from when it was last heard: it may have noticed the end of its session long before we did. Else,
        or if it never spoke to this leader, it is all that it may have gone by."""
        holder = self._holders.get(process)
        if holder is None:
            return {}
        is_known = holder.is_heard and now - heard_at <= self._local_after_s
        self._hang_up(holder)
        if not holder.is_dead:
            holder.is_dead = True
            for ceiling in list(holder.ceilings.values()):
                kept = min(ceiling.used, ceiling.believed) if is_known else ceiling.believed
                ceiling.target = ceiling.believed = ceiling.told = ceiling.used = kept
                ceiling.asked.clear()
                ceiling.split.wants.pop(process, None)
                if kept:
                    self._writes.note(ceiling.split)
                else:
                    self._forget(ceiling)
        kept_slots = {backend: ceiling.believed for backend, ceiling in holder.ceilings.items()}
        if not kept_slots:
            self._holders.pop(process, None)
        self._fit_all()
        return kept_slots

    def release(self, process: Process, backend: BackendId, slots: int) -> None:
        """So many of a dead process's slots run no more."""
        holder = self._holders.get(process)
        if holder is None or not holder.is_dead or backend not in holder.ceilings:
            return
        ceiling = holder.ceilings[backend]
        kept = max(0, ceiling.believed - slots)
        ceiling.target = ceiling.believed = ceiling.told = ceiling.used = kept
        self._writes.note(ceiling.split)
        if not kept:
            self._forget(ceiling)
            if not holder.ceilings:
                self._holders.pop(process, None)
                self._fit_all()  # one fewer to share with
        self._fit(ceiling.split)

    def recover(self, stored: Iterable[StoredCeilings]) -> None:
        """What the last leader stored. All of it is held until its process speaks or is proven dead.

        The shards must have been written anew under this leader's epoch before they are given here: else a write of the
        last leader that was on its way could still be confirmed to it, and it would raise what we do not know of."""
        for entry in stored:
            holder = self._holders.setdefault(
                (entry.gateway, entry.generation), Holder((entry.gateway, entry.generation))
            )
            holder.is_dead = holder.is_dead or entry.is_dead
            for backend, slots in entry.slots.items():
                ceiling = self._ceiling(holder, backend)
                ceiling.target = ceiling.told = ceiling.believed = ceiling.sure = slots
                ceiling.used = slots if holder.is_dead else 0

    def acked(self, session: SessionId, backend: BackendId, version: int, held: int) -> None:
        """It goes by that version from now on, and starts nothing there until it holds less than it says."""
        holder = self._by_session.get(session)
        ceiling = None if holder is None else holder.ceilings.get(backend)
        if ceiling is None:
            return
        place = next((i for i, (told, _) in enumerate(ceiling.asked) if told == version), None)
        if place is None:
            return
        slots = ceiling.asked[place][1]
        del ceiling.asked[: place + 1]
        # Credits that it was lent and has not used are in our count, not in its own.
        known, before = min(ceiling.used, ceiling.believed), ceiling.reserved
        ceiling.believed = max(slots, held, known, *(later for _, later in ceiling.asked))
        if ceiling.believed > ceiling.sure:
            self._writes.need(ceiling.split)
        if ceiling.believed > ceiling.target and not ceiling.asked:
            self._over[ceiling] = None
        if ceiling.reserved < before:
            self._writes.note(ceiling.split)
            if not ceiling.split.wants:
                self._spread(ceiling.split)

    def stored(self, ticket: int) -> None:
        for ceiling in self._writes.stored(ticket):
            is_wanted = ceiling.holder.process in ceiling.split.wants
            if not (ceiling.reserved or ceiling.used or ceiling.sure or ceiling.asked or is_wanted):
                self._drop(ceiling)
            elif ceiling.told != ceiling.target:
                self._changed[ceiling] = None

    def bus_changed(self, is_away: bool) -> None:
        self._writes.change_bus(is_away)

    def turn(self, now: float) -> list[CeilingTold | StoreCeilings]:
        """What is to be told and stored after all that happened in this turn of the loop. A StoreCeilings takes the place
        of any before it that was not confirmed; a ceiling must reach its gateway before grants that build on it."""
        for split in list(self._wanting):
            self._serve(split)
            if not split.wants:
                del self._wanting[split]
        out: list[CeilingTold | StoreCeilings] = list(self._tell(now))
        write = self._writes.next(now, self._silent_s)
        if write is not None:
            out.append(write)
        return out

    # -- the steps ------------------------------------------------------------------------------------------------------

    def _tell(self, now: float) -> Iterator[CeilingTold]:
        changed, self._changed = self._changed, {}
        for ceiling in changed:
            slots = min(ceiling.target, max(ceiling.told, ceiling.sure))
            if slots != ceiling.told:
                yield from self._say(ceiling, slots, now)
        for ceiling in list(self._over):
            if ceiling.believed <= ceiling.target or ceiling.holder.is_dead:
                del self._over[ceiling]
            elif ceiling.asked or ceiling.used >= ceiling.believed:
                continue
            elif ceiling.has_settled or now - ceiling.asked_at >= self._ask_again_s:
                # Without a settle too, now and then: what we took to be over may have gone on there for a while.
                yield from self._say(ceiling, min(ceiling.target, ceiling.told), now)

    def _say(self, ceiling: Ceiling, slots: int, now: float) -> Iterator[CeilingTold]:
        session = ceiling.holder.session
        if session is None:
            return  # its next Hello says where it stands
        self._version += 1
        ceiling.asked.append((self._version, slots))
        ceiling.told = slots
        ceiling.believed = max(ceiling.believed, slots)
        ceiling.asked_at, ceiling.has_settled = now, False
        yield CeilingTold(session, ceiling.split.backend, ceiling.split.pool, slots, self._version)

    def _fit_all(self) -> None:
        for split in self._splits.values():
            self._fit(split)

    def _fit(self, split: Split) -> None:
        """After a change of the cap or of who lives: take what is too much, or share out what is free."""
        if self._are_caps_known:
            self._shrink(split)
            self._spread(split)

    def _shrink(self, split: Split) -> None:
        """Lower those within reach until all fits: what nobody was told of yet, then idle room."""
        within_reach = [c for c in split.ceilings.values() if c.holder.session is not None]
        standing = sum(c.reserved for c in split.ceilings.values() if c.holder.session is None)
        too_much = standing + sum(c.target for c in within_reach) - split.cap
        for ceiling in within_reach:
            # Else one would be raised while another has not agreed yet to be lowered.
            step = min(too_much, ceiling.target - ceiling.believed)
            if step > 0:
                self._aim(ceiling, ceiling.target - step)
                too_much -= step
        while too_much > 0:
            richest = max(within_reach, key=lambda c: (min(c.idle, c.target), c.target), default=None)
            if richest is None or richest.target <= 0:
                return  # those out of reach: their ceilings stand
            step = min(too_much, richest.target, max(1, min(richest.idle, too_much // len(within_reach))))
            self._aim(richest, richest.target - step)
            too_much -= step

    def _spread(self, split: Split) -> None:
        """Bring each to its even share, as far as there is something that nobody has."""
        if not self._are_caps_known or split.cap <= 0:
            return
        share = self._share(split)
        unallotted = split.unallotted
        for holder in self._by_session.values():
            ceiling = holder.ceilings.get(split.backend)
            mine = 0 if ceiling is None else ceiling.target
            free = unallotted + (0 if ceiling is None else ceiling.reserved - mine)
            if mine >= share or free <= 0:
                continue
            ceiling = self._ceiling(holder, split.backend)
            before = ceiling.reserved
            self._aim(ceiling, min(share, mine + free))
            unallotted -= ceiling.reserved - before

    def _share(self, split: Split) -> int:
        living = sum(not holder.is_dead for holder in self._holders.values())
        return max(1, split.cap // max(1, living))

    def _serve(self, split: Split) -> None:
        """Give what is free to those who want it, in the order in which they asked, and ask others for idle room.

        Whoever gives gives half of what is idle there, and whoever gets something gets all that is free unless others
        want it too: so gateways that take turns soon have what each needs, and move nothing more."""
        for process, wanted in list(split.wants.items()):
            ceiling = self._ceiling(self._holders[process], split.backend)
            free = split.unallotted + ceiling.reserved - ceiling.target
            if wanted - ceiling.target > free:
                break
            if wanted > ceiling.target:
                self._aim(ceiling, wanted if len(split.wants) > 1 else ceiling.target + free)
            del split.wants[process]
        self._ask_for_idle(split)

    def _ask_for_idle(self, split: Split) -> None:
        """For those who still want; who cannot be given all of it is given nothing, and not waited for."""
        if not split.wants or self._writes.is_away:
            return
        givers = [c for p, c in split.ceilings.items() if c.holder.session is not None and p not in split.wants]
        coming = split.unallotted + sum(max(0, c.believed - max(c.target, c.used)) for c in givers)
        for process, wanted in list(split.wants.items()):
            missing = wanted - split.ceilings[process].reserved - coming
            if missing > sum(max(0, giver.idle) for giver in givers):
                del split.wants[process]
                continue
            for giver in sorted(givers, key=lambda giver: -giver.idle):
                if missing <= 0:
                    break
                given = min(giver.idle, max(missing, giver.idle // 2))
                self._aim(giver, giver.target - given)
                missing -= given
                coming += given
            coming -= max(0, wanted - split.ceilings[process].reserved)

    def _aim(self, ceiling: Ceiling, target: int) -> None:
        ceiling.target = target
        self._changed[ceiling] = None
        if target > ceiling.sure:
            self._writes.need(ceiling.split)

    # -- the records ----------------------------------------------------------------------------------------------------

    def _split(self, backend: BackendId) -> Split:
        split = self._splits.get(backend)
        if split is None:
            split = self._splits[backend] = Split(backend, shard_of(backend))
            self._writes.add(split)
        return split

    def _ceiling(self, holder: Holder, backend: BackendId) -> Ceiling:
        ceiling = holder.ceilings.get(backend)
        if ceiling is None:
            split = self._split(backend)
            ceiling = holder.ceilings[backend] = split.ceilings[holder.process] = Ceiling(holder, split)
        return ceiling

    def _drop(self, ceiling: Ceiling) -> None:
        if ceiling.holder.ceilings.get(ceiling.split.backend) is ceiling:
            del ceiling.holder.ceilings[ceiling.split.backend]
            del ceiling.split.ceilings[ceiling.holder.process]
        self._changed.pop(ceiling, None)
        self._over.pop(ceiling, None)

    def _forget(self, ceiling: Ceiling) -> None:
        ceiling.split.wants.pop(ceiling.holder.process, None)
        self._writes.note(ceiling.split)
        self._drop(ceiling)

    def _hang_up(self, holder: Holder) -> None:
        if holder.session is not None:
            self._by_session.pop(holder.session, None)
            holder.session = None
