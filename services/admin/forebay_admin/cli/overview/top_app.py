"""`forebay top` in a terminal: panes that renew themselves, and keys to look closer and to act. What stands in the panes is
`top_panes`'; what is asked and done, whoever opened it says."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Protocol

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Label, Static

from forebay.errors import ForebayError, NotAllowed, NotAuthenticated
from forebay_admin.cli.overview.top_panes import (
    BACKENDS,
    COLUMNS,
    NOTHING,
    REQUESTS,
    TITLES,
    Row,
    Seen,
    kept,
    panes,
    shown_columns,
)
from forebay_admin.cli.overview.top_picture import head

_NARROW_BELOW = 100
_LONGEST = 256
_HELP = """\
[bold]d[/bold]        drain the backend that is selected, or let it take requests again; asks first
[bold]e[/bold]        explain a request: the one that is selected, or one by its id
[bold]/[/bold]        show only rows with these words; empty shows all
[bold]Tab[/bold]      the next pane; arrows select a row
[bold]?[/bold]        this
[bold]q[/bold]        end, as does Ctrl-C

Streams are answers that gateways relay now. Requests are those that ended, as the ledger has them.
What does not answer is said on top; numbers are as old as the clock says."""


class Fleet(Protocol):
    """What a look needs. Each raises ForebayError."""

    async def look(self) -> Seen: ...
    async def drain(self, backend: str, reason: str, *, undo: bool) -> str:
        """What became of it, in a sentence."""
        ...

    async def explain(self, request_id: str) -> Sequence[RenderableType]: ...


class TopApp(App[None]):
    TITLE = "forebay top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; padding: 0 1; }
    #filter { display: none; height: 3; }
    #filter.open { display: block; }
    #panes { height: 1fr; }
    .pane { height: auto; padding: 0 1; }
    .pane Label { text-style: bold; color: $text-accent; }
    .pane DataTable { height: auto; max-height: 14; background: $background; }
    .pane DataTable:blur > .datatable--cursor { background: $background; }
    #backends:blur > .datatable--cursor { background: $panel; }
    .pane .nothing { color: $text-muted; }
    ModalScreen { align: center middle; }
    .box { width: 90%; max-width: 110; height: auto; max-height: 90%; }
    .box { border: round $accent; padding: 1 2; background: $surface; }
    .box .said { height: auto; max-height: 70%; }
    .box .hint { color: $text-muted; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "drain", "Drain"),
        Binding("e", "explain", "Explain"),
        Binding("slash", "filter", "Filter"),
        Binding("question_mark", "help", "Help"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, fleet: Fleet, first: Seen, every: float, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._fleet = fleet
        self._seen = first
        self._seen_at = clock()
        self._every = every
        self._clock = clock
        self._wanted = ""
        self._shown: dict[str, list[Row]] = {}
        self._away = ""
        self._is_narrow = False
        self.failure: ForebayError | None = None
        """With which it ended: we may not ask any more."""

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Input(placeholder="Only rows with these words", id="filter", max_length=_LONGEST)
        with VerticalScroll(id="panes", can_focus=False):
            for pane in TITLES:
                with Vertical(classes="pane", id=f"pane-{pane}"):
                    yield Label(TITLES[pane])
                    yield DataTable(id=pane, cursor_type="row", cursor_foreground_priority="renderable")
                    yield Static(NOTHING[pane], classes="nothing", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        # A terminal in raw mode sends no signal for Ctrl-C, but whoever sends one means the same.
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in this thread, or on this system
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.exit)
        self._is_narrow = self.size.width < _NARROW_BELOW
        self._lay_out()
        self.run_worker(self._keep_looking(), name="look")
        self._panes.query_one(f"#{BACKENDS}", DataTable).focus()

    def on_unmount(self) -> None:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def on_resize(self, event: Resize) -> None:
        was_narrow, self._is_narrow = self._is_narrow, event.size.width < _NARROW_BELOW
        if was_narrow != self._is_narrow:
            self._lay_out()

    @property
    def _panes(self) -> Screen[None]:
        """What lies below whatever is asked or said on top of it."""
        return self.screen_stack[0]

    # --- what is seen -------------------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                self._seen = await self._fleet.look()
            except (NotAuthenticated, NotAllowed) as error:
                self.failure = error
                self.exit()
                return
            except ForebayError as error:
                self._away = error.message  # what is shown gets old, and the clock says how old
            else:
                self._away, self._seen_at = "", self._clock()
            if not self.screen_stack or not self._panes.query("#head"):  # it is being closed
                return
            self._draw()

    def _lay_out(self) -> None:
        """Columns by the width."""
        selected = {pane: self._selected(pane) for pane in COLUMNS}
        for pane, titles in COLUMNS.items():
            table = self._panes.query_one(f"#{pane}", DataTable)
            table.clear(columns=True)
            for place in shown_columns(pane, narrow=self._is_narrow):
                # Columns that only carry a bar have no title, and a key of their own.
                title = titles[place].strip("#?")
                justify = "right" if titles[place].startswith("#") else "left"
                table.add_column(Text(title, justify=justify), key=str(place))  # type: ignore[arg-type]
        self._shown.clear()
        self._draw()
        for pane, key in selected.items():
            self._select(pane, key)

    def _draw(self) -> None:
        self._panes.query_one("#head", Static).update(self._head())
        for pane, rows in panes(self._seen, self._seen_at, narrow=self._is_narrow).items():
            self._fill(pane, kept(rows, self._wanted))

    def _head(self) -> Text:
        clock = time.strftime("%H:%M:%S", time.localtime(self._seen_at))
        lines = [f"[dim]{clock}[/dim]  {head(self._seen.picture)}"]
        if self._away:
            lines.append(f"[red]{escape(self._away)} This is as of {clock}.[/red]")
        lines += [f"[yellow]{escape(why)}[/yellow]" for why in self._seen.picture.unknown]
        if self._wanted:
            lines.append(f"[dim]Only rows with[/dim] {escape(self._wanted)}")
        return Text.from_markup("\n".join(lines))

    def _fill(self, pane: str, rows: list[Row]) -> None:
        """The row that is selected stays so, wherever it has gone."""
        if self._shown.get(pane) == rows:
            return
        table = self._panes.query_one(f"#{pane}", DataTable)
        selected = self._selected(pane)
        self._shown[pane] = rows
        table.clear()
        places = shown_columns(pane, narrow=self._is_narrow)
        for row in rows:
            cells = []
            for place in places:
                cell = Text.from_markup(row.cells[place])
                cell.no_wrap = True
                if COLUMNS[pane][place].startswith("#"):
                    cell.justify = "right"
                cells.append(cell)
            table.add_row(*cells)
        self._select(pane, selected)
        table.display = bool(rows)
        self._panes.query_one(f"#pane-{pane} .nothing", Static).display = not rows

    def _select(self, pane: str, key: str | None) -> None:
        keys = [row.key for row in self._shown.get(pane, [])]
        if key is not None and key in keys:
            self._panes.query_one(f"#{pane}", DataTable).move_cursor(row=keys.index(key), scroll=False)

    def _selected(self, pane: str) -> str | None:
        rows = self._shown.get(pane, [])
        place = self._panes.query_one(f"#{pane}", DataTable).cursor_row
        return rows[place].key if 0 <= place < len(rows) else None

    # --- keys ---------------------------------------------------------------------------------------------------------

    def action_help(self) -> None:
        self.push_screen(Said("Keys", [Text.from_markup(_HELP)]))

    def action_filter(self) -> None:
        field = self._panes.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self._wanted = event.value
            self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._close_filter()

    def on_key(self, event: object) -> None:
        if getattr(event, "key", "") == "escape" and self._panes.query_one("#filter", Input).has_class("open"):
            self._panes.query_one("#filter", Input).value = ""
            self._close_filter()

    def _close_filter(self) -> None:
        self._panes.query_one("#filter", Input).remove_class("open")
        self._panes.query_one(f"#{BACKENDS}", DataTable).focus()

    def action_drain(self) -> None:
        backend = self._selected(BACKENDS)
        if backend is None:
            self.notify("There is no backend to drain.", severity="warning")
            return
        is_drained = backend in self._seen.drained

        def answered(reason: str | None) -> None:
            if reason is not None:
                self.run_worker(self._drain(backend, reason, undo=is_drained), name="drain")

        if is_drained:
            title, text = f"Let {backend} take requests again?", "It is drained, or drains, by somebody's word."
        else:
            title, text = (
                f"Drain {backend}?",
                "It gets nothing new; what runs there goes on. It stays so until it is undone.",
            )
        self.push_screen(Asked(title, text, "" if is_drained else "Why (for those who wonder)"), answered)

    async def _drain(self, backend: str, reason: str, *, undo: bool) -> None:
        try:
            said = await self._fleet.drain(backend, reason, undo=undo)
        except ForebayError as error:
            self.notify(error.message, title="That was not done", severity="error", timeout=10, markup=False)
        else:
            self.notify(said, markup=False)

    def action_explain(self) -> None:
        if self._panes.query_one(f"#{REQUESTS}", DataTable).has_focus and (selected := self._selected(REQUESTS)):
            self.run_worker(self._explain(selected), name="explain")
            return

        def answered(request_id: str | None) -> None:
            if request_id and request_id.strip():
                self.run_worker(self._explain(request_id.strip()), name="explain")

        text = "The answer's header x-request-id, or a ledger id."
        self.push_screen(Asked("Explain which request?", text, "Its id"), answered)

    async def _explain(self, request_id: str) -> None:
        try:
            told = await self._fleet.explain(request_id)
        except ForebayError as error:
            told = [Text(error.message, style="yellow")]
        self.push_screen(Said(f"Request {request_id[:60]}", told))


class Said(ModalScreen[None]):
    """Something to read; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "Close")]

    def __init__(self, title: str, told: Sequence[RenderableType]) -> None:
        super().__init__()
        self._title = title
        self._told = told

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(self._title, markup=False)
            with VerticalScroll(classes="said"):
                for one in self._told:
                    yield Static(one)
            yield Static("Esc closes this.", classes="hint")


class Asked(ModalScreen[str | None]):
    """A question: Enter means it, Esc does not. Without a field it is a yes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it"), Binding("enter", "mean", "Do it")]

    def __init__(self, title: str, text: str, field: str) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._field = field

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(self._title, markup=False)
            yield Static(self._text, markup=False)
            if self._field:
                yield Input(placeholder=self._field, id="answer", max_length=_LONGEST)
            yield Static("Enter does it, Esc leaves it.", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value)

    def action_mean(self) -> None:
        self.dismiss("")

    def action_leave(self) -> None:
        self.dismiss(None)
