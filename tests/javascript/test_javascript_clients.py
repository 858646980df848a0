"""The official JavaScript client libraries, and an agent framework, against every kind of engine, feature by feature.
`make test-js` installs them from the lock and runs this."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.compatibility.matrix import Engine, Outcome
from tests.javascript.cells import ENGINES_TRIED, HERE, cells_before

CLIENTS = {
    "openai 7: chat.completions",
    "openai 7: responses",
    "openai 7: completions",
    "openai 6: chat.completions",
    "openai 6: responses",
    "openai 6: completions",
    "anthropic: messages",
    "ollama: chat",
    "ollama: generate",
    "ai 7: openai-compatible",
    "ai 6: openai-compatible",
}
_CELLS_OF_A_CLIENT = 34
"""All features, most of them streamed and whole."""
pytestmark = pytest.mark.javascript


@pytest.mark.parametrize("engine", ENGINES_TRIED, ids=lambda engine: engine.name)
async def test_every_feature_works_with_every_client_that_has_words_for_it(tmp_path: Path, engine: Engine) -> None:
    cells = await cells_before(tmp_path / "house", engine)
    assert Counter(cell["client"] for cell in cells) == dict.fromkeys(CLIENTS, _CELLS_OF_A_CLIENT)
    amiss = [
        f"{cell['client']} / {cell['feature']} / {'stream' if cell['stream'] else 'whole'}: {cell['outcome']}: {cell['why']}"
        for cell in cells
        if cell["outcome"] not in (Outcome.WORKS, Outcome.ABSENT)
    ]
    assert not amiss, "\n".join(amiss)


def test_the_lock_has_a_hash_for_every_package_and_no_address() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if name and "integrity" not in package] == []
    assert "://" not in json.dumps(lock), "npm writes it so by the .npmrc here, but for `funding`, which goes by hand"
