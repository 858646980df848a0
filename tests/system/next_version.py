"""Another version of Forebay for upgrades: an environment with a copy of this tree that calls itself newer, and may be
broken in a place of the test's choice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = (
    "forebay",
    "forebay_admin",
    "forebay_gateway",
    "forebay_gpu_agent",
    "forebay_registry",
    "forebay_scheduler",
)
NEXT = "99.1.0"


def make_next_version(folder: Path, *, version: str = NEXT) -> Path:
    """Gives the environment. What is not Forebay's comes from the one that runs the test."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    site = packages_of(folder)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        place = next(iter(spec.submodule_search_locations or ()))
        shutil.copytree(place, site / name, ignore=ignored)
    told = distribution("forebay")
    metadata = site / f"forebay-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: forebay\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(told.read_text("entry_points.txt") or "")
    (site / "zz-rest.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder


def packages_of(environment: Path) -> Path:
    (site,) = environment.glob("lib/python*/site-packages")
    return site


def break_gateways(environment: Path, only_named: str = "") -> None:
    """Its gateways end at their start: all of them, or those of that name alone."""
    file = packages_of(environment) / "forebay_gateway" / "entry.py"
    ends = (
        f"if settings.name == {only_named!r} or not {only_named!r}:\\n        raise CannotStart('This one is broken.')"
    )
    broken, count = re.subn(r"(async def open_gateway\(.*\n)", rf"\1    {ends}\n", file.read_text())
    assert count == 1
    file.write_text(broken)
