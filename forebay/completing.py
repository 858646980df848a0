"""Completion in shells, by click: what may stand at the cursor is asked of `forebay` itself at each TAB, so it must start
quickly. Which names of a running Forebay fit there is what the nouns bring along, through `forebay.completions`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import entry_points

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_FOREBAY_COMPLETE"
_LINE = "_FOREBAY_LINE"


class _Bash(BashComplete):
    """Bash takes `:` for the end of a word, which names of models have in them: so it is the line that is looked at, and of
    an answer only what comes after the last `:` goes back."""

    source_template = f"""\
%(complete_func)s() {{
    local IFS=$'\\n' answer kind value
    COMPREPLY=()
    for answer in $({_LINE}="${{COMP_LINE:0:COMP_POINT}}" %(complete_var)s=bash_complete "$1" 2>/dev/null); do
        kind=${{answer%%%%,*}} value=${{answer#*,}}
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done
}}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(_LINE, "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        self._before = incomplete[: incomplete.rfind(":") + 1]
        return words, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type},{item.value.removeprefix(self._before)}"


def is_completing() -> bool:
    return _VARIABLE in os.environ


def set_up() -> None:
    """Before click looks at what it was started for."""
    add_completion_class(_Bash, "bash")


def name_items(names: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_names(noun: str, command: click.Command) -> None:
    """Lets the parameters of a noun's commands complete what a running Forebay knows."""
    for entry in entry_points(group="forebay.completions"):
        try:
            entry.load()(noun, command)
        except ModuleNotFoundError:  # a machine without what that needs completes the rest
            continue


def script(shell: str, command: click.Command) -> str:
    """`shell`: one of SHELLS."""
    set_up()
    kind = get_completion_class(shell)
    assert kind is not None
    return kind(command, {}, "forebay", _VARIABLE).source()
