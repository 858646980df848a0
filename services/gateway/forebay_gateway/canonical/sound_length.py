"""How long a sound is, by the container that it came in, as its bytes pass: WAV, FLAC, Ogg and MP3. Pure.

The containers: https://datatracker.ietf.org/doc/html/rfc9639 (FLAC), https://datatracker.ietf.org/doc/html/rfc3533 (Ogg)
and rfc7845 (Opus in it). Of what is none of these, of raw samples and of what does not say how long it is, nobody knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

LONGEST_MS = 30 * 24 * 3600 * 1000
"""Of what says to be longer, the length is not known."""

_HEAD = 12
"""Bytes by which containers are told apart."""
_TO_THE_END = (0, 0xFFFFFFFF)
"""What who writes a WAV as it is made says of its length."""
_SAMPLES = frozenset({1, 3, 6, 7, 0xFFFE})
"""WAV's formats in which each sample takes the same bits: whole numbers, floats, A-law, µ-law, any of these."""
_LATE_S = 60
"""Ogg's first page of sound ends long before that, where the sound was not cut out of a longer one."""
_LONGEST_WANT = 1 << 17
"""Bytes that a container's part may want at once, beyond what it lets pass."""


class _Odd(Exception):
    """It cannot be told how long this is."""


class SoundLength:
    """Feed it the bytes in their order, in pieces of any size."""

    def __init__(self) -> None:
        self._container: _Container | None = None
        self._head = b""
        self._is_odd = False

    def feed(self, piece: bytes) -> None:
        if self._is_odd:
            return
        if self._container is None:
            self._head += piece
            if len(self._head) < _HEAD:
                return
            self._container = _container_of(self._head)
            piece, self._head = self._head, b""
        try:
            if self._container is None:
                raise _Odd
            self._container.feed(piece)
        except _Odd:
            self._is_odd, self._container = True, None

    @property
    def wants_more(self) -> bool:
        """False: whatever comes, `ms` stays as it is."""
        return not self._is_odd and not isinstance(self._container, _Flac)

    @property
    def ms(self) -> int | None:
        """So far. None: it is not known."""
        if self._container is None:
            return None
        samples, rate = self._container.samples, self._container.rate
        if samples is None or not rate:
            return None
        ms = samples * 1000 // rate
        return ms if ms <= LONGEST_MS else None


class _Container(ABC):
    """Its bytes are looked at a part at a time."""

    def __init__(self) -> None:
        self.rate = 0
        """Samples a second, of each channel."""
        self._buffer = bytearray()
        self._passing = 0
        """Bytes that come next and are not looked at."""

    @property
    @abstractmethod
    def samples(self) -> int | None: ...

    @abstractmethod
    def part(self, held: bytearray, at: int) -> int:
        """The size of what begins at `at`, which may be longer than what is held; 0: more is needed to tell. Raises _Odd."""
        ...

    def feed(self, piece: bytes) -> None:
        gone = min(self._passing, len(piece))
        self._passing -= gone
        held = self._buffer
        held += piece[gone:] if gone else piece
        at = 0
        while at < len(held) and (size := self.part(held, at)):
            at += size
            if at > len(held):
                self._passing = at - len(held)
                at = len(held)
        del held[:at]
        if len(held) > _LONGEST_WANT:
            raise _Odd


class _Wav(_Container):
    def __init__(self) -> None:
        super().__init__()
        self._frame = 0
        """Bytes of a sample in all channels."""
        self._bytes = 0
        self._left = 0
        """Bytes of sound that are still to come."""
        self._has_begun = False

    @property
    def samples(self) -> int | None:
        return self._bytes // self._frame if self._frame else None

    def part(self, held: bytearray, at: int) -> int:
        if not self._has_begun:
            self._has_begun = True
            return _HEAD
        if len(held) - at < 8:
            return 0
        name, size = bytes(held[at : at + 4]), int.from_bytes(held[at + 4 : at + 8], "little")
        if name == b"data":
            if not self._frame:
                raise _Odd
            size = LONGEST_MS * 1000 if size in _TO_THE_END else size
            here = min(size, len(held) - at - 8)
            self._bytes += here
            self._left = size - here
        elif name == b"fmt ":
            if len(held) - at < 24:
                return 0
            self._read_format(held[at + 8 : at + 24])
        return 8 + size + size % 2

    def feed(self, piece: bytes) -> None:
        sound = min(self._passing, len(piece), self._left)
        self._bytes += sound
        self._left -= sound
        super().feed(piece)

    def _read_format(self, told: bytearray) -> None:
        kind, channels = int.from_bytes(told[0:2], "little"), int.from_bytes(told[2:4], "little")
        self.rate, bits = int.from_bytes(told[4:8], "little"), int.from_bytes(told[14:16], "little")
        self._frame = channels * ((bits + 7) // 8)
        if kind not in _SAMPLES or not self._frame or not self.rate:
            raise _Odd


class _Flac(_Container):
    def __init__(self) -> None:
        super().__init__()
        self._samples: int | None = None

    @property
    def samples(self) -> int | None:
        return self._samples

    def part(self, held: bytearray, at: int) -> int:
        """`fLaC`, then STREAMINFO, which is first: 4 bytes of a head, 34 of its own; nothing after that matters."""
        if len(held) - at < 26:
            return 0
        if held[at + 4] & 0x7F:
            raise _Odd
        packed = int.from_bytes(held[at + 18 : at + 26], "big")
        self.rate, self._samples = packed >> 44, packed & 0xFFFFFFFFF
        if not self.rate or not self._samples:
            raise _Odd
        return 1 << 62


class _Ogg(_Container):
    """One stream, or several one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._serial: int | None = None
        self._before = 0
        """Samples of the streams before this one."""
        self._skipped = 0
        """Samples that a decoder drops at the beginning."""
        self._end = 0

    @property
    def samples(self) -> int | None:
        return self._before + max(0, self._end - self._skipped) if self.rate else None

    def part(self, held: bytearray, at: int) -> int:
        if len(held) - at < 27:
            return 0
        if held[at : at + 4] != b"OggS":
            raise _Odd
        count = held[at + 26]
        body = at + 27 + count
        if len(held) < body:
            return 0
        size = sum(held[at + 27 : body])
        serial = int.from_bytes(held[at + 14 : at + 18], "little")
        granule = int.from_bytes(held[at + 6 : at + 14], "little", signed=True)
        if held[at + 5] & 2:  # it begins a stream
            if len(held) < body + min(size, 32):
                return 0
            self._begin(serial, bytes(held[body : body + 32]))
        elif serial == self._serial and granule > 0:
            if not self._end and granule > _LATE_S * self.rate:
                raise _Odd
            self._end = max(self._end, granule)
        return body - at + size

    def _begin(self, serial: int, packet: bytes) -> None:
        if packet.startswith(b"OpusHead") and len(packet) >= 12:
            rate, skipped = 48_000, int.from_bytes(packet[10:12], "little")
        elif packet.startswith(b"\x01vorbis") and len(packet) >= 16:
            rate, skipped = int.from_bytes(packet[12:16], "little"), 0
        else:
            raise _Odd
        if not rate or self.rate not in (0, rate):
            raise _Odd
        self._before, self._end = self.samples or 0, 0
        self._serial, self.rate, self._skipped = serial, rate, skipped


class _Mp3(_Container):
    """Frame by frame: what stands in front about the whole is often missing."""

    def __init__(self) -> None:
        super().__init__()
        self._samples: int | None = None
        self._is_over = False

    @property
    def samples(self) -> int | None:
        return self._samples

    def part(self, held: bytearray, at: int) -> int:
        if self._is_over:
            return len(held) - at
        if len(held) - at < 10:
            return 0
        if held[at] == 0xFF:
            samples, rate, size = _frame(held[at + 1], held[at + 2])
            if self._samples is None:
                if len(held) - at < min(size, 64):
                    return 0
                self.rate = rate
                is_about_the_rest = any(word in held[at : at + 64] for word in (b"Xing", b"Info", b"VBRI"))
                self._samples = 0 if is_about_the_rest else samples
            elif rate != self.rate:
                raise _Odd
            else:
                self._samples += samples
            return size
        if held[at : at + 3] == b"ID3" and self._samples is None:
            size = 0
            for byte in held[at + 6 : at + 10]:
                size = size << 7 | byte & 0x7F
            return 10 + size + (10 if held[at + 5] & 0x10 else 0)
        if self._samples is not None and bytes(held[at : at + 3]) in (b"TAG", b"APE", b"LYR", b"ID3"):
            self._is_over = True
            return len(held) - at
        raise _Odd


_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
"""Of layer III, by MPEG 1 and by MPEG 2 and 2.5."""
_RATES = (44_100, 48_000, 32_000)


@lru_cache(maxsize=4096)
def _frame(second: int, third: int) -> tuple[int, int, int]:
    """(samples, samples a second, bytes) of an MP3 frame, by the bytes after the first. Raises _Odd."""
    version, layer = second >> 3 & 3, second >> 1 & 3
    index, rate = third >> 4, third >> 2 & 3
    if second & 0xE0 != 0xE0 or version == 1 or layer != 1 or index in (0, 15) or rate == 3:
        raise _Odd
    is_first = version == 3
    hertz = _RATES[rate] >> (0 if is_first else 1 if version == 2 else 2)
    samples = 1152 if is_first else 576
    kbits = _KBITS[0 if is_first else 1][index]
    return samples, hertz, samples // 8 * kbits * 1000 // hertz + (third >> 1 & 1)


def _container_of(head: bytes) -> _Container | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _Wav()
    if head[:4] == b"fLaC":
        return _Flac()
    if head[:4] == b"OggS":
        return _Ogg()
    if head[:3] == b"ID3" or head[0] == 0xFF:
        return _Mp3()
    return None
