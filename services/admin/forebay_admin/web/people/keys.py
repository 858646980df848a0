"""`/console/keys`: everybody's keys, what each may, and what becomes of it. A secret is shown on the page that made it, and
on no other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.keys.key_terms import CALLS
from forebay_admin.keys.key_words import AUDITS, BANDS
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, Drafts, demand_sure, refused, sent
from forebay_admin.web.forms import Form
from forebay_admin.web.paging import step
from forebay_admin.web.people.keys_view import (
    COLUMNS,
    PATH,
    STATES,
    KeyView,
    asked_for,
    band_of,
    key_rows_of_file,
    key_view,
    keys_view,
    labels_of,
    terms_change_of,
    terms_of,
)
from forebay_admin.web.people.limits_view import limits_view
from forebay_admin.web.visit import Visit, Visits

_AT_ONCE_OF_FILE = 500


class KeysPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{PATH}/{{id}}"
        return [
            get(PATH, self._list, call="ListKeys", whole=True),
            get(f"{PATH}.csv", self._file, call="ListKeys", whole=True),
            get(f"{PATH}/new", self._new, call="CreateKey", whole=True),
            post(f"{PATH}/new", sent("new", self._create, self._show_new, "name"), call="CreateKey", whole=True),
            get(one, self._one, call="ListKeys", whole=True),
            post(f"{one}/terms", sent("terms", self._terms, self._show), call="SetKeyTerms", whole=True),
            post(f"{one}/weight", sent("weight", self._weight, self._show, "weight"), call="ChangeKey"),
            post(f"{one}/renew", sent("renew", self._renew, self._show, "expires_in"), call="RenewKey", whole=True),
            post(f"{one}/rotate", sent("rotate", self._rotate, self._show, "overlap"), call="RotateKey", whole=True),
            post(f"{one}/block", sent("block", self._block, self._show, "reason"), call="BlockKey"),
            post(f"{one}/unblock", sent("unblock", self._unblock, self._show), call="UnblockKey"),
            post(f"{one}/revoke", sent("revoke", self._revoke, self._show, "sure"), call="RevokeKey", whole=True),
        ]

    # --- all of them ----------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        query, drafts = Form(tuple(visit.query.items())), NO_DRAFTS
        try:
            told = await visit.ask("ListKeys", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error), admin_pb2.ListKeysResponse()
        return visit.page(
            "people/keys.html",
            title="Keys",
            status=drafts.status,
            view=keys_view(told, visit.query, visit.now),
            filters=drafts.filled("filter", query),
            states=("", *STATES),
        )

    async def _file(self, visit: Visit) -> web.StreamResponse:
        wanted = asked_for(Form(tuple(visit.query.items())))

        async def pieces() -> AsyncIterator[Sequence[Row]]:
            wanted.limit, wanted.after, has_more = _AT_ONCE_OF_FILE, "", True
            while has_more:
                told = await visit.ask("ListKeys", wanted)
                yield key_rows_of_file(told.keys)
                has_more = told.has_more
                wanted.after = told.keys[-1].id if told.keys else ""

        return await send_csv(visit, "keys", COLUMNS, pieces())

    async def _new(self, visit: Visit) -> web.StreamResponse:
        return await self._show_new(visit, NO_DRAFTS)

    async def _show_new(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        return visit.page(
            "people/key_new.html",
            title="New key",
            status=drafts.status,
            draft=drafts("new", user=visit.query.get("user", ""), expires_in="90d", band="interactive"),
            **_words(),
        )

    async def _create(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = admin_pb2.CreateKeyRequest(
            user=form.demand("user", "Whose it is to be"),
            name=form.demand("name", "The name"),
            description=form.get("description"),
            labels=labels_of(form),
            allowed_models=form.many("allowed_models"),
            expires_in_s=form.seconds("expires_in") if form.get("expires_in") else None,
            band_cap=band_of(form),
            pool=next(iter(form.many("pools")), ""),
            terms=terms_of(form),
        )
        made = await visit.ask("CreateKey", order)
        return self._secret(visit, made.key, made.secret, "was made")

    # --- one of them ----------------------------------------------------------------------------------------------------

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        view = key_view(await _key(visit), visit.now)
        subject = admin_pb2.QuotaSubject(key_id=view.row.id)
        quotas = await visit.ask_or_none("ShowQuota", admin_pb2.ShowQuotaRequest(subject=subject))
        return visit.page(
            "people/key.html",
            title=view.row.name or view.row.id,
            status=drafts.status,
            view=view,
            drafts=drafts,
            usual=_usual(view),
            limits=limits_view(quotas.quotas, visit.now) if quotas is not None else None,
            **_words(),
        )

    async def _terms(self, visit: Visit) -> web.StreamResponse:
        before = key_view(await _key(visit), visit.now)
        await visit.ask("SetKeyTerms", terms_change_of(before.row.id, before, visit.form))
        return _done(visit, "The key's terms are changed; what runs goes on.")

    async def _weight(self, visit: Visit) -> web.StreamResponse:
        visit.form.demand("weight", "The weight")
        milli = visit.form.weight()
        await visit.ask("ChangeKey", admin_pb2.ChangeKeyRequest(key_id=visit.part("id"), weight_milli=milli))
        return _done(visit, "The key's weight is changed.")

    async def _renew(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        lasts_s = form.seconds("expires_in") if form.get("expires_in") else None
        await visit.ask("RenewKey", key_terms_pb2.RenewKeyRequest(key_id=visit.part("id"), expires_in_s=lasts_s))
        return _done(visit, "The key is renewed." if lasts_s else "The key does not expire any more.")

    async def _rotate(self, visit: Visit) -> web.StreamResponse:
        overlap_s = visit.form.seconds("overlap", 0, least=0)
        rotated = await visit.ask(
            "RotateKey", key_terms_pb2.RotateKeyRequest(key_id=visit.part("id"), overlap_s=overlap_s)
        )
        return self._secret(visit, rotated.key, rotated.secret, "has a new secret")

    async def _block(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = key_terms_pb2.BlockKeyRequest(
            key_id=visit.part("id"),
            reason=form.demand("reason", "A reason, which whoever uses the key is told,"),
            for_s=form.seconds("for") if form.get("for") else None,
        )
        await visit.ask("BlockKey", order)
        return _done(visit, "The key is blocked.")

    async def _unblock(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("UnblockKey", key_terms_pb2.UnblockKeyRequest(key_id=visit.part("id")))
        return _done(visit, "The key works again.")

    async def _revoke(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        now = visit.form.is_ticked("now")
        await visit.ask("RevokeKey", admin_pb2.RevokeKeyRequest(key_id=visit.part("id"), now=now))
        return _done(visit, "The key is revoked, and what ran under it was cut." if now else "The key is revoked.")

    def _secret(self, visit: Visit, key: admin_pb2.Key, secret: str, what: str) -> web.StreamResponse:
        view = key_view(key, visit.now)
        return visit.page("people/key_secret.html", title=f"The key {view.row.name} {what}", view=view, secret=secret)


async def _key(visit: Visit) -> admin_pb2.Key:
    """Raises NotFound."""
    wanted = visit.part("id")
    told = await visit.ask("ListKeys", admin_pb2.ListKeysRequest(text=wanted, include_revoked=True, limit=100))
    found = next((key for key in told.keys if key.id == wanted), None)
    if found is None:
        raise NotFound(f"There is no key {wanted[:60]}.")
    return cast(admin_pb2.Key, found)


def _done(visit: Visit, notice: str) -> web.StreamResponse:
    return visit.done(f"{PATH}/{step(visit.part('id'))}", notice)


def _usual(view: KeyView) -> dict[str, object]:
    """What the form of terms is filled with."""
    return {
        "name": view.row.name,
        "description": view.description,
        "labels": "\n".join(view.labels),
        "allowed_models": "\n".join(view.allowed_models),
        "denied_models": "\n".join(view.denied_models),
        "pools": "\n".join(view.pools),
        "addresses": "\n".join(view.addresses),
        "calls": view.calls,
        "max_output_tokens": view.max_output_tokens,
        "max_context_tokens": view.max_context_tokens,
        "audit": view.audit,
        "band": view.band,
    }


def _words() -> dict[str, Any]:
    audits = (("", "As the group says"), *((name, name) for name in AUDITS))
    return {"bands": tuple(BANDS), "audits": audits, "calls": CALLS}
