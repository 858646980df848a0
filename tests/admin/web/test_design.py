"""What all pages are made of: the components, what is built for them, and how it gets into the wheel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import hatch_build
from forebay_admin.web.assets import BUILT, STATIC, Assets
from forebay_admin.web.navigation import GROUPS
from forebay_admin.web.rendering import TEMPLATES, Rendering
from forebay_admin.web.styleguide import plot, sample

ROOT = Path(__file__).parents[3]
SCRIPTS = STATIC.parent / "scripts"
ALL = sorted(TEMPLATES.rglob("*.html"))


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return Rendering(Assets())


@pytest.mark.parametrize("template", ALL, ids=lambda path: path.relative_to(TEMPLATES).as_posix())
def test_a_template_can_be_read_and_has_no_style_or_script_of_its_own(rendering: Rendering, template: Path) -> None:
    rendering.environment.get_template(template.relative_to(TEMPLATES).as_posix())
    text = template.read_text()
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son[a-z]+=|javascript:|\|\s*safe\b", text)


def test_every_class_that_pages_name_is_one_of_the_style_sheet() -> None:
    known = set(re.findall(r"\.([a-zA-Z][\w-]*)", (STATIC / "forebay.css").read_text()))
    for path in ALL:
        for classes in re.findall(r'\bclass="([^"{}]*)"', path.read_text()):
            assert set(classes.split()) <= known, path


def test_every_picture_that_is_named_is_one_that_is_built() -> None:
    known = json.loads((SCRIPTS / "icons.json").read_text()).keys()
    places = {place.icon for group in GROUPS for place in group.places}
    written = {name for path in ALL for name in re.findall(r"icon(?:=|\()'([a-z-]+)'", path.read_text())}
    assert places | written <= known


def test_a_plot_tells_as_many_values_as_moments_and_what_was_not_measured_is_nothing() -> None:
    told = json.loads(json.dumps(plot(1_800_000_000.0)))
    assert {len(series["values"]) for series in told["series"]} == {len(told["t"])}
    assert all(None in series["values"] for series in told["series"])
    assert told["t"] == sorted(told["t"])
    assert told["t"][-1] <= 1_800_000_000
    assert None in sample(1_800_000_000.0).spark


def test_a_line_of_one_point_or_none_is_drawn_too(rendering: Rendering) -> None:
    spark = rendering.environment.get_template("parts/charts.html").module.spark  # type: ignore[attr-defined]
    assert "<path" not in spark([], "nothing")
    assert "<path" not in spark([None, None], "nothing")
    assert 'd="M0.00 1.00 h0.01"' in spark([5], "one", area=False)
    assert "M0.00 12.00 M100.00 1.00" in spark([1, None, 2], "with a gap", area=False)


def test_a_meter_says_so_when_nothing_is_known_or_nothing_is_the_limit(rendering: Rendering) -> None:
    meter = rendering.environment.get_template("parts/meters.html").module.meter  # type: ignore[attr-defined]
    assert 'aria-valuenow="50.0"' in meter(4, 8, "Slots")
    assert 'aria-valuenow="100.0"' in meter(12, 8, "Slots")
    unknown, unlimited = meter(None, 8, "Slots"), meter(3, 0, "Slots")
    assert "unknown" in unknown
    assert "no limit" in unlimited
    assert "<svg" not in unknown + unlimited


def test_what_somebody_else_chose_is_escaped_by_every_component(rendering: Rendering) -> None:
    evil = "\"><script>alert(1)</script>'"
    ui = rendering.environment.get_template("parts/ui.html").module
    forms = rendering.environment.get_template("parts/forms.html").module
    for made in (
        ui.button(evil, title=evil, name=evil, value=evil, confirm=evil),  # type: ignore[attr-defined]
        ui.link_button(evil, evil, title=evil),  # type: ignore[attr-defined]
        ui.badge(evil, title=evil),  # type: ignore[attr-defined]
        ui.facts([(evil, evil)]),  # type: ignore[attr-defined]
        ui.copy(evil),  # type: ignore[attr-defined]
        ui.code(evil, evil),  # type: ignore[attr-defined]
        ui.notice("bad", evil, evil),  # type: ignore[attr-defined]
        ui.unknown(evil),  # type: ignore[attr-defined]
        forms.field(evil, evil, evil, hint=evil, error=evil, placeholder=evil),  # type: ignore[attr-defined]
        forms.textarea(evil, evil, evil),  # type: ignore[attr-defined]
        forms.select(evil, evil, [(evil, evil)], evil),  # type: ignore[attr-defined]
    ):
        assert "<script" not in made
        assert '""' not in made.replace('value=""', "")


def test_the_libraries_of_pages_are_locked_by_hash_without_an_address() -> None:
    lock = json.loads((SCRIPTS / "package-lock.json").read_text())
    wanted = json.loads((SCRIPTS / "package.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert all(each["integrity"].startswith("sha512-") for each in packages.values())
    assert "://" not in json.dumps(lock), "npm writes it so by the .npmrc there, but for `funding`, which goes by hand"
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_a_wheel_is_not_built_without_the_scripts_unless_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOREBAY_COMPILE", raising=False)
    monkeypatch.delenv("FOREBAY_NO_WEB", raising=False)
    hook = hatch_build.Compiled(str(tmp_path), {}, None, None, str(tmp_path), "wheel")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="make web"):
        hook.initialize("standard", {})
    hook.initialize("editable", {})
    monkeypatch.setenv("FOREBAY_NO_WEB", "1")
    hook.initialize("standard", {})
    monkeypatch.setenv("FOREBAY_COMPILE", "gateway,registry")
    with pytest.raises(ValueError, match="not registry"):
        hook.initialize("standard", {})


def test_what_pages_need_is_in_the_wheel_and_what_it_is_made_of_is_not() -> None:
    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    web = "forebay_admin/web"
    for path in (*ALL, *(path for path in STATIC.rglob("*") if path.is_file())):
        assert f"{web}/{path.relative_to(STATIC.parent).as_posix()}" in shipped
    assert {f"{web}/static/{BUILT}/{name}" for name in ("app.js", "plots.js", "icons.svg", "LICENSES.txt")} <= shipped
    assert not [name for name in shipped if name.startswith(f"{web}/scripts/")]
