"""A whole Forebay with the real small model, and Debian's Chromium to look at its pages with: once for all tests here.
Outside `make test`: `make test-web`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.visiting import CHROMIUM, FLAGS, House
from tests.fakes.search_server import open_search_server
from tests.system.installation import start_up

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_search_server() as search:
        environment = {"FOREBAY_ADMIN_WEB_SEARCH_URL": search.url}
        running = start_up(tmp_path_factory.mktemp("house") / "data", "--engine-slots", "2", environment=environment)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
                yield House(running, browser, search)
                browser.close()
        finally:
            running.stop()
