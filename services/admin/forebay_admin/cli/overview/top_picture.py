"""What `forebay top` shows of the fleet's picture: one line of the most important, then rows, in rich's markup. Pure; what
is not known is empty or a question mark, never zero."""

from __future__ import annotations

from rich.markup import escape

from forebay_admin.cli.words import coloured, count, gigabytes, milliseconds
from forebay_admin.fleet.picture import BackendNow, GpuNow, Picture, QueueNow
from forebay_admin.fleet.picture import picture as picture

BACKEND_COLUMNS = ("Backend", "Pool?", "State", "Slots", "", "#Inside", "#KV", "#Read/s", "#Write/s")
GPU_COLUMNS = ("GPU", "Model?", "Busy", "", "Memory", "", "#Heat", "#Power")
QUEUE_COLUMNS = ("User", "Pool", "Model", "Band", "#Waiting", "#Oldest")
"""# stands to the right, ? is left out where it is narrow. Read and written are tokens."""
_BAR, _NARROW_BAR = 10, 5
_GOOD_FROM, _HIGH_FROM = 0.7, 0.95


def backend_row(b: BackendNow, *, narrow: bool = False) -> tuple[str, ...]:
    """By BACKEND_COLUMNS."""
    slots = f"{b.held if b.held is not None else '?'} of {b.cap}"
    inside = "" if b.running is None else count(b.running) + (f" + {count(b.waiting)}" if b.waiting else "")
    return (
        escape(b.name),
        escape(b.pool),
        coloured(b.health),
        bar(b.held / b.cap if b.held is not None and b.cap else None, narrow=narrow),
        slots,
        inside,
        "" if b.kv_used_fraction is None else f"{b.kv_used_fraction:.0%}",
        _number(b.prompt_tokens_per_s),
        _number(b.completion_tokens_per_s),
    )


def gpu_row(g: GpuNow, *, narrow: bool = False) -> tuple[str, ...]:
    """By GPU_COLUMNS."""
    where = f"{escape(g.node)}/{g.index}"
    if g.error:
        return (where, escape(g.name), f"[red]{escape(g.error)}[/red]", "", "", "", "", "")
    has_memory = g.memory_used_bytes is not None and bool(g.memory_total_bytes)
    used = (g.memory_used_bytes or 0) / (g.memory_total_bytes or 1) if has_memory else None
    memory = f"{(g.memory_used_bytes or 0) / 1e9:.1f} of {gigabytes(g.memory_total_bytes or 0)}" if has_memory else ""
    return (
        where,
        escape(g.name),
        # A busy GPU is a good one; full memory is what leaves no room.
        bar(g.utilization_percent / 100 if g.utilization_percent is not None else None, is_good=True, narrow=narrow),
        "" if g.utilization_percent is None else f"{g.utilization_percent} %",
        bar(used, narrow=narrow),
        memory,
        "" if g.temperature_c is None else f"{g.temperature_c} °C",
        "" if g.power_w is None else f"{g.power_w:.0f} W",
    )


def queue_row(q: QueueNow) -> tuple[str, ...]:
    """By QUEUE_COLUMNS."""
    return (
        escape(q.user),
        escape(q.pool),
        escape(q.model),
        q.band,
        count(q.requests),
        milliseconds(q.oldest_ms),
    )


def head(p: Picture) -> str:
    """One line of the most important."""
    told = [
        f"[bold]{_known(p.running)}[/bold] of {_known(p.slots)} slots in use",
        f"[bold]{_known(p.waiting)}[/bold] waiting",
        f"reads [bold]{_rate(p.prompt_tokens_per_s)}[/bold]",
        f"writes [bold]{_rate(p.completion_tokens_per_s)}[/bold]",
        f"{_known(p.serving)} of {_known(None if p.serving is None else len(p.backends))} backends serve",
        f"{_known(p.gateways)} gateway{'' if p.gateways == 1 else 's'}",
    ]
    if p.alerts:
        told.append(f"[red]{p.alerts} alert{'' if p.alerts == 1 else 's'} open[/red]")
    return "   ".join(told)


def bar(share: float | None, *, is_good: bool = False, narrow: bool = False) -> str:
    """Ten places, or five; dots where nobody knows."""
    places = _NARROW_BAR if narrow else _BAR
    if share is None:
        return f"[dim]{'·' * places}[/dim]"
    full = min(places, max(0, round(share * places)))
    if share > 0 and full == 0:
        full = 1
    colour = "green" if is_good or share < _GOOD_FROM else "yellow" if share < _HIGH_FROM else "red"
    return f"[{colour}]{'█' * full}[/{colour}][dim]{'░' * (places - full)}[/dim]"


def _number(per_s: float | None) -> str:
    if per_s is None:
        return ""
    return f"{per_s:,.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}"


def _rate(tokens_per_s: float | None) -> str:
    return "?" if tokens_per_s is None else f"{_number(tokens_per_s)} tok/s"


def _known(number: int | None) -> str:
    return "?" if number is None else count(number)
