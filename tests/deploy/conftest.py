"""One image for all tests of this folder that run containers."""

from __future__ import annotations

import os

import pytest

from tests.deploy import containers


@pytest.fixture(scope="session")
def image() -> str:
    """With all services in it, the scheduler's core interpreted. FOREBAY_TEST_IMAGE names one that was built before, for
    whoever changes the tests and not the image."""
    if given := os.environ.get("FOREBAY_TEST_IMAGE"):
        return given
    containers.ensure_base()
    return containers.build_image("all", compile=False)
