"""Watching a cluster through all that goes wrong, against a fake API over real HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from forebay.errors import BadInput
from forebay_registry.discovery.kubernetes.cluster import Cluster, Tally
from forebay_registry.discovery.kubernetes.settings import KubernetesSettings, read_kubernetes
from tests.registry.discovery.kubernetes_api import KubernetesApi
from tests.registry.discovery.objects import endpoint, slice_of, wanted_service

Eventually = Callable[..., Any]


@asynccontextmanager
async def watching(api: KubernetesApi, folder: Path) -> AsyncIterator[Cluster]:
    token = folder / "token"
    if not token.exists():
        token.write_text(api.token)
    settings = KubernetesSettings(api.url, token, None, ("ml",), "forebay.io/backend=true", 60.0)
    cluster = Cluster(settings, Tally(), first_pause_s=0.01, most_pause_s=0.05)
    running = asyncio.create_task(cluster.run())
    try:
        yield cluster
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def furnished(api: KubernetesApi) -> None:
    await api.put("services", wanted_service())
    await api.put("services", wanted_service("other"))
    await api.put("endpointslices", slice_of(endpoint("10.1.0.1", "a")))


def names(cluster: Cluster) -> list[str]:
    return sorted(one.name for one in cluster.offers)


async def test_backends_come_and_go_with_their_endpoints(tmp_path: Path, eventually: Eventually) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        async with watching(api, tmp_path) as cluster:
            await eventually(lambda: cluster.is_known and names(cluster) == ["a"])
            await api.put("endpointslices", slice_of(endpoint("10.1.0.1", "a"), endpoint("10.1.0.2", "b")))
            await eventually(lambda: names(cluster) == ["a", "b"])
            await api.put("services", wanted_service(annotations={"forebay.io/slots": "8"}))
            await eventually(lambda: {one.slots for one in cluster.offers} == {8})
            await api.drop("endpointslices", "vllm-ipv4")
            await eventually(lambda: not cluster.offers)
            assert api.lists == 3, "the services came on two pages, and nothing was listed twice"


async def test_a_watch_that_is_cut_off_in_a_line_goes_on_from_there(tmp_path: Path, eventually: Eventually) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        async with watching(api, tmp_path) as cluster:
            await eventually(lambda: cluster.is_known and api.watches == 2)
            await api.bookmark("endpointslices")
            lists = api.lists
            api.cut()
            await api.put("endpointslices", slice_of(endpoint("10.1.0.2", "b")))
            await eventually(lambda: names(cluster) == ["b"])
            assert api.lists == lists


async def test_a_version_that_the_api_forgot_is_listed_anew(tmp_path: Path, eventually: Eventually) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        async with watching(api, tmp_path) as cluster:
            await eventually(lambda: cluster.is_known and api.watches == 2)
            lists = api.lists
            api.forget()
            del api.objects["endpointslices", "ml", "vllm-ipv4"]  # while nobody could hear it
            api.cut()
            await eventually(lambda: not cluster.offers)
            assert api.lists > lists

            async def gone(_: web.Request) -> web.StreamResponse:
                return web.json_response({"kind": "Status", "code": 410}, status=410)

            api.odd = [gone, gone]
            api.cut()
            await api.put("endpointslices", slice_of(endpoint("10.1.0.3", "c")))
            await eventually(lambda: names(cluster) == ["c"])


async def _html(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>login</html>", content_type="text/html")


async def _html_as_json(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>", content_type="application/json")


async def _forbidden(_: web.Request) -> web.StreamResponse:
    return web.json_response({"kind": "Status", "code": 403}, status=403)


async def _elsewhere(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"location": "http://169.254.169.254/"})


async def _nothing(_: web.Request) -> web.StreamResponse:
    return web.json_response({})


async def _bad_line(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"not an event\n", content_type="application/json")


async def _endless(_: web.Request) -> web.StreamResponse:
    return web.json_response({"items": [], "metadata": {"resourceVersion": "1", "continue": "0"}})


async def test_a_list_without_an_end_takes_nothing_away(
    tmp_path: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        async with watching(api, tmp_path) as cluster:
            await eventually(lambda: cluster.is_known and names(cluster) == ["a"] and api.watches == 2)
            api.odd = [*[_bad_line] * 2, *[_endless] * 300]
            api.cut()
            await eventually(lambda: any("has no end" in str(vars(r)) for r in caplog.records))
            assert names(cluster) == ["a"]
            await eventually(lambda: cluster.is_known)
            assert names(cluster) == ["a"]


@pytest.mark.parametrize("odd", [_html, _html_as_json, _forbidden, _elsewhere, _nothing, _bad_line])
async def test_whatever_else_answers_what_is_known_stays_and_the_watch_comes_back(
    tmp_path: Path, eventually: Eventually, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        async with watching(api, tmp_path) as cluster:
            await eventually(lambda: cluster.is_known and api.watches == 2)
            with caplog.at_level(logging.WARNING):
                api.odd = [odd] * 4
                api.cut()
                await eventually(lambda: not api.odd)
                assert names(cluster) == ["a"]
            await api.put("endpointslices", slice_of(endpoint("10.1.0.2", "b")))
            await eventually(lambda: cluster.is_known and names(cluster) == ["b"])
        told = [record for record in caplog.records if record.__dict__.get("action") == "kubernetes_away"]
        assert told
        if odd is _forbidden:
            assert any("verbs get, list and watch" in record.__dict__["why"] for record in told)


async def test_an_api_that_is_away_from_the_start_is_not_known_and_a_new_token_is_used(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with KubernetesApi() as api:
        await furnished(api)
        api.is_away = True
        (tmp_path / "token").write_text("old")
        async with watching(api, tmp_path) as cluster:
            await asyncio.sleep(0.05)
            assert not cluster.is_known
            api.is_away = False
            await asyncio.sleep(0.05)
            assert not cluster.is_known, "the token is not good"
            (tmp_path / "token").write_text(api.token)
            await eventually(lambda: cluster.is_known and names(cluster) == ["a"])


async def test_a_ca_that_cannot_be_read_is_waited_for(tmp_path: Path, eventually: Eventually) -> None:
    tally = Tally()
    settings = KubernetesSettings("https://127.0.0.1:1", None, tmp_path / "ca.crt", ("ml",), "x", 60.0)
    cluster = Cluster(settings, tally, first_pause_s=0.01, most_pause_s=0.01)
    running = asyncio.create_task(cluster.run())
    await eventually(lambda: tally.failures.value > 2)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_in_a_pod_nothing_needs_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("c")
    (tmp_path / "namespace").write_text("ml\n")
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    told = read_kubernetes({"enabled": True}, environ, account=tmp_path)
    assert told == KubernetesSettings(
        "https://10.0.0.1:6443", tmp_path / "token", tmp_path / "ca.crt", ("ml",), "forebay.io/backend=true", 60.0
    )
    assert read_kubernetes({}, environ, account=tmp_path) is None
    given = read_kubernetes({"api": "http://x:1/", "namespaces": ["a", "*"]}, {}, account=tmp_path / "none")
    assert given is not None
    assert (given.api, given.token_file, given.namespaces) == ("http://x:1", None, ("*",))
    for table in ({"enabled": True}, {"apis": 1}, {"api": "x"}, {"api": "http://x", "namespaces": ["A b"]}):
        with pytest.raises(BadInput):
            read_kubernetes(table, {}, account=tmp_path)
