"""What is taken out of texts before they are kept: keys, card numbers, e-mail addresses, and whatever an installation's own
hooks know of. Pure; a hook that fails fails the text, which is then not kept at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Hook = Callable[[str], str]
"""A text in, the same text without what nobody may read out. Called on a thread, with up to a few hundred kilobytes."""

# Each begins only where no such letter stands before it, and is bounded, so that no text takes long.
_KEY = re.compile(r"(?<![A-Za-z0-9_-])(?:fb|fbadm|fbses|sk|pk|rk)-[A-Za-z0-9_-]{12,300}")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])")
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)


class Redactor:
    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = hooks
        self.taken_out = 0
        """Passages, since it began."""

    def __call__(self, text: str) -> str:
        """Raises whatever a hook raises."""
        text = self._sub(_KEY, "[key]", text)
        text = self._sub(_MAIL, "[e-mail]", text) if "@" in text else text
        text = _CARD.sub(self._card, text)
        for hook in self._hooks:
            after = hook(text)
            self.taken_out += after != text
            text = after
        return text

    def _sub(self, pattern: re.Pattern[str], word: str, text: str) -> str:
        after, times = pattern.subn(word, text)
        self.taken_out += times
        return after

    def _card(self, found: re.Match[str]) -> str:
        if not is_card_number(found[0]):
            return found[0]
        self.taken_out += 1
        return "[card number]"


def is_card_number(text: str) -> bool:
    """By its check digit (Luhn)."""
    digits = [int(letter) for letter in text if letter.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
