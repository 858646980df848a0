"""Demands that the pages' scripts were built before a wheel is, and compiles the scheduler's core to native code while it
is, if FOREBAY_COMPILE=1.

Scripts are made by `make web`, with Node, and not by a build of the wheel, which would need npm's registry. FOREBAY_NO_WEB=1
makes a wheel without them: its pages work, and have no plots and no chat.

The core is pure and strictly typed, so mypyc can compile it as it is; the same files run interpreted everywhere else. Such a
wheel is for one Python and one platform, and needs no compiler where it is installed. Here one is needed, and what
`requirements/dev.txt` locks (mypy, setuptools): build with `--no-build-isolation`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path("services/scheduler")
PACKAGE = ROOT / "forebay_scheduler"
MODULES = (
    "backend",
    "breaker",
    "closures",
    "decision_log",
    "decisions",
    "dispatch",
    "events",
    "fencing",
    "gateways",
    "handover",
    "holds",
    "lines",
    "lost",
    "matching",
    "policy",
    "quarantine",
    "queues",
    "request",
    "retry_budget",
    "rules",
    "saved",
    "settlements",
    "slots",
    "tally",
    "terms",
    "wire",
)
FOLDERS = ("fairness", "lending", "limits", "placing")


SCRIPTS = Path("services/admin/forebay_admin/web/static/built/app.js")


class CompiledCore(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if os.environ.get("FOREBAY_NO_WEB") != "1" and not (Path(self.root) / SCRIPTS).is_file():
            raise RuntimeError(
                "The pages' scripts were not built: run `make web` first, or build with FOREBAY_NO_WEB=1."
            )
        if os.environ.get("FOREBAY_COMPILE") != "1":
            return
        os.chdir(self.root)
        built = _compile(Path("build") / "mypyc")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(file): str(where) for file, where in built.items()})


def _sources() -> list[str]:
    folders = (file for folder in FOLDERS for file in sorted((PACKAGE / folder).glob("*.py")))
    files = [*(PACKAGE / f"{module}.py" for module in MODULES), *folders]
    return [str(file) for file in files if file.name != "__init__.py"]


def _compile(scratch: Path) -> dict[Path, Path]:
    """The libraries, and where in the wheel each belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    extensions = mypycify(
        ["--config-file=pyproject.toml", *_sources()],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        target_dir=str(scratch),
        group_name="forebay_core",
    )
    command = build_ext(Distribution({"name": "forebay", "ext_modules": extensions}))
    command.build_lib, command.build_temp, command.parallel = (
        str(scratch / "lib"),
        str(scratch / "temp"),
        os.cpu_count(),
    )
    command.ensure_finalized()
    command.run()
    libraries = scratch / "lib"
    return {file: file.relative_to(libraries) for file in libraries.rglob("*.so")}
