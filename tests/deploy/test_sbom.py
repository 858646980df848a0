"""What is installed is told whole, and whether anything is known to be wrong with it is asked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.deploy
ROOT = Path(__file__).parents[2]


def test_the_bill_of_materials_names_each_locked_dependency_with_its_hashes() -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True, capture_output=True)
    told = json.loads((ROOT / "build" / "sbom.json").read_text())
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["component"]["name"] == "forebay"
    locked = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", (ROOT / "requirements" / "run.txt").read_text(), re.M))
    components = {one["name"].lower(): one for one in told["components"]}
    assert {name: one["version"] for name, one in components.items()} == locked
    for one in components.values():
        assert one["purl"].startswith("pkg:pypi/")
        assert any(place.get("hashes") for place in one["externalReferences"]), one["name"]


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """The question with another who answers: a stand-in for pip-audit beside a copy of it."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    (folder / "audit.py").write_text((ROOT / "requirements" / "audit.py").read_text())
    return folder


def _ask(audit: Path, answer: str) -> subprocess.CompletedProcess[str]:
    tools = audit.parent / "bin"
    tools.mkdir(exist_ok=True)
    python = tools / "python"
    if not python.exists():
        python.symlink_to("/usr/bin/env")
    (tools / "pip-audit").write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    (tools / "pip-audit").chmod(0o755)
    script = str(audit / "audit.py")
    code = f"import sys, runpy; sys.executable = {str(python)!r}; runpy.run_path({script!r}, run_name='__main__')"
    return subprocess.run(["python3", "-c", code], capture_output=True, text=True, timeout=60)


def test_a_known_flaw_fails_and_advisories_that_cannot_be_had_do_not(audit: Path) -> None:
    flaw = {"id": "CVE-2026-1", "fix_versions": ["1.1"]}
    bad = json.dumps({"dependencies": [{"name": "left", "version": "1.0", "vulns": [flaw]}]})
    told = _ask(audit, bad)
    assert told.returncode == 1
    assert "left 1.0: CVE-2026-1, mended in 1.1" in told.stdout
    good = _ask(audit, json.dumps({"dependencies": [{"name": "left", "version": "1.0", "vulns": []}]}))
    assert (good.returncode, "1 of 1 dependencies" in good.stdout) == (0, True)
    unknown = _ask(audit, json.dumps({"dependencies": [{"name": "left", "skip_reason": "not found"}]}))
    assert (unknown.returncode, "0 of 1 dependencies" in unknown.stdout) == (0, True)
    silent = _ask(audit, "")
    assert (silent.returncode, "nothing is known" in silent.stdout) == (0, True)
