"""The account of one request: what it used so far, and its record, opened once and closed once."""

from __future__ import annotations

from forebay.clock import Clock
from forebay_gateway.accounting import NOTHING_USED, Entry, Outcome, Usage, UsageSource
from forebay_gateway.canonical.speech import Stream
from forebay_gateway.canonical.structured import added
from forebay_gateway.ledger.estimate import TokenRatios
from forebay_gateway.ledger.journal import Journal
from forebay_gateway.ledger.sound import Sound
from forebay_gateway.ledger.usage_record import RecordForm
from forebay_gateway.meters import Meters


class Account:
    _is_open = False
    _naming = b""
    """The part that its records have in common, once there is one."""
    _body_bytes = 0
    estimated_prompt = 0
    """Tokens."""
    is_running = False
    """It was sent to an engine, which has not refused it."""
    reported: Usage | None = None
    """What the engine said of an answer that came whole."""
    sound: Sound | None = None
    """Of an answer that is about sound."""
    _spent: Usage | None = None
    """On answers that were asked for again."""
    spent_tokens = 0
    """Completion tokens of these."""

    def __init__(
        self, entry: Entry, *, clock: Clock, journal: Journal, form: RecordForm, ratios: TokenRatios, meters: Meters
    ) -> None:
        self.entry = entry
        self._clock = clock
        self._journal = journal
        self._form = form
        self._ratios = ratios
        self._meters = meters
        self.stream: Stream | None = None
        """The answer on its way, when it comes as a stream."""

    @property
    def is_closed(self) -> bool:
        return self.entry.outcome is not None

    def estimate(self, model: str, body_bytes: int) -> int:
        """Prompt tokens."""
        self._body_bytes = body_bytes
        self.estimated_prompt = self._ratios.estimate(model, body_bytes)
        return self.estimated_prompt

    def estimate_answer(self, model: str, text_bytes: int) -> Usage:
        return Usage(self.estimated_prompt, 0, self._ratios.estimate(model, text_bytes), UsageSource.ESTIMATED)

    def open(self) -> None:
        """Raises JournalFull."""
        self._naming = self._form.naming(self.entry)
        self._journal.open(self.entry.ledger_id, self._form.write(self.entry, self._naming))
        self._is_open = True

    def forget_attempt(self) -> None:
        """An engine failed it and the client has seen nothing: whatever was made there is nobody's to pay."""
        self.stream, self.reported, self.is_running, self._spent = None, None, False, None
        self.sound, self.spent_tokens = None, 0

    @property
    def used(self) -> Usage:
        """So far, on all times that an answer was asked for."""
        if self.reported is not None:
            used = self.reported
        elif self.stream is not None:
            used = self.stream.usage(self.estimated_prompt)
        elif self.is_running:
            used = Usage(prompt=self.estimated_prompt, source=UsageSource.ESTIMATED)
        else:
            used = NOTHING_USED
        return used if self._spent is None else added(self._spent, used)

    def ask_again(self) -> None:
        """An answer came, and the same engine is asked once more."""
        self._spent = used = self.used
        self.spent_tokens = used.completion
        self.stream = self.reported = None

    def close(self, outcome: Outcome, reason: str, http_status: int) -> bool:
        """No await: a cancellation cannot come in between. False when it is closed already."""
        entry = self.entry
        if entry.outcome is not None:
            return False
        entry.outcome, entry.reason = outcome, reason
        entry.http_status = entry.http_status or http_status
        entry.duration_ms = round((self._clock.monotonic() - entry.arrived) * 1000)
        entry.usage = self.used
        entry.audio_ms = self.sound.ms if self.sound is not None else None
        record = self._form.write(entry, self._naming)
        if self._is_open:
            self._journal.close(entry.ledger_id, record)
        elif not self._journal.note(entry.ledger_id, record):
            self._meters.records_dropped.child().value += 1
        if entry.usage.source is UsageSource.ENGINE and self._spent is None:
            self._ratios.learn(entry.model, self._body_bytes, entry.usage.prompt)
        self._meters.note(entry)
        return True
