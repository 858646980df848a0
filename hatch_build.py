"""Demands that the pages' scripts were built before a wheel is, and compiles to native code while it is, if
FOREBAY_COMPILE says so: the scheduler's core, and what every request and every token goes through in a gateway. It is 1 for
both, or the names of some, `gateway,scheduler`.

Scripts are made by `make web`, with Node, and not by a build of the wheel, which would need npm's registry. FOREBAY_NO_WEB=1
makes a wheel without them: its pages work, and have no plots and no chat.

What is compiled is strictly typed, so mypyc can take it as it is; the same files run interpreted everywhere else. Such a
wheel is for one Python and one platform, and needs no compiler where it is installed. Here one is needed, and what
`requirements/dev.txt` locks (mypy, setuptools): build with `--no-build-isolation`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = """
backend breaker closures decision_log decisions dispatch events fencing gateways handover holds lines lost matching policy
quarantine queues request retry_budget rules saved settlements slots tally terms wire fairness/* lending/* limits/* placing/*
"""
"""Of the scheduler: all that decides."""

HOT = """
accounting asked attempt attempt_news authentication engine_answer fleet held_body hot_routes interrupt keyring meters
other_models relay relayed reply running serving slot_wait traced upstream
callers/call callers/principals
canonical/answer_stream canonical/dialect canonical/fields canonical/file_parts canonical/forms canonical/prefix_hashes
canonical/repeated_chunk canonical/speech canonical/sse canonical/thoughts
dialects/ollama/native dialects/openai/chat
engines/anthropic_speech engines/cohere_speech engines/credentials engines/forced_tool engines/gemini_speech
engines/llamacpp_speech engines/local_speech engines/unspoken
http_in/connection http_in/connections http_in/framer http_in/heads http_in/visit
http_out/connection http_out/pool http_out/request http_out/response
ledger/account ledger/estimate ledger/journal ledger/journal_segment ledger/usage_record
slots/allotments slots/asking slots/ceilings slots/credits slots/fence slots/local_dispatch slots/places slots/scheduler_wire
"""
"""Of a gateway: what a usual request calls, and whatever inherits from that, which interpreted classes cannot."""

COMPILED = {
    "scheduler": ("services/scheduler/forebay_scheduler", CORE),
    "gateway": ("services/gateway/forebay_gateway", HOT),
}

SCRIPTS = Path("services/admin/forebay_admin/web/static/built/app.js")


class Compiled(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if os.environ.get("FOREBAY_NO_WEB") != "1" and not (Path(self.root) / SCRIPTS).is_file():
            raise RuntimeError(
                "The pages' scripts were not built: run `make web` first, or build with FOREBAY_NO_WEB=1."
            )
        services = wanted(os.environ.get("FOREBAY_COMPILE", ""))
        if not services:
            return
        os.chdir(self.root)
        built = _compile(services, Path("build") / "mypyc")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(file): str(where) for file, where in built.items()})


def wanted(told: str) -> list[str]:
    """The services that are to be compiled. Raises ValueError for what is none."""
    if told in ("", "0", "1"):
        return list(COMPILED) if told == "1" else []
    services = told.split(",")
    for service in services:
        if service not in COMPILED:
            raise ValueError(f"FOREBAY_COMPILE={told}: it is 0, 1, or some of {', '.join(COMPILED)}, not {service}.")
    return services


def sources(package: str, modules: str) -> list[str]:
    """Their files, in order. Raises ValueError for what is not there."""
    files: list[Path] = []
    for module in modules.split():
        found = sorted(file for file in Path(package).glob(f"{module}.py") if file.name != "__init__.py")
        if not found:
            raise ValueError(f"There is no {module} in {package}.")
        files += found
    return [str(file) for file in files]


def _compile(services: list[str], scratch: Path) -> dict[Path, Path]:
    """The libraries, and where in the wheel each belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    extensions = [
        extension
        for service in services
        for extension in mypycify(
            ["--config-file=pyproject.toml", *sources(*COMPILED[service])],
            opt_level="2",
            debug_level="0",
            multi_file=True,
            target_dir=str(scratch / service),
            group_name=f"forebay_{service}",
        )
    ]
    command = build_ext(Distribution({"name": "forebay", "ext_modules": extensions}))
    command.build_lib, command.build_temp, command.parallel = (
        str(scratch / "lib"),
        str(scratch / "temp"),
        os.cpu_count(),
    )
    command.ensure_finalized()
    libraries = scratch / "lib"
    shutil.rmtree(libraries, ignore_errors=True)  # what was built once and is no more
    command.run()
    return {file: file.relative_to(libraries) for file in libraries.rglob("*.so")}
