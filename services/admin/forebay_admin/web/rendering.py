"""Templates: where they lie, what they know besides what a page tells them, and nothing else. Whatever is shown is escaped;
a name that a page did not tell is a mistake and not an empty place."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from forebay_admin.web import words
from forebay_admin.web.assets import Assets

TEMPLATES = Path(__file__).parent / "templates"


class Rendering:
    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(asset=assets.address, forebay_version=version("forebay"))
        self._environment.filters.update(
            count=words.count,
            exact=words.exact,
            size=words.size,
            money=words.money,
            span=words.span,
            moment=words.moment,
            iso=words.iso,
            percent=words.percent,
        )
        self._environment.globals.update(ago=words.ago, plural=words.plural)

    def text(self, template: str, told: dict[str, Any]) -> str:
        return self._environment.get_template(template).render(told)

    @property
    def environment(self) -> Environment:
        return self._environment
