"""`/console/models`: where each model is, what is being done to them, what they are called, require and cost; and one of
them. Models have names with slashes and colons in them, so what is done to one has an address of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, library_pb2, prices_pb2, registry_pb2
from forebay_admin.models.rule_words import STRUCTURED, THINKING
from forebay_admin.web.drafts import NO_DRAFTS, Drafts
from forebay_admin.web.fleet.carry_out import carry_out
from forebay_admin.web.fleet.lately import LastHours
from forebay_admin.web.fleet.model_forms import (
    ACTIONS,
    CAPS,
    ORDERS,
    SCOPES,
    model_name,
    read_alias,
    read_fallback,
    read_job,
    read_pin,
    read_required,
    read_rule,
    read_scope,
    read_weight,
)
from forebay_admin.web.fleet.models_view import (
    STATES,
    AliasRow,
    JobRow,
    ModelView,
    Residency,
    job_row,
    job_rows,
    model_facts,
    pin_rows,
    places_of,
    pool_rows,
    price_rows,
    residency,
    rules_view,
    said_rows,
    weight_rows,
)
from forebay_admin.web.fleet.orders_form import one_line
from forebay_admin.web.fleet.plots import SPANS, model_plots, span_named
from forebay_admin.web.fleet.price_form import read_end, read_price
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits

_MODELS = "/console/models"
_JOBS = "/console/model-jobs"
_RULES, _PRICES = f"{_MODELS}?tab=rules", f"{_MODELS}?tab=prices"
_MOST_JOBS = 30

Act = Callable[[], Awaitable[str]]


class ModelPages:
    def __init__(self, visits: Visits, live: Live, hours: LastHours) -> None:
        self._visits = visits
        self._hours = hours
        live.add(
            [
                Topic("models", self._map_piece, calls=("ShowModels",), every_s=5.0, has_argument=True),
                Topic("jobs", self._jobs_piece, calls=("ListModelJobs",), every_s=1.0),
                Topic("job", self._job_piece, calls=("FollowModelJob",), every_s=1.0, has_argument=True),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(_MODELS, self._models, call="ShowModels"),
            get(f"{_MODELS}/{{name:.+}}", self._model, call="DescribeModel"),
            post(_JOBS, self._start, call="StartModelJob"),
            get(f"{_JOBS}/{{id}}", self._job, call="FollowModelJob"),
            post(f"{_JOBS}/{{id}}/cancel", self._cancel, call="CancelModelJob"),
            post("/console/model-pins", self._pin, call="PinModel"),
            post("/console/model-pins/remove", self._unpin, call="PinModel"),
            post("/console/model-aliases", self._set_alias, call="SetModelAlias"),
            post("/console/model-aliases/remove", self._remove_alias, call="RemoveModelAlias"),
            post("/console/model-rules", self._set_rule, call="SetModelRule"),
            post("/console/model-rules/remove", self._remove_rule, call="RemoveModelRule"),
            post("/console/model-fallbacks", self._set_fallback, call="SetModelFallback"),
            post("/console/model-fallbacks/remove", self._remove_fallback, call="RemoveModelFallback"),
            post("/console/required-models", self._require, call="ChangePool"),
            post("/console/prices", self._set_price, call="SetPrice"),
            post("/console/prices/end", self._end_price, call="SetPrice"),
            post("/console/prices/{id}/cancel", self._cancel_price, call="CancelPrice"),
            post("/console/model-weights", self._set_weight, call="SetModelTerms"),
            post("/console/model-weights/remove", self._remove_weight, call="RemoveModelTerms"),
        ]

    # --- all of them ------------------------------------------------------------------------------------------------

    async def _models(self, visit: Visit) -> web.StreamResponse:
        match visit.query.get("tab", ""):
            case "rules":
                return await self._rules_page(visit, NO_DRAFTS)
            case "prices":
                return await self._prices_page(visit, NO_DRAFTS)
        return await self._map_page(visit, NO_DRAFTS)

    async def _map_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        text = visit.query.get("q", "").strip()[:100]
        known, jobs = await asyncio.gather(self._residency(visit, text), self._jobs(visit))
        table, pools, pins, places = known
        return visit.page(
            "fleet/models.html",
            title="Models",
            status=drafts.status,
            view=table,
            states=STATES,
            text=text,
            jobs=jobs,
            pools=pool_rows(pools) if pools is not None else None,
            pins=pin_rows(pins) if pins is not None else None,
            where=places,
            actions=tuple(ACTIONS),
            drafts=drafts,
        )

    async def _residency(self, visit: Visit, text: str) -> tuple[Residency, Any, Any, list[tuple[str, str]]]:
        models, backends, nodes, jobs, pins, rules, pools = await asyncio.gather(
            visit.ask("ShowModels", admin_pb2.ShowModelsRequest()),
            visit.ask_or_none("ShowBackends", admin_pb2.ShowBackendsRequest()),
            visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest()),
            visit.ask_or_none("ListModelJobs", library_pb2.ListModelJobsRequest(unfinished=True)),
            visit.ask_or_none("ListModelPins", library_pb2.ListModelPinsRequest()),
            visit.ask_or_none("ListModelRules", admin_pb2.ListModelRulesRequest()),
            visit.ask_or_none("ListPools", admin_pb2.ListPoolsRequest()),
        )
        table = residency(
            models.models,
            backends.backends if backends is not None else (),
            nodes.nodes if nodes is not None else None,
            jobs.jobs if jobs is not None else None,
            pins.pins if pins is not None else None,
            rules,
            pools.pools if pools is not None else None,
            text,
        )
        places = _choices(backends, nodes)
        return table, pools and pools.pools, pins and pins.pins, places

    async def _map_piece(self, visit: Visit, text: str) -> str:
        table, _, _, _ = await self._residency(visit, unquote(text))
        return visit.render("fleet/_residency.html", view=table, states=STATES)

    async def _jobs(self, visit: Visit) -> tuple[JobRow, ...] | None:
        told = await visit.ask_or_none("ListModelJobs", library_pb2.ListModelJobsRequest(limit=_MOST_JOBS))
        return job_rows(told.jobs) if told is not None else None

    async def _jobs_piece(self, visit: Visit, _: str) -> str:
        return visit.render("fleet/_jobs.html", jobs=await self._jobs(visit))

    async def _job(self, visit: Visit) -> web.StreamResponse:
        return await self._job_page(visit, NO_DRAFTS)

    async def _job_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        job = await self._job_now(visit, visit.part("id"))
        title = f"{job.action.capitalize()} {job.model}"
        return visit.page("fleet/job.html", title=title, status=drafts.status, job=job, drafts=drafts)

    async def _job_now(self, visit: Visit, job_id: str) -> JobRow:
        """As it is: the first that who follows it is told."""
        told = await visit.collect("FollowModelJob", library_pb2.FollowModelJobRequest(id=job_id), most=1)
        if not told:
            raise NotFound(f"There is no job {job_id[:80]}.")
        return job_row(told[0])

    async def _job_piece(self, visit: Visit, job_id: str) -> str:
        return visit.render("fleet/_job.html", job=await self._job_now(visit, job_id))

    async def _rules_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask_or_none("ListModelRules", admin_pb2.ListModelRulesRequest())
        return visit.page(
            "fleet/model_rules.html",
            title="Models",
            status=drafts.status,
            rules=rules_view(told) if told is not None else None,
            scopes=SCOPES,
            caps=CAPS,
            orders=tuple(ORDERS),
            thinking=tuple(THINKING),
            structured=tuple(STRUCTURED),
            drafts=drafts,
        )

    async def _prices_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        every = visit.query.get("all", "") == "1"
        prices, weights = await asyncio.gather(
            visit.ask_or_none("ListPrices", prices_pb2.ListPricesRequest(all=every)),
            visit.ask_or_none("ListModelTerms", admin_pb2.ListModelTermsRequest()),
        )
        return visit.page(
            "fleet/prices.html",
            title="Models",
            status=drafts.status,
            prices=price_rows(prices.prices, visit.now) if prices is not None else None,
            weights=weight_rows(weights.terms) if weights is not None else None,
            every=every,
            drafts=drafts,
        )

    # --- one of them ------------------------------------------------------------------------------------------------

    async def _model(self, visit: Visit) -> web.StreamResponse:
        name, span = visit.part("name"), span_named(visit.query.get("span", ""))
        view, places = await self._model_view(visit, name)
        return visit.page(
            "fleet/model.html",
            title=name,
            view=view,
            where=places,
            plots=model_plots(name, span.word) if visit.may("ShowHistory") and visit.may_all("QueryUsage") else (),
            span=span.word,
            spans=list(SPANS),
            path=_of(name),
            drafts=NO_DRAFTS,
        )

    async def _model_view(self, visit: Visit, name: str) -> tuple[ModelView, list[tuple[str, str]]]:
        models, backends, nodes, jobs, pins, rules, pools, prices, said = await asyncio.gather(
            visit.ask_or_none("ShowModels", admin_pb2.ShowModelsRequest()),
            visit.ask_or_none("ShowBackends", admin_pb2.ShowBackendsRequest()),
            visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest()),
            visit.ask_or_none("ListModelJobs", library_pb2.ListModelJobsRequest(unfinished=True)),
            visit.ask_or_none("ListModelPins", library_pb2.ListModelPinsRequest()),
            visit.ask_or_none("ListModelRules", admin_pb2.ListModelRulesRequest()),
            visit.ask_or_none("ListPools", admin_pb2.ListPoolsRequest()),
            visit.ask_or_none("ListPrices", prices_pb2.ListPricesRequest(model=name, all=True)),
            self._said(visit, name),
        )
        known = next((one for one in models.models if one.name == name), None) if models is not None else None
        named = rules_view(rules) if rules is not None else None
        places = places_of(
            name,
            backends.backends if backends is not None else (),
            jobs.jobs if jobs is not None else None,
            pins.pins if pins is not None else None,
            pools.pools if pools is not None else None,
        )
        costs = price_rows(prices.prices, visit.now) if prices is not None else ()
        if known is None and not places and not costs and models is not None:
            raise NotFound(f"There is no model {name[:80]}.")
        aliases: tuple[AliasRow, ...] = tuple(one for one in named.aliases if one.model == name) if named else ()
        view = ModelView(
            name=name,
            is_known=known is not None,
            facts=tuple(model_facts(known or registry_pb2.FleetModel())) if known is not None else (),
            places=places,
            said=said_rows(said) if said is not None else (),
            aliases=aliases,
            prices=costs,
            fallbacks=tuple(one for one in named.fallbacks if one.model == name) if named else (),
        )
        return view, _choices(backends, nodes)

    async def _said(self, visit: Visit, name: str) -> library_pb2.DescribeModelResponse | None:
        try:
            found: library_pb2.DescribeModelResponse | None = await visit.ask_or_none(
                "DescribeModel", library_pb2.DescribeModelRequest(model=name)
            )
        except NotFound:  # no backend has it now
            return None
        return found

    # --- what can be done -------------------------------------------------------------------------------------------

    async def _start(self, visit: Visit) -> web.StreamResponse:
        answer = library_pb2.StartModelJobResponse()

        async def act() -> str:
            nonlocal answer
            answer = await visit.ask("StartModelJob", read_job(visit.form))
            passed = "".join(f" Passed over: {one.backend} {one.why}." for one in answer.passed_over)
            return f"Job {answer.job.id} has begun; it goes on by itself.{passed}"

        refused = await carry_out(visit, "job", act, show=self._map_page, path=_MODELS)
        if not answer.job.id or not visit.may("FollowModelJob"):
            return refused
        refused.headers["location"] = f"{_JOBS}/{quote(answer.job.id, safe='')}"
        return refused

    async def _cancel(self, visit: Visit) -> web.StreamResponse:
        job_id = visit.part("id")

        async def act() -> str:
            told = await visit.ask("CancelModelJob", library_pb2.CancelModelJobRequest(id=job_id))
            return f"Job {told.job.id} is cancelled; what is done stays done."

        path = f"{_JOBS}/{quote(job_id, safe='')}"
        return await carry_out(visit, "cancel", act, show=self._job_page, path=path)

    async def _pin(self, visit: Visit) -> web.StreamResponse:
        return await self._pin_or_not(visit, "pin", undo=False)

    async def _unpin(self, visit: Visit) -> web.StreamResponse:
        return await self._pin_or_not(visit, "unpin", undo=True)

    async def _pin_or_not(self, visit: Visit, form: str, *, undo: bool) -> web.StreamResponse:
        async def act() -> str:
            request = read_pin(visit.form, undo=undo)
            told = await visit.ask("PinModel", request)
            names = ", ".join(sorted(one.backend for one in (told.before if undo else told.after)))
            return f"{request.model} is {'pinned no longer' if undo else 'kept loaded'} on {names}."

        return await carry_out(visit, form, act, show=self._map_page, path=_MODELS)

    async def _set_alias(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("SetModelAlias", read_alias(visit.form))
            return f"{told.alias.alias} stands for {told.alias.model} {_within(told.alias.pool)}."

        return await self._of_rules(visit, "alias", act)

    async def _remove_alias(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            alias = model_name(visit.form, "alias")
            request = admin_pb2.RemoveModelAliasRequest(alias=alias, pool=one_line(visit.form, "pool"))
            await visit.ask("RemoveModelAlias", request)
            return f"{alias} stands for no model any more."

        return await self._of_rules(visit, "remove-alias", act)

    async def _set_rule(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            await visit.ask("SetModelRule", read_rule(visit.form))
            return "The rule is set."

        return await self._of_rules(visit, "rule", act)

    async def _remove_rule(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            await visit.ask("RemoveModelRule", admin_pb2.RemoveModelRuleRequest(scope=read_scope(visit.form)))
            return "The rule is removed."

        return await self._of_rules(visit, "remove-rule", act)

    async def _set_fallback(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("SetModelFallback", read_fallback(visit.form))
            return f"Instead of {told.fallback.model}: {', '.join(told.fallback.others)}."

        return await self._of_rules(visit, "fallback", act)

    async def _remove_fallback(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            model = model_name(visit.form)
            request = admin_pb2.RemoveModelFallbackRequest(model=model, pool=one_line(visit.form, "pool"))
            await visit.ask("RemoveModelFallback", request)
            return f"Nothing is asked instead of {model} any more."

        return await self._of_rules(visit, "remove-fallback", act)

    async def _of_rules(self, visit: Visit, form: str, act: Act) -> web.StreamResponse:
        return await carry_out(visit, form, act, show=self._rules_page, path=_RULES)

    async def _require(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("ChangePool", read_required(visit.form))
            needed = ", ".join(told.pool.required_models)
            return f"The pool {told.pool.name} requires {needed or 'no models'}."

        return await carry_out(visit, "required", act, show=self._map_page, path=_MODELS)

    async def _set_price(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("SetPrice", read_price(visit.form))
            return f"Price {told.price.id} of {told.price.model} is set."

        return await self._of_prices(visit, "price", act)

    async def _end_price(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("SetPrice", read_end(visit.form))
            return f"{told.price.model} has no price of its own from then on."

        return await self._of_prices(visit, "end-price", act)

    async def _cancel_price(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("CancelPrice", prices_pb2.CancelPriceRequest(id=visit.part("id")))
            return f"Price {told.price.id} of {told.price.model} will not begin."

        return await self._of_prices(visit, "cancel-price", act)

    async def _set_weight(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("SetModelTerms", read_weight(visit.form))
            return f"{told.terms.model} weighs {told.terms.weight_milli / 1000:g}."

        return await self._of_prices(visit, "weight", act)

    async def _remove_weight(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("RemoveModelTerms", admin_pb2.RemoveModelTermsRequest(model=model_name(visit.form)))
            return f"{told.terms.model} weighs one again."

        return await self._of_prices(visit, "remove-weight", act)

    async def _of_prices(self, visit: Visit, form: str, act: Act) -> web.StreamResponse:
        return await carry_out(visit, form, act, show=self._prices_page, path=_PRICES)


def _choices(backends: Any, nodes: Any) -> list[tuple[str, str]]:
    """Where a model can be fetched, loaded or pinned."""
    known = backends.backends if backends is not None else ()
    pools = sorted({backend.pool for backend in known})
    on_nodes = {backend.node_id for backend in known if backend.node_id}
    hosts = sorted(node.name for node in nodes.nodes if node.id in on_nodes) if nodes is not None else []
    return [
        *((f"backend:{name}", name) for name in sorted(backend.name for backend in known)),
        *((f"pool:{pool}", f"all of the pool {pool}") for pool in pools),
        *((f"node:{name}", f"all on the node {name}") for name in hosts),
        ("all", "all that can"),
    ]


def _within(pool: str) -> str:
    return f"in the pool {pool}" if pool else "in every pool"


def _of(name: str) -> str:
    return f"{_MODELS}/{quote(name, safe='')}"
