"""What `pip install forebay[gpu-agent]` leaves on a node, without pip and without a network: a folder with those
distributions and no others, and Python that sees nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

import forebay
import forebay_gpu_agent


@dataclass(frozen=True)
class SlimInstallation:
    folder: Path

    @property
    def python(self) -> list[str]:
        return [sys.executable, "-S"]  # -S: not the packages of the environment that the tests run in

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOREBAY_", "NATS_"))}
        return {**kept, "PYTHONPATH": str(self.folder), **more}

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.python, *words], env=self.environment(**environment), capture_output=True, text=True, timeout=60
        )

    def forebay(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "forebay", *words, **environment)


def install(folder: Path) -> SlimInstallation:
    for needed in _needed("forebay[gpu-agent]"):
        for top in {Path(file).parts[0] for file in needed.files or ()} - {"..", "__pycache__"}:
            found = Path(str(needed.locate_file(top)))
            if not top.endswith(".pth") and found.exists() and not (folder / top).exists():
                (folder / top).symlink_to(found)
    for package in (forebay, forebay_gpu_agent):
        root = Path(package.__path__[0])
        if not (folder / root.name).exists():  # an editable installation lists no files of its own
            (folder / root.name).symlink_to(root)
    return SlimInstallation(folder)


def _needed(root: str) -> list[Distribution]:
    """The distribution and all that it requires, here and now."""
    found: dict[str, Distribution] = {}
    asked: set[str] = set()
    to_ask = [Requirement(root)]
    while to_ask:
        requirement = to_ask.pop()
        if str(requirement) in asked:
            continue
        asked.add(str(requirement))
        held = found.setdefault(requirement.name.lower(), distribution(requirement.name))
        for text in held.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                to_ask.append(needed)
    return list(found.values())
