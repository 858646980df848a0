"""Forms with something wrong in them, and what has to become of each: a page that says what is wrong beside the field, and
keeps what was typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import send


@dataclass(frozen=True)
class Wrong:
    path: str
    form: str
    """Its name among the page's drafts."""
    at: str
    """The field that is wrong."""
    typed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path.removeprefix('/console/')}-{self.form}-{self.at}-{'-'.join(self.typed.values())}"


async def demand_refused(browser: Browser, wrong: Wrong) -> None:
    status, text, _ = await send(browser, wrong.path, **wrong.typed)
    assert status == 400, text
    assert f'f-{wrong.form}-{wrong.at}-error"' in text or f'id="f-{wrong.at}-error"' in text, text
    assert "That was not accepted" in text
    form = text.partition(f'id="form-{wrong.form}"')[2].partition("</form>")[0]
    for name, value in wrong.typed.items():
        assert f'name="{name}"' in form, name
        if name not in ("sure", "kinds", "permissions"):
            assert _keeps(form, name, value), (name, form)


def _keeps(form: str, name: str, value: str) -> bool:
    """Of a choice only that it is there: a word that it has not cannot stand in it."""
    shown = escape(value).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    if re.search(rf'<select [^>]*name="{name}"', form):
        return True
    return f'value="{shown}"' in form or f">\n{shown}</textarea>" in form
