"""All of OllamaFlow's routes."""

from __future__ import annotations

from dataclasses import replace

from forebay_admin.seeds.ollamaflow import backends, frontends
from forebay_admin.seeds.route import SeedRoute

PREFIX = "/v1.0"

ROUTES: tuple[SeedRoute, ...] = tuple(
    replace(route, path=f"{PREFIX}{route.path}") for route in (*frontends.ROUTES, *backends.ROUTES)
)
