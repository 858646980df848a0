"""The official JavaScript client libraries, and an agent framework, against every kind of engine, feature by feature.
`make test-js` installs them from the lock and runs this."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.compatibility.matrix import ENGINES, Engine, Outcome, serving
from tests.fakes.engine_flavours import Flavour
from tests.gateway.house import MODEL

HERE = Path(__file__).parent
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
_WITHIN_S = 110.0

pytestmark = pytest.mark.javascript

_ENGINES = [engine for engine in ENGINES if isinstance(engine.fake, Flavour)]
"""Cloud providers refuse by name what they cannot do; that is told cell by cell with the libraries for Python."""


@pytest.mark.parametrize("engine", _ENGINES, ids=lambda engine: engine.name)
async def test_every_feature_works_with_every_client_that_has_words_for_it(tmp_path: Path, engine: Engine) -> None:
    node = shutil.which("node")
    assert node is not None, "there is no node on the path"
    async with serving(tmp_path / "house", engine) as (house, fake):
        runs = await asyncio.create_subprocess_exec(
            node, "run.mjs", house.url, str(house.key), MODEL, fake.url, cwd=HERE, stdout=-1, stderr=-1
        )
        try:
            async with asyncio.timeout(_WITHIN_S):
                told, complaints = await runs.communicate()
        finally:
            if runs.returncode is None:
                runs.kill()
                await runs.wait()
    assert runs.returncode == 0, complaints.decode()
    cells = [json.loads(line) for line in told.splitlines()]
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
