"""`forebay top` with its panes and keys, driven as a terminal would; and what stands in the panes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from rich.console import RenderableType
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from forebay.errors import NotAllowed, NotFound, Unavailable
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, registry_pb2, scheduler_pb2, telemetry_pb2, types_pb2, usage_pb2
from forebay_admin.cli.overview.top_app import Asked, Said, TopApp
from forebay_admin.cli.overview.top_panes import (
    BACKENDS,
    COLUMNS,
    GPUS,
    NODES,
    QUEUE,
    REQUESTS,
    STREAMS,
    Seen,
    kept,
    panes,
    seen,
    shown_columns,
)
from forebay_admin.fleet.picture import picture

LEDGER_ID = new_ledger_id(1_800_000_000.0)
NOW = 1_800_000_100.0
WIDE, NARROW = (140, 50), (80, 24)


def looked(*backends: str, draining: str = "", waiting: int = 0, unknown: Sequence[str] = ()) -> Seen:
    many = [
        registry_pb2.Backend(
            id=f"id-{name}",
            name=name,
            enabled=True,
            slots=4,
            pool="default",
            health=registry_pb2.BACKEND_HEALTH_HEALTHY,
            draining=name == draining,
        )
        for name in backends
    ]
    host = telemetry_pb2.HostSample(cpu_percent=12.0, load_1m=1.5, memory_total_bytes=64 * 10**9)
    gpu = telemetry_pb2.GpuSample(index=0, name="H100", utilization_percent=50)
    sample = telemetry_pb2.TelemetrySample(host=host, gpus=[gpu], agent_version="1.2")
    nodes = [registry_pb2.Node(name="box[red]", heard_at_us=round((NOW - 3) * 1e6), last_sample=sample)]
    queue = admin_pb2.ViewQueueResponse(
        queue=scheduler_pb2.ShowQueueResponse(
            waiting=[scheduler_pb2.QueuedUser(user_id=f"user-{n}", model="llama", requests=1) for n in range(waiting)],
            gateways=[scheduler_pb2.GatewaySession(gateway="gw-1", connected=True, running=7)],
        )
    )
    request = usage_pb2.UsageRecord(
        ledger_id=LEDGER_ID,
        request_id="req-1",
        model="llama",
        outcome=types_pb2.OUTCOME_FAILED,
        reason="engine_failed",
        started_at_us=round((NOW - 60) * 1e6),
        usage=types_pb2.TokenUsage(prompt_tokens=10, completion_tokens=5),
    )
    return seen(picture(queue, many, nodes, [], unknown), queue, many, nodes, [request])


class FakeFleet:
    """Answers with what it was told, and keeps what was asked of it."""

    def __init__(self, first: Seen) -> None:
        self.next = first
        self.looks = 0
        self.asked: list[tuple[str, ...]] = []
        self.fails: Exception | None = None

    async def look(self) -> Seen:
        self.looks += 1
        if self.fails is not None:
            raise self.fails
        return self.next

    async def drain(self, backend: str, reason: str, *, undo: bool) -> str:
        self.asked.append(("undrain" if undo else "drain", backend, reason))
        if self.fails is not None:
            raise self.fails
        return f"{backend} gets nothing new; nothing runs there."

    async def explain(self, request_id: str) -> Sequence[RenderableType]:
        self.asked.append(("explain", request_id))
        if request_id == "gone":
            raise NotFound("The scheduler remembers no request gone.")
        return [Text("It is ended.")]


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await pilot.pause(0.02)


def names(app: TopApp, pane: str) -> list[str]:
    table = app.query_one(f"#{pane}", DataTable)
    return [str(table.get_row_at(place)[0]) for place in range(table.row_count)]


def on_top(app: TopApp) -> str:
    return str(app.query_one("#head", Static).render())


# --- what stands in the panes -----------------------------------------------------------------------------------------


def test_each_row_has_a_cell_for_each_column_and_a_name_to_be_found_by() -> None:
    shown = panes(looked("a", waiting=1), NOW, narrow=False)
    assert {pane: len(rows) for pane, rows in shown.items()} == dict.fromkeys(COLUMNS, 1)
    assert all(len(row.cells) == len(COLUMNS[pane]) for pane, rows in shown.items() for row in rows)
    assert shown[REQUESTS][0].key == str(UUID(bytes=LEDGER_ID))
    assert shown[NODES][0].cells[:4] == ("box\\[red]", "3 s ago", "12 %", "1.5"), "a name is no markup"
    assert shown[STREAMS][0].cells[3] == "7"
    assert "engine_failed" in shown[REQUESTS][0].cells[3]


def test_a_node_that_is_silent_looks_so_and_one_that_never_spoke_is_told_as_such() -> None:
    look = looked("a")
    assert "[yellow]33 s ago" in panes(look, NOW + 30, narrow=False)[NODES][0].cells[1]
    new = Seen(look.picture, nodes=[registry_pb2.Node(name="new", without_agent=True)])
    assert panes(new, NOW, narrow=False)[NODES][0].cells == (
        "new",
        "[yellow]never[/yellow]",
        "",
        "",
        "",
        "",
        "[yellow]described, without an agent[/yellow]",
    )


def test_a_filter_wants_all_its_words_whatever_their_case() -> None:
    rows = panes(looked("Big-GPU", "small"), NOW, narrow=False)[BACKENDS]
    assert [row.key for row in kept(rows, "gpu HEALTHY")] == ["Big-GPU"]
    assert kept(rows, "gpu offline") == []
    assert len(kept(rows, "  ")) == 2


def test_narrow_terminals_leave_some_columns_out() -> None:
    assert len(shown_columns(BACKENDS, narrow=True)) == len(shown_columns(BACKENDS, narrow=False)) - 1


# --- the terminal -----------------------------------------------------------------------------------------------------


async def test_panes_show_what_there_is_and_renew_themselves() -> None:
    fleet = FakeFleet(looked("a", "b"))
    app = TopApp(fleet, fleet.next, every=0.05, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        assert names(app, BACKENDS) == ["a", "b"]
        assert names(app, GPUS) == ["box[red]/0"]
        assert names(app, STREAMS) == ["gw-1"]
        assert "slots in use" in on_top(app)
        assert not app.query_one(f"#{QUEUE}", DataTable).display, "an empty pane says that it is, in a line"
        fleet.next = looked("a", "b", "c", waiting=2, unknown=["The registry is [away]."])
        await until(pilot, lambda: names(app, BACKENDS) == ["a", "b", "c"])
        assert names(app, QUEUE) == ["user-0", "user-1"]
        assert "The registry is [away]." in on_top(app)


async def test_the_selected_row_stays_selected_wherever_it_goes() -> None:
    fleet = FakeFleet(looked("b", "c"))
    app = TopApp(fleet, fleet.next, every=0.05, clock=lambda: NOW)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("down")
        fleet.next = looked("a", "b", "c")
        await until(pilot, lambda: names(app, BACKENDS) == ["a", "b", "c"])
        assert app.query_one(f"#{BACKENDS}", DataTable).cursor_row == 2


async def test_a_look_that_fails_leaves_the_last_one_and_says_how_old_it_is() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=0.05, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        fleet.fails = Unavailable("Nothing answers at [here].")
        await until(pilot, lambda: "Nothing answers at [here]." in on_top(app))
        assert "This is as of " in on_top(app)
        assert names(app, BACKENDS) == ["a"]
        fleet.fails = None
        await until(pilot, lambda: "Nothing answers" not in on_top(app))


async def test_whoever_may_not_look_any_more_is_shown_out_with_the_reason() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=0.05, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        fleet.fails = NotAllowed("Your key was revoked.")
        await until(pilot, lambda: not app.is_running)
    assert app.failure is fleet.fails


async def test_draining_asks_first_and_tells_what_became_of_it() -> None:
    fleet = FakeFleet(looked("a", "b"))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("down", "d")
        await until(pilot, lambda: isinstance(app.screen, Asked))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Asked))
        assert fleet.asked == [], "left, and nothing done"
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Asked))
        await pilot.press(*"new", "enter")
        await until(pilot, lambda: bool(fleet.asked))
        assert fleet.asked == [("drain", "b", "new")]
        await until(pilot, lambda: any("gets nothing new" in told.message for told in app._notifications))


async def test_a_drained_backend_is_let_take_requests_again() -> None:
    fleet = FakeFleet(looked("a", draining="a"))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Asked))
        assert not app.screen.query(Input), "a yes is enough"
        await pilot.press("enter")
        await until(pilot, lambda: bool(fleet.asked))
        assert fleet.asked == [("undrain", "a", "")]


async def test_what_may_not_be_done_is_said_and_nothing_breaks() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=NARROW) as pilot:
        fleet.fails = NotAllowed("bob may not [do] this.")
        await pilot.press("d", "enter")
        await until(pilot, lambda: any("may not [do] this" in told.message for told in app._notifications))
        assert app.is_running
    empty = FakeFleet(looked())
    app = TopApp(empty, empty.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=NARROW) as pilot:
        await pilot.press("d")
        await until(pilot, lambda: any("no backend" in told.message for told in app._notifications))
        assert empty.asked == []


async def test_a_request_is_explained_by_its_id_or_as_the_selected_one() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Asked))
        await pilot.press(*"gone", "enter")
        await until(pilot, lambda: isinstance(app.screen, Said))
        assert "remembers no request" in "".join(str(one.render()) for one in app.screen.query(Static))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Said))
        app.query_one(f"#{REQUESTS}", DataTable).focus()
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Said))
        assert fleet.asked == [("explain", "gone"), ("explain", str(UUID(bytes=LEDGER_ID)))]


async def test_a_filter_narrows_all_panes_and_is_taken_away_again() -> None:
    fleet = FakeFleet(looked("big", "small", waiting=1))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("slash", *"big", "enter")
        await until(pilot, lambda: names(app, BACKENDS) == ["big"])
        assert names(app, QUEUE) == []
        assert "Only rows with big" in on_top(app)
        await pilot.press("slash", "escape")
        await until(pilot, lambda: names(app, BACKENDS) == ["big", "small"])
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Said))
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, Said))
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)


async def test_it_goes_on_renewing_itself_below_what_is_read() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=0.05, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Said))
        looks = fleet.looks
        fleet.next = looked("a", "b")
        await until(pilot, lambda: fleet.looks >= looks + 3)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Said))
        assert names(app, BACKENDS) == ["a", "b"]


async def test_another_width_is_laid_out_anew() -> None:
    fleet = FakeFleet(looked("a"))
    app = TopApp(fleet, fleet.next, every=60, clock=lambda: NOW)
    async with app.run_test(size=WIDE) as pilot:
        table = app.query_one(f"#{BACKENDS}", DataTable)
        wide = len(table.columns)
        await pilot.resize_terminal(*NARROW)
        await until(pilot, lambda: len(table.columns) == wide - 1)
        assert names(app, BACKENDS) == ["a"]
