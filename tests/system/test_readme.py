"""What the README tells a newcomer to type works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"<!-- tested(: (?P<how>cli|http|machine))? -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)
BLOCKS = [(match["language"], match["how"], match["code"]) for match in _BLOCK.finditer(README.read_text())]


def test_the_readme_has_examples_to_test() -> None:
    assert {language for language, _, _ in BLOCKS} == {"bash", "python"}
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_an_example_of_the_readme_works(
    installation: Installation, fake_engine: FakeEngineProcess, tmp_path: Path, index: int
) -> None:
    language, how, code = BLOCKS[index]
    code = code.replace("http://127.0.0.1:8090", installation.gateway).replace("http://127.0.0.1:8000", fake_engine.url)
    code = code.replace("http://127.0.0.1:8091", installation.connection["admin_http"])
    code = code.replace("~/.local/share/forebay/admin.key", str(installation.data_dir / "admin.key"))
    if how == "machine":  # what else runs here may well be in the way of another Forebay
        code = code.replace("forebay doctor", "forebay doctor || [ $? = 1 ]")
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
    environment = {
        **os.environ,
        "FOREBAY_ADMIN": installation.connection["admin_grpc"],
        "FOREBAY_TOKEN": installation.key,
        "FOREBAY_DATA_DIR": str(installation.data_dir),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if how is None:
        assert "Paris" in done.stdout
    elif how == "http":
        assert "backends" in json.loads(done.stdout)
    elif how == "machine":
        assert " looks" in done.stdout
        (made,) = (tmp_path / "backups").iterdir()
        assert made.suffix == ".backup"
    elif "backend add" in code:
        subprocess.run(["forebay", "backend", "remove", "big-gpu"], check=True, env=environment, capture_output=True)
        assert "fake-model" in done.stdout
    else:
        assert "alice" in done.stdout
