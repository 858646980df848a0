"""The JavaScript client libraries at a gateway in front of one kind of engine: each feature tried, and what came of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from tests.compatibility.matrix import ENGINES, Engine, serving
from tests.fakes.engine_flavours import Flavour
from tests.gateway.house import MODEL

HERE = Path(__file__).parent
LIBRARIES = ("openai 7", "openai 6", "@anthropic-ai/sdk", "ollama", "ai 7", "ai 6")
ENGINES_TRIED = [engine for engine in ENGINES if isinstance(engine.fake, Flavour)]
"""Cloud providers refuse by name what they cannot do; that is told cell by cell with the libraries for Python."""
_WITHIN_S = 110.0


class NoNode(Exception):
    """They cannot be run here: why."""


async def cells_before(directory: Path, engine: Engine) -> list[dict[str, Any]]:
    """`{"client", "feature", "stream", "outcome", "why"}` of each. Raises NoNode."""
    node = shutil.which("node")
    if node is None:
        raise NoNode("there is no node on the path")
    if not (HERE / "node_modules" / "openai").is_dir():
        raise NoNode("the libraries are not installed; `make test-js` does that")
    async with serving(directory, engine) as (house, fake):
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
    if runs.returncode != 0:
        raise RuntimeError(complaints.decode())
    return [json.loads(line) for line in told.splitlines()]
