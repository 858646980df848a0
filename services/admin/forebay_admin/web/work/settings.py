"""`/console/settings`: terms of pools and models, presets of groups, and how admin was started."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.config import AdminSettings
from forebay_admin.models.terms import Placement
from forebay_admin.people import weights
from forebay_admin.people.groups import PRESETS
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.work.settings_view import models_of, pools_of, presets_of, told_settings

_HERE = "/console/settings"
_PRICES = ("prompt", "cached_prompt", "completion")
_WIDEST_WINDOW = 10**8


class SettingsPages:
    def __init__(self, visits: Visits, settings: AdminSettings) -> None:
        self._visits = visits
        self._settings = told_settings(settings)

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(_HERE, self._all, call="ListModelTerms"),
            get(f"{_HERE}/pool", self._pool_form, call="SetPoolTerms"),
            post(f"{_HERE}/pool", self._set_pool, call="SetPoolTerms"),
            post(f"{_HERE}/pool/remove", self._remove_pool, call="RemovePoolTerms"),
            get(f"{_HERE}/model", self._model_form, call="SetModelTerms"),
            post(f"{_HERE}/model", self._set_model, call="SetModelTerms"),
            post(f"{_HERE}/model/remove", self._remove_model, call="RemoveModelTerms"),
            post(f"{_HERE}/preset", self._preset, call="PresetGroups"),
        ]

    async def _all(self, visit: Visit) -> web.StreamResponse:
        return await self._page(visit)

    async def _page(self, visit: Visit, *, wrong: BadInput | NotFound | None = None) -> web.Response:
        models = await visit.ask_or_none("ListModelTerms", admin_pb2.ListModelTermsRequest())
        pools = await visit.ask_or_none("ListPools", admin_pb2.ListPoolsRequest())
        groups = await visit.ask_or_none("ListGroups", admin_pb2.ListGroupsRequest())
        return visit.page(
            "work/settings.html",
            title="Settings",
            status=200 if wrong is None else 400,
            wrong=wrong,
            models=models_of(models) if models is not None else None,
            pools=pools_of(pools) if pools is not None else None,
            presets=presets_of(group.name for group in groups.groups) if groups is not None else None,
            settings=self._settings if visit.may_all("ShowStatus") else (),
        )

    # --- pools ---

    async def _pool_form(self, visit: Visit) -> web.StreamResponse:
        name = visit.query.get("pool", "")[:64]
        values: dict[str, str] = {"pool": name, "placement": Placement.EXPECTED_TTFT}
        is_default = True
        if name:
            told = await visit.ask("ListPools", admin_pb2.ListPoolsRequest())
            for one in pools_of(told):
                if one.name == name:
                    is_default = one.is_default
                    values |= {"placement": one.placement, **({"sticky": "yes"} if one.sticky else {})}
                    values["locality_window"] = "" if one.locality_window is None else str(one.locality_window)
        return self._pool_page(visit, values, is_default=is_default)

    def _pool_page(
        self, visit: Visit, values: Mapping[str, str], *, is_default: bool = True, wrong: BadInput | None = None
    ) -> web.Response:
        return visit.page(
            "work/settings_pool.html",
            title=f"Terms of the pool {values['pool']}" if values.get("pool") else "Terms of a pool",
            status=200 if wrong is None else 400,
            values=values,
            is_default=is_default,
            placements=tuple(Placement),
            **_told_wrong(wrong),
        )

    async def _set_pool(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        try:
            pool = form.demand("pool", "The pool's name")
            window = form.whole("locality_window", most=_WIDEST_WINDOW) if form.get("locality_window") else None
            request = admin_pb2.SetPoolTermsRequest(
                pool=pool,
                placement=form.demand("placement", "How it places"),
                sticky=form.is_ticked("sticky"),
                locality_window=admin_pb2.Cap(most=window),
            )
            await visit.ask("SetPoolTerms", request)
        except BadInput as error:
            return self._pool_page(visit, form.values(), wrong=error)
        return visit.done(_HERE, f"The pool {pool} has its terms.")

    async def _remove_pool(self, visit: Visit) -> web.StreamResponse:
        try:
            _demand_tick(visit.form)
            pool = visit.form.demand("pool", "The pool's name")
            await visit.ask("RemovePoolTerms", admin_pb2.RemovePoolTermsRequest(pool=pool))
        except BadInput as error:
            values = {"placement": str(Placement.EXPECTED_TTFT), **visit.form.values()}
            return self._pool_page(visit, values, is_default=False, wrong=error)
        return visit.done(_HERE, f"The pool {pool} places as usual again.")

    # --- models ---

    async def _model_form(self, visit: Visit) -> web.StreamResponse:
        name = visit.query.get("model", "")[:256]
        values: dict[str, str] = {"model": name, "weight": "1"}
        is_new = True
        if name:
            told = await visit.ask("ListModelTerms", admin_pb2.ListModelTermsRequest())
            for one in models_of(told):
                if one.name == name:
                    is_new = False
                    values["weight"] = f"{one.weight:g}"
                    values["prompt"] = _amount(one.prompt_micros)
                    values["cached_prompt"] = _amount(one.cached_prompt_micros)
                    values["completion"] = _amount(one.completion_micros)
        return self._model_page(visit, values, is_new=is_new)

    def _model_page(
        self, visit: Visit, values: Mapping[str, str], *, is_new: bool = True, wrong: BadInput | None = None
    ) -> web.Response:
        return visit.page(
            "work/settings_model.html",
            title=f"Terms of {values['model']}" if values.get("model") else "Terms of a model",
            status=200 if wrong is None else 400,
            values=values,
            is_new=is_new,
            most_weight=weights.MOST // weights.ONE,
            **_told_wrong(wrong),
        )

    async def _set_model(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        try:
            model = form.demand("model", "The model's name")
            form.demand("weight", "The weight")
            prices = {f"{name}_micros": form.micro(name) for name in _PRICES if form.get(name)}
            request = admin_pb2.SetModelTermsRequest(model=model, weight_milli=form.weight(), **prices)
            await visit.ask("SetModelTerms", request)
        except BadInput as error:
            return self._model_page(visit, form.values(), wrong=error)
        return visit.done(_HERE, f"The model {model} has its terms.")

    async def _remove_model(self, visit: Visit) -> web.StreamResponse:
        try:
            _demand_tick(visit.form)
            model = visit.form.demand("model", "The model's name")
            await visit.ask("RemoveModelTerms", admin_pb2.RemoveModelTermsRequest(model=model))
        except BadInput as error:
            return self._model_page(visit, visit.form.values(), is_new=False, wrong=error)
        return visit.done(_HERE, f"The model {model} has no terms of its own any more.")

    # --- groups ---

    async def _preset(self, visit: Visit) -> web.StreamResponse:
        try:
            name = visit.form.demand("preset", "The preset")
            if name not in PRESETS:
                raise WrongField("preset", f"There is no preset {name[:40]!r}; there are {', '.join(PRESETS)}.")
            if not visit.form.is_ticked("sure"):
                raise WrongField(
                    "preset", "Tick that you mean it: groups that are there already get the preset's weights."
                )
            told = await visit.ask("PresetGroups", admin_pb2.PresetGroupsRequest(preset=name))
        except BadInput as error:
            return await self._page(visit, wrong=error)
        return visit.done(_HERE, f"{len(told.groups)} groups have the weights of {name}.")


def _demand_tick(form: Form) -> None:
    if not form.is_ticked("sure"):
        raise WrongField("sure", "Tick that you mean it.")


def _told_wrong(wrong: BadInput | None) -> dict[str, Any]:
    is_field = isinstance(wrong, WrongField)
    errors = {wrong.name: wrong.message} if isinstance(wrong, WrongField) else {}
    return {"errors": errors, "problem": wrong.message if wrong is not None and not is_field else ""}


def _amount(micros: int) -> str:
    return f"{Decimal(micros) / 1_000_000:f}"
