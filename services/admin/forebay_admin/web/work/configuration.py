"""`/console/configuration`: the fleet that is wanted as a file, every version that it had, how two of them differ, and
a file applied with its plan shown first."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import BadInput, ForebayError, NotFound
from forebay.wire.v1 import audit_pb2, fleet_pb2
from forebay_admin.fleet.fleet_file import FleetFile, read_fleet_file, write_fleet_file
from forebay_admin.web.forms import WrongField
from forebay_admin.web.policy import HEADERS
from forebay_admin.web.visit import Visit, Visits
from forebay_admin.web.work.configuration_view import Problem, Version, changes_of, diff_of, problems_of, versions_of

_HERE = "/console/configuration"
_VERSIONS = 25
_MOST_AUDITED = 1000
_MOST_VERSION = 2**63 - 1


class ConfigurationPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(_HERE, self._history, call="ShowFleetVersions"),
            get(f"{_HERE}/fleet", self._fleet, call="ExportFleet"),
            get(f"{_HERE}/fleet.yaml", self._file, call="ExportFleet"),
            get(f"{_HERE}/diff", self._diff, call="ExportFleet"),
            get(f"{_HERE}/versions/{{number}}", self._version, call="ShowFleetVersions"),
            get(f"{_HERE}/apply", self._form, call="ApplyFleet"),
            post(f"{_HERE}/plan", self._plan, call="ApplyFleet"),
            post(f"{_HERE}/edit", self._edit, call="ApplyFleet"),
            post(f"{_HERE}/apply", self._apply, call="ApplyFleet"),
        ]

    async def _history(self, visit: Visit) -> web.StreamResponse:
        before = _number(visit.query.get("before", ""), "before") if visit.query.get("before") else 0
        request = fleet_pb2.ShowFleetVersionsRequest(limit=_VERSIONS + 1, before_version=before)
        told = await visit.ask_or_none("ShowFleetVersions", request)
        versions: tuple[Version, ...] = ()
        if told is not None:
            more = len(told.versions) > _VERSIONS
            del told.versions[_VERSIONS:]
            versions = versions_of(told, await self._audited(visit, told))
        return visit.page(
            "work/configuration.html",
            title="Configuration",
            versions=versions,
            newest=versions[0].number if versions and not before else 0,
            before=before,
            next_href=f"{_HERE}?before={versions[-1].number}" if versions and more else "",
        )

    async def _fleet(self, visit: Visit) -> web.StreamResponse:
        number = _number(visit.query["version"], "version") if visit.query.get("version") else None
        told = await visit.ask("ExportFleet", fleet_pb2.ExportFleetRequest(version=number))
        return visit.page(
            "work/configuration_fleet.html",
            title=f"The fleet at version {told.version}",
            version=told.version,
            is_newest=number is None,
            text=write_fleet_file(told.fleet),
            declared=tuple(told.declared),
        )

    async def _file(self, visit: Visit) -> web.StreamResponse:
        number = _number(visit.query["version"], "version") if visit.query.get("version") else None
        told = await visit.ask("ExportFleet", fleet_pb2.ExportFleetRequest(version=number))
        return web.Response(
            text=f"# The fleet at version {told.version}.\n{write_fleet_file(told.fleet)}",
            content_type="application/yaml",
            headers={**HEADERS, "content-disposition": f'attachment; filename="fleet-{told.version}.yaml"'},
        )

    async def _version(self, visit: Visit) -> web.StreamResponse:
        number = _number(visit.part("number"), "number")
        request = fleet_pb2.ShowFleetVersionsRequest(limit=1, before_version=min(number + 1, _MOST_VERSION))
        told = await visit.ask("ShowFleetVersions", request)
        if not told.versions or told.versions[0].version != number:
            raise NotFound(f"There is no version {number} of the fleet.")
        (version,) = versions_of(told, await self._audited(visit, told))
        return visit.page("work/configuration_version.html", title=f"Version {number}", version=version)

    async def _diff(self, visit: Visit) -> web.StreamResponse:
        wrong: ForebayError | None = None
        diff, asked = None, {name: visit.query.get(name, "")[:20] for name in ("a", "b")}
        try:
            texts = [await self._text(visit, name, asked[name]) for name in ("a", "b")]
        except (BadInput, NotFound) as error:
            wrong = error
        else:
            diff = diff_of(*texts)
        return visit.page(
            "work/configuration_diff.html",
            title="Differences between versions",
            status=200 if wrong is None else 400,
            asked=asked,
            diff=diff,
            wrong=wrong,
            wrong_name=wrong.name if isinstance(wrong, WrongField) else "a",
        )

    async def _text(self, visit: Visit, name: str, number: str) -> str:
        """Of a version; where none is named, of the newest. Raises WrongField."""
        version = _number(number, name) if number else None
        try:
            told = await visit.ask("ExportFleet", fleet_pb2.ExportFleetRequest(version=version))
        except (BadInput, NotFound) as error:
            raise WrongField(name, error.message) from error
        # How pools place requests and the aliases of models are in the newest alone, so they are no difference.
        for pool in told.fleet.pools:
            for field in ("placement", "sticky", "locality_window"):
                pool.ClearField(field)
        for model in told.fleet.models:
            model.ClearField("aliases")
        return write_fleet_file(told.fleet) if told.fleet.ByteSize() else ""

    # --- a file applied ---

    async def _form(self, visit: Visit) -> web.StreamResponse:
        text = ""
        if visit.query.get("version"):
            number = _number(visit.query["version"], "version")
            told = await visit.ask("ExportFleet", fleet_pb2.ExportFleetRequest(version=number))
            text = write_fleet_file(told.fleet)
        return _file_page(visit, text, is_pruned=bool(visit.query.get("prune")))

    async def _edit(self, visit: Visit) -> web.StreamResponse:
        """Back from the plan, with the file as it was."""
        return _file_page(visit, visit.form.raw("file"), is_pruned=visit.form.is_ticked("prune"))

    async def _plan(self, visit: Visit) -> web.StreamResponse:
        text, is_pruned = visit.form.raw("file"), visit.form.is_ticked("prune")
        file = read_fleet_file(text)
        problems = problems_of(file)
        if problems:
            return _file_page(visit, text, problems, is_pruned=is_pruned)
        request = fleet_pb2.ApplyFleetRequest(wanted=file.spec, prune=is_pruned, dry_run=True)
        planned = await visit.ask("ApplyFleet", request)
        if planned.problems:
            return _file_page(visit, text, problems_of(file, planned.problems), is_pruned=is_pruned)
        return visit.page(
            "work/configuration_plan.html",
            title="What this would change",
            text=text,
            is_pruned=is_pruned,
            version=planned.version,
            changes=changes_of(planned.changes),
            notes=tuple(planned.notes),
        )

    async def _apply(self, visit: Visit) -> web.StreamResponse:
        text, is_pruned = visit.form.raw("file"), visit.form.is_ticked("prune")
        base = visit.form.whole("version", most=_MOST_VERSION)
        file: FleetFile = read_fleet_file(text)
        if problems := problems_of(file):
            return _file_page(visit, text, problems, is_pruned=is_pruned)
        request = fleet_pb2.ApplyFleetRequest(wanted=file.spec, prune=is_pruned, base_version=base)
        done = await visit.ask("ApplyFleet", request)
        if done.problems:
            return _file_page(visit, text, problems_of(file, done.problems), is_pruned=is_pruned)
        said = f"The fleet is at version {done.version}." if done.changes else "The fleet was so already."
        return visit.done(_HERE, said)

    async def _audited(self, visit: Visit, told: fleet_pb2.ShowFleetVersionsResponse) -> list[audit_pb2.AuditEntry]:
        """What the audit log says of the time in which these were made, for those who may read it."""
        if not told.versions or not visit.may_all("ListAudit"):
            return []
        span = [one.at_us for one in told.versions]
        request = audit_pb2.ListAuditRequest(
            from_us=min(span) - 10_000_000, to_us=max(span) + 10_000_000, limit=_MOST_AUDITED
        )
        answer = await visit.ask_or_none("ListAudit", request)
        return list(answer.entries) if answer is not None else []


def _file_page(visit: Visit, text: str, problems: list[Problem] | None = None, *, is_pruned: bool) -> web.Response:
    return visit.page(
        "work/configuration_apply.html",
        title="Apply a fleet file",
        status=400 if problems else 200,
        text=text,
        problems=problems or [],
        is_pruned=is_pruned,
    )


def _number(text: str, name: str) -> int:
    """Of a version. Raises WrongField."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise WrongField(name, f"A version is a whole number, and not {text[:30]!r}.")
    return int(text)
