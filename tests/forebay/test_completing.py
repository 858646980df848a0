"""What a shell completes: nouns without importing them, verbs and options; in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, get_completion_class
from click.testing import CliRunner

from forebay import completing
from forebay.launch import cli

FOREBAY = Path(sys.executable).with_name("forebay")
_AT = """
eval "$(forebay completion bash)"
at() {
    COMP_LINE="$1" COMP_POINT=${#1}
    _forebay_completion forebay
    echo "$1: ${COMPREPLY[*]}"
}
at 'forebay use'
at 'forebay usage --b'
at 'forebay key rev'
at 'forebay key create --band sta'
at 'forebay key revoke '
"""


@pytest.mark.parametrize("shell", completing.SHELLS)
def test_each_shell_gets_a_script_that_asks_forebay(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"_FOREBAY_COMPLETE={shell}_complete" in script
    assert "forebay" in script


def test_bash_completes_nouns_verbs_options_and_words(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    environment = {"PATH": f"{FOREBAY.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    told = subprocess.run([bash, "--norc", "-c", _AT], env=environment, capture_output=True, text=True, timeout=120)
    assert (told.stderr, told.returncode) == ("", 0)
    assert told.stdout.splitlines() == [
        "forebay use: user",
        "forebay usage --b: --by --bucket --backend",
        "forebay key rev: revoke",
        "forebay key create --band sta: standard",
        "forebay key revoke : ",  # no Forebay is known there
    ]


def test_of_a_name_with_colons_bash_gets_what_comes_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    completing.set_up()
    kind = get_completion_class("bash")
    assert kind is not None
    for line, words, incomplete, told in (
        ("forebay model show llama3:8", ["model", "show"], "llama3:8", "plain,8b"),
        ("forebay model show lla", ["model", "show"], "lla", "plain,llama3:8b"),
        ("forebay model show ", ["model", "show"], "", "plain,llama3:8b"),
        ("forebay model show 'llama3:8", ["model", "show"], "llama3:8", "plain,8b"),
    ):
        monkeypatch.setenv("_FOREBAY_LINE", line)
        bash = kind(cli, {}, "forebay", "_FOREBAY_COMPLETE")
        assert bash.get_completion_args() == (words, incomplete)
        assert bash.format_completion(CompletionItem("llama3:8b")) == told


def test_nouns_are_completed_without_being_imported() -> None:
    code = (
        "import sys; from forebay.launch import cli; import click\n"
        "print([item.value for item in cli.shell_complete(click.Context(cli), 'ke')])\n"
        "print(sorted(name for name in sys.modules if name.startswith(('forebay_', 'grpc', 'asyncio', 'rich'))))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["['key']", "[]"]
