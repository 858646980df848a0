"""What the documents claim about the repository is so: links lead somewhere, commands and settings exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.launch import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "node_modules") for part in path.parts[1:])
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_make_target_that_is_named_exists() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for target in re.findall(r"`?make ([a-z][a-z-]+)`", document.read_text()):
            assert target in known, f"{document.name} names make {target}"


def _commands() -> set[tuple[str, ...]]:
    told = set()
    for document in DOCUMENTS:
        for code in re.findall(r"`(forebay [^`\n]+)`|^(forebay .+)$", document.read_text(), re.MULTILINE):
            words = next(part for part in code if part).split()[1:]
            told.add(tuple(word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]+", word)))
    return {command for command in told if command}


@pytest.mark.parametrize("command", sorted(_commands()), ids=" ".join)
def test_every_command_that_is_named_has_a_help(command: tuple[str, ...]) -> None:
    words = command[:1] if command[0] in ("run", "up") else command
    done = CliRunner().invoke(cli, [*words, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Usage: cli {' '.join(words)}" in done.output


def test_the_changelog_opens_with_what_is_unreleased() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_decisions_are_numbered_without_gaps_and_weigh_leaving_it() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert "*Leave it*" in page.read_text(), page.name


def test_what_the_threat_model_names_exists_and_each_threat_is_tried() -> None:
    told = (ROOT / "docs" / "security.md").read_text()
    for named in re.findall(r"`((?:forebay|services|deploy|tests|requirements)/[^`]+)`", told):
        assert (ROOT / named).exists(), named
    rows = [line.split("|")[1:-1] for line in told.splitlines() if line.startswith("| ") and "---" not in line]
    threats = [
        cells for cells in rows if "what enforces it" not in cells[1] and len(cells) == 3 and "tests/" in cells[2]
    ]
    assert len(threats) > 25
    assert all("`tests/" in cells[2] for cells in threats)
