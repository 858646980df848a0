"""The map stays true: folders, entry points, extras and packages say the same, and no name says nothing."""

from __future__ import annotations

import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = {"gateway", "scheduler", "registry", "admin", "gpu-agent"}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "base", "misc", "manager", "managers"}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines()]


def test_each_folder_of_services_is_a_deployable_with_entry_point_extra_and_readme() -> None:
    folders = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}
    points = {point.name for point in entry_points(group="forebay.services")}
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert folders == points == SERVICES
    assert extras >= SERVICES
    for folder in folders:
        assert (ROOT / "services" / folder / "README.md").exists(), f"{folder} has no README"
        assert (ROOT / "services" / folder / f"{folder}.toml").exists(), f"{folder} has no sample of its settings"


def test_every_package_is_built_and_checked() -> None:
    built = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert built == {"forebay", *(f"services/{s}/forebay_{s.replace('-', '_')}" for s in SERVICES)}
    programs = {"deploy/observe", "deploy/image", "deploy/wheelhouse", "requirements/audit.py"}
    assert set(PROJECT["tool"]["mypy"]["files"]) == built | programs | {"tests", "benchmarks"}


def test_no_module_has_a_name_that_fits_everything() -> None:
    vague = [path for path in _tracked() if path.suffix == ".py" and path.stem.lower() in NAMES_THAT_SAY_NOTHING]
    assert vague == []


def test_a_package_of_a_service_opens_with_nothing_but_a_docstring() -> None:
    """So that importing a pure decision does not load a transport."""
    for service in SERVICES:
        package = f"forebay_{service.replace('-', '_')}"
        code = (ROOT / "services" / service / package / "__init__.py").read_text().strip()
        assert code.startswith('"""'), package
        assert code.endswith('"""'), package


def test_every_module_says_what_it_is_for() -> None:
    silent = []
    for path in _tracked():
        if path.suffix != ".py" or "wire" in path.parts or "versions" in path.parts or not (ROOT / path).exists():
            continue
        program = (ROOT / path).read_text()
        if program.startswith("#!"):
            program = program.partition("\n")[2]
        if not program.lstrip().startswith(('"""', 'r"""')):
            silent.append(str(path))
    assert silent == []


def test_every_module_of_the_scheduler_is_known_to_decide_or_to_be_of_its_edge() -> None:
    """So that the rules for imports hold for a new one too."""
    contracts = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    decide = contracts["What decides knows no transport, no clock and no loop"]["source_modules"]
    edge = contracts["The simulator drives what decides, and nothing of the edge"]["forbidden_modules"]
    listed = [name for name in (*decide, *edge) if name.startswith("forebay_scheduler.")]
    package = ROOT / "services" / "scheduler" / "forebay_scheduler"
    parts = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(listed) == sorted(f"forebay_scheduler.{part}" for part in parts - {"__init__", "simulator"})


def test_the_lock_files_hold_hashes_and_no_addresses() -> None:
    for name in ("run.txt", "dev.txt"):
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        pins = [line for line in lines if "==" in line]
        assert len(pins) > 20
        assert all(line.rstrip().endswith("\\") for line in pins), "a pin without a hash"
        assert not any("://" in line for line in lines)


def test_each_sample_of_settings_is_accepted() -> None:
    from forebay.config import read_settings

    for point in entry_points(group="forebay.services"):
        service = point.load()
        sample = tomllib.loads((ROOT / "services" / point.name / f"{point.name}.toml").read_text())
        assert sample, f"{point.name}.toml is empty"
        read_settings(service.settings, point.name, file=sample, environ={})
