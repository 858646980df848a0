"""`--data-dir`, the same for every command about the Forebay of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Folder(click.Path):
    """A folder as people name it: `~` is their home wherever it comes from, and nothing is not the working directory."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty", param, ctx)
        return super().convert(Path(value).expanduser(), param, ctx)


data_dir_option = click.option(
    "--data-dir",
    type=Folder(),
    envvar="FOREBAY_DATA_DIR",
    show_envvar=True,
    help="Where everything is kept.  [default: ~/.local/share/forebay, as root /var/lib/forebay]",
)
"""None where nobody names one: `default_root` of `data_directory`."""
