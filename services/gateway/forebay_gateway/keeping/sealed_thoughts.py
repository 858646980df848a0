"""Conceals what models thought, under a key that all gateways have, and for one user each."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

from forebay.sealed import NotSealed, Seal

PURPOSE = "thoughts-of-responses"


class SealedThoughts:
    """Those of one user (`dialects.responses.thoughts`)."""

    def __init__(self, seal: Seal, user_id: str) -> None:
        self._seal = seal
        self._bound_to = user_id.encode()

    def conceal(self, text: str) -> str:
        return urlsafe_b64encode(self._seal.close(text.encode(), self._bound_to)).decode()

    def reveal(self, concealed: str) -> str | None:
        try:
            return self._seal.open(urlsafe_b64decode(concealed.encode()), self._bound_to).decode()
        except (NotSealed, binascii.Error, UnicodeError):
            return None
