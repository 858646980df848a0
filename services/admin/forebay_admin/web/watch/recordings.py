"""`/console/recordings`: what requests and answers said, for those who may read it. Each look is in the audit log."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import Unavailable
from forebay.wire.v1 import recordings_pb2
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, Drafts, demand_sure, demand_typed, refused, sent
from forebay_admin.web.forms import Form
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.watch.recordings_view import (
    NONE_OF_ITS_OWN,
    PATH,
    POLICIES,
    asked_for,
    policy_of,
    policy_rows,
    recording_row,
    recordings_view,
)


class RecordingsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(PATH, self._search, call="SearchRecordings"),
            get("/console/recording-policies", self._policies, call="ListRecordingPolicies"),
            post(
                "/console/recording-policies",
                sent("policy", self._set, self._show_policies, "group"),
                call="SetRecordingPolicy",
            ),
            post(
                f"{PATH}/delete-of-user",
                sent("delete", self._delete_of_user, self._show_list, "user"),
                call="DeleteRecordings",
            ),
            get(f"{PATH}/{{id}}", self._one, call="ShowRecording"),
            post(
                f"{PATH}/{{id}}/delete", sent("delete", self._delete, self._show_one, "sure"), call="DeleteRecordings"
            ),
        ]

    async def _search(self, visit: Visit) -> web.StreamResponse:
        return await self._show_list(visit, NO_DRAFTS)

    async def _show_list(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        query = Form(tuple(visit.query.items()))
        try:
            told = await visit.ask("SearchRecordings", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error), recordings_pb2.SearchRecordingsResponse()
        except Unavailable as error:
            visit.unknown["SearchRecordings"] = error.message
            told = recordings_pb2.SearchRecordingsResponse()
        return visit.page(
            "watch/recordings.html",
            title="Recordings",
            status=drafts.status,
            view=recordings_view(told, visit.query),
            filters=drafts.filled("filter", query),
            drafts=drafts,
        )

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show_one(visit, NO_DRAFTS)

    async def _show_one(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ShowRecording", recordings_pb2.ShowRecordingRequest(id=visit.part("id")))
        return visit.page(
            "watch/recording.html",
            title="Recording",
            status=drafts.status,
            row=recording_row(told.recording),
            said=told.request,
            answered=told.answer,
            drafts=drafts,
        )

    async def _delete(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        await visit.ask("DeleteRecordings", recordings_pb2.DeleteRecordingsRequest(id=visit.part("id")))
        return visit.done(PATH, "The recording is deleted.")

    async def _delete_of_user(self, visit: Visit) -> web.StreamResponse:
        user = visit.form.demand("user", "Whose")
        demand_typed(visit.form, user)
        told = await visit.ask("DeleteRecordings", recordings_pb2.DeleteRecordingsRequest(user=user))
        return visit.done(PATH, f"{told.deleted:,} recordings of {user} are deleted.")

    # --- policies -------------------------------------------------------------------------------------------------------

    async def _policies(self, visit: Visit) -> web.StreamResponse:
        return await self._show_policies(visit, NO_DRAFTS)

    async def _show_policies(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ListRecordingPolicies", recordings_pb2.ListRecordingPoliciesRequest())
        return visit.page(
            "watch/policies.html",
            title="What is recorded",
            status=drafts.status,
            rows=policy_rows(told),
            drafts=drafts,
            policies=(*POLICIES, NONE_OF_ITS_OWN),
        )

    async def _set(self, visit: Visit) -> web.StreamResponse:
        policy = policy_of(visit.form)
        demand_sure(visit.form)
        await visit.ask("SetRecordingPolicy", recordings_pb2.SetRecordingPolicyRequest(policy=policy))
        return visit.done("/console/recording-policies", f"The policy of {policy.group or 'everybody'} is set.")
