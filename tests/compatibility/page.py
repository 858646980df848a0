"""`docs/compatibility.md`, written from what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.compatibility.features import FEATURES
from tests.compatibility.matrix import CLIENTS, ENGINES, Cell, Outcome, Tried, cells

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
_SIGNS = {Outcome.WORKS: "✓", Outcome.REFUSED: "refused", Outcome.FAILS: "**fails**", Outcome.ABSENT: "–"}
_HEAD = """# Compatibility

Which client library works with what in front of which engine. Written by the tests, which try every cell with the official
libraries; a page that differs from what they saw fails `make test-clients` (with `FOREBAY_WRITE_DOCS=1` it is written anew).

The engines are stand-ins with each engine's manners on the wire, since no small model can do all of this; llama.cpp's is
held to the real server by tests of its own, those of SGLang and Ollama follow their source, and those of the cloud
providers check requests as their documentation says. Not shown is that Ollama refuses to think with a model that cannot,
that only some models have vectors that can be made shorter, and that a provider's models differ in what they take.

These are the libraries for Python. Those for JavaScript are tried by `make test-js` with the features that they have words
for, in front of all but the cloud providers, and every cell must work: `openai` 7 and 6, `@anthropic-ai/sdk`, `ollama`, and
the AI SDK (`ai`) 7 and 6. `make targets-dialects` counts both.

✓ works, streamed and whole · – the dialect has no words for it · *refused*: an error in the client's dialect that says why.
"""


def page_of(told: Mapping[Cell, Tried]) -> str:
    pieces = [_HEAD]
    reasons: list[str] = []
    for client in CLIENTS:
        pieces.append(f"\n## {client.name}\n\n| | {' | '.join(engine.name for engine in ENGINES)} |\n")
        pieces.append(f"|---|{'---|' * len(ENGINES)}\n")
        for feature in FEATURES:
            row = []
            for engine in ENGINES:
                both = [
                    cell for cell in cells() if (cell.client, cell.engine, cell.feature) == (client, engine, feature)
                ]
                row.append(_sign(both, told, reasons))
            pieces.append(f"| {feature} | {' | '.join(row)} |\n")
    if reasons:
        pieces.append("\n## Why it is refused\n\n")
        pieces += [f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1)]
    return "".join(pieces)


def _sign(both: list[Cell], told: Mapping[Cell, Tried], reasons: list[str]) -> str:
    signs = {}
    for cell in both:
        seen = told[cell]
        sign = _SIGNS[seen.outcome]
        if seen.outcome is Outcome.REFUSED:
            if seen.why not in reasons:
                reasons.append(seen.why)
            sign += f" ({reasons.index(seen.why) + 1})"
        signs[sign] = "stream" if cell.stream else "whole"
    if len(signs) == 1:
        return next(iter(signs))
    return ", ".join(f"{how}: {sign}" for sign, how in signs.items())
