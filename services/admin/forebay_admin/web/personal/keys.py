"""`/me/keys`: one's own keys. A secret is shown on the answer to what made it, and never again."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from forebay.errors import ForebayError, NotFound
from forebay.wire.v1 import admin_pb2, registry_pb2
from forebay_admin.keys.key_terms import CALLS
from forebay_admin.web.cluster_facts import ClusterFacts
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.personal.keys_view import (
    BANDS,
    LIVES,
    OVERLAPS,
    PATH,
    OwnKey,
    change_of,
    creation_of,
    expiring,
    first_model,
    own_key,
    own_keys,
    renewal_of,
    rotation_of,
)
from forebay_admin.web.snippets import snippets
from forebay_admin.web.visit import Visit, Visits


class OwnKeysPages:
    def __init__(self, visits: Visits, facts: ClusterFacts, *, gateway_url: str) -> None:
        self._visits = visits
        self._facts = facts
        self._gateway_url = gateway_url

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{PATH}/{{id}}"
        return [
            get(PATH, self._list, call="ListKeys"),
            get(f"{PATH}/new", self._new, call="CreateKey"),
            post(f"{PATH}/new", sent("new", self._create, self._show_new), call="CreateKey"),
            get(one, self._one, call="ListKeys"),
            post(f"{one}/terms", sent("terms", self._terms, self._show), call="SetKeyTerms"),
            post(f"{one}/renew", sent("renew", self._renew, self._show, "days"), call="RenewKey"),
            post(f"{one}/rotate", sent("rotate", self._rotate, self._show, "overlap"), call="RotateKey"),
            post(f"{one}/revoke", sent("revoke", self._revoke, self._show, "sure"), call="RevokeKey"),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        with_revoked = "revoked" in visit.query
        request = admin_pb2.ListKeysRequest(user=visit.user, include_revoked=with_revoked)
        keys = own_keys((await visit.ask("ListKeys", request)).keys, visit.now)
        return visit.page(
            "personal/keys.html",
            title="Your keys",
            keys=keys,
            expiring=expiring(keys),
            with_revoked=with_revoked,
        )

    async def _new(self, visit: Visit) -> web.StreamResponse:
        return await self._show_new(visit, NO_DRAFTS)

    async def _show_new(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        return visit.page(
            "personal/key_new.html",
            title="New key",
            status=drafts.status,
            draft=drafts("new", days="90"),
            lives=LIVES,
            bands=tuple(BANDS),
            calls=CALLS,
            models=[model.name for model in await self._models()],
        )

    async def _create(self, visit: Visit) -> web.StreamResponse:
        made = await visit.ask("CreateKey", creation_of(visit.form, visit.user))
        return await self._told_once(visit, made.key, made.secret, "Your new key")

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        key = await self._own(visit)
        return visit.page(
            "personal/key.html",
            title=key.name,
            status=drafts.status,
            key=key,
            drafts=drafts,
            terms=drafts(
                "terms",
                name=key.name,
                description=key.description,
                models=", ".join(key.allowed_models),
                denied=", ".join(key.denied_models),
                addresses=", ".join(key.addresses),
                calls=key.calls,
                max_output=key.max_output_tokens,
                max_context=key.max_context_tokens,
            ),
            lives=LIVES,
            overlaps=OVERLAPS,
            calls=CALLS,
            models=[model.name for model in await self._models()],
        )

    async def _terms(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("SetKeyTerms", change_of(visit.form, (await self._own(visit)).id))
        return visit.done(f"{PATH}/{visit.part('id')}", "The key is changed, on every gateway within a second.")

    async def _renew(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("RenewKey", renewal_of(visit.form, (await self._own(visit)).id))
        return visit.done(f"{PATH}/{visit.part('id')}", "The key is renewed.")

    async def _rotate(self, visit: Visit) -> web.StreamResponse:
        made = await visit.ask("RotateKey", rotation_of(visit.form, (await self._own(visit)).id))
        return await self._told_once(visit, made.key, made.secret, "The key's new secret")

    async def _revoke(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        key = await self._own(visit)
        request = admin_pb2.RevokeKeyRequest(key_id=key.id, now=visit.form.is_ticked("now"))
        await visit.ask("RevokeKey", request)
        return visit.done(PATH, f"{key.name} is revoked.")

    async def _told_once(self, visit: Visit, key: admin_pb2.Key, secret: str, title: str) -> web.StreamResponse:
        model = first_model(await self._models(), key.allowed_models)
        name = model.name if model is not None else next(iter(key.allowed_models), "MODEL")
        can: Sequence[str] = model.capabilities if model is not None else ()
        return visit.page(
            "personal/key_secret.html",
            title=title,
            key=own_key(key, visit.now),
            secret=secret,
            snippets=snippets(self._gateway_url, secret, name, can),
            gateway=self._gateway_url,
        )

    async def _own(self, visit: Visit) -> OwnKey:
        """Raises NotFound, also for somebody else's: an admin's are under /console/keys."""
        request = admin_pb2.ListKeysRequest(user=visit.user, include_revoked=True)
        found = next((key for key in (await visit.ask("ListKeys", request)).keys if key.id == visit.part("id")), None)
        if found is None:
            raise NotFound("There is no such key of yours.")
        return own_key(found, visit.now)

    async def _models(self) -> Sequence[registry_pb2.FleetModel]:
        """To choose from; none while nobody tells."""
        try:
            return await self._facts.models()
        except ForebayError:
            return ()
