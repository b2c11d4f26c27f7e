"""The status document as people read it. Draws only what the document says; unknown is a dash."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.wording import amount, lasting

UNKNOWN = "–"
_SHOWN = 20
# Less is told by the machine-readable document alone.
_SKEW_SECONDS = 0.1


def view(whole: dict[str, Any]) -> RenderableType:
    """Verdict, phases, facts and tables, then what is wrong."""
    parts: list[RenderableType] = [_phases(whole), _facts(whole)]
    if whole["tables"]:
        parts += [Text(), _tables(whole["tables"])]
    missing = (whole["not_added"] or {}).get("tables")
    if missing:
        told = ", ".join(missing[:_SHOWN]) + (" …" if missing[_SHOWN:] else "")
        parts += [Text(), Text(f"not part of the migration: {told}", style="yellow")]
        parts.append(Text(f"remedy: `{whole['not_added']['remedy']}` adds them, or exclude them"))
    for loss in (whole["ground"] or {}).get("lost", ()):
        parts += [Text(), Text(f"lost {loss['code']}: {loss['cause']}", style="bold red")]
        parts.append(Text(f"remedy: {loss['remedy']}"))
    failed = (whole["connector"] or {}).get("failure")
    if failed:
        told = f"connector {failed['code']}: {failed['cause']}"
        parts += [Text(), Text(told, style="bold red"), Text(f"remedy: {failed['remedy']}")]
    error = whole["last_error"]
    if error:
        parts += [Text(), Text(f"last error {error.get('code', '')}: {_cause(error)}", style="red")]
        if error.get("remedy"):
            parts.append(Text(f"remedy: {error['remedy']}"))
    parts += [Text(), _verdict(whole)]
    return Group(*parts)


def one_line(whole: dict[str, Any]) -> str:
    """The same in a line, for a log."""
    load, rates = whole["load"] or {}, whole["rates"]
    return (
        f"{whole['sampled_at'][11:19]} {whole['migration']}: {whole['phase']}"
        f", loaded {percent(load.get('done_fraction'))}"
        f", lag {seconds(whole['lag_seconds'])}, {_pending(whole)} events pending"
        f", {number(rates['events_per_second'])} events/s"
        f", slot keeps {size((whole['slot'] or {}).get('retained_bytes'))}"
        f", {_service(whole)}"
    )


def _phases(whole: dict[str, Any]) -> Text:
    strip = Text(f"{whole['migration']}  ", style="bold")
    reached = Phase(whole["phase"]) if whole["phase"] else None
    for phase in Phase:
        if phase is not Phase.CREATED:
            strip.append(" → ", style="dim")
        if phase is reached:
            strip.append(f"[{phase}]", style="bold green")
        else:
            past = reached is not None and reached.reached(phase)
            strip.append(str(phase), style="green" if past else "dim")
    return strip


def _facts(whole: dict[str, Any]) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    load, slot, connector = whole["load"], whole["slot"], whole["connector"]
    if load and whole["phase"] != Phase.STREAM:
        left = load["seconds_left"]
        told = f", about {seconds(left)} left" if left else ""
        facts.add_row(
            "load",
            f"{percent(load['done_fraction'])}, {load['tables_loaded']} of {load['tables']} "
            f"tables{told}",
        )
    facts.add_row("lag", _lag(whole))
    if whole["catch_up"] and whole["catch_up"]["seconds"] != 0:
        facts.add_row("catch-up", _catch_up(whole["catch_up"]))
    rates = whole["rates"]
    facts.add_row(
        "applied",
        f"{number(rates['transactions_per_second'])} transactions/s, "
        f"{number(rates['events_per_second'])} events/s{_counts(whole['transactions'])}",
    )
    facts.add_row("service", _service(whole))
    facts.add_row("content", _content(whole))
    if whole["parked"] and not whole["parked"]["exact"]:
        facts.add_row("kept back", Text(_parked(whole["parked"]), style="red"))
    if whole["without_way_back"]:
        facts.add_row("not back", f"{', '.join(whole['without_way_back'])}: `back: none`")
    facts.add_row("slot", _slot(slot))
    retained = (whole["ground"] or {}).get("retained_wal") or {}
    if retained.get("told"):
        facts.add_row("", Text(retained["told"], style="yellow"))
    facts.add_row("connector", _connector(connector))
    facts.add_row("topic", _retention(whole["retention"]))
    facts.add_row("fence", _fence(whole))
    for side, server in whole["servers"].items():
        facts.add_row(side, _server(server))
    ahead = whole["clocks"]["target_ahead_seconds"]
    if ahead is not None and abs(ahead) >= _SKEW_SECONDS:
        told = "ahead of" if ahead > 0 else "behind"
        facts.add_row("clocks", f"the target's is {seconds(abs(ahead))} {told} the source's")
    for waiver in whole["accepted"]:
        facts.add_row("accepted", Text(f"{waiver['code']}: {waiver['reason']}", style="yellow"))
    for note in whole["notes"]:
        facts.add_row("unknown", Text(f"{note['part']}: {note['cause']}", style="yellow"))
    return facts


def _fence(whole: dict[str, Any]) -> Text:
    """Whether others can write to the target's tables."""
    state, lacking = whole["target_fence"], whole["target_fence_lacking"]
    if state is None:
        return Text(UNKNOWN)
    if state != "partial":
        return Text(f"{state}: others {'cannot' if state == 'up' else 'can'} write to the target")
    told = ", ".join(lacking[:_SHOWN]) + (" …" if lacking[_SHOWN:] else "")
    return Text(f"not on {told}", style="yellow")


def _tables(tables: list[dict[str, Any]]) -> Table:
    view = Table(box=None, pad_edge=False, header_style="dim")
    view.add_column("table", overflow="fold")
    for heading in ("load", "rows loaded", "inserted", "updated", "deleted", "truncated"):
        view.add_column(heading, justify="right")
    for table in tables:
        name = table["source"]
        if table["target"] != name:
            name = f"{name} → {table['target']}"
        view.add_row(
            name,
            f"being added: {table['joining']}" if table["joining"] else table["load_state"],
            number(table["rows_loaded"]),
            *(number(table[k] or None) for k in ("inserts", "updates", "deletes", "truncates")),
        )
    return view


def _verdict(whole: dict[str, Any]) -> RenderableType:
    ready = whole["ready"]
    if ready["verdict"]:
        return Text("safe to switch over: yes", style="bold green")
    lines = [Text("safe to switch over: no, because", style="bold")]
    lines += [Text(f"  {reason}") for reason in ready["reasons"]]
    return Group(*lines)


def _cause(error: dict[str, Any]) -> str:
    return str(error.get("cause", "no cause was kept"))


def _pending(whole: dict[str, Any]) -> str:
    bound = "" if whole["lag_events_exact"] or whole["lag_events"] is None else "at most "
    return bound + number(whole["lag_events"])


def _lag(whole: dict[str, Any]) -> str:
    told = f"{seconds(whole['lag_seconds'])}, {_pending(whole)} events pending"
    stages = whole["stages"]
    if stages["capture_seconds"] is not None:
        told += (
            f"; into Kafka {seconds(stages['capture_seconds'])}"
            f", out {seconds(stages['delivery_seconds'])}"
        )
    return told


def _catch_up(catch_up: dict[str, Any]) -> str:
    left = catch_up["seconds"]
    return (
        f"{'does not catch up' if left is None else f'in {seconds(left)}'}"
        f" at {number(catch_up['records_applied_per_second'])} records/s applied"
        f", {number(catch_up['records_arriving_per_second'])} arriving"
    )


def _counts(transactions: dict[str, int] | None) -> str:
    if not transactions:
        return ""
    told = f"; {number(transactions['applied'])} transactions so far"
    if transactions["redelivered"]:
        told += f", {number(transactions['redelivered'])} came again"
    if transactions["suspect"]:
        told += f", {number(transactions['suspect'])} not proven whole"
    return told


def _service(whole: dict[str, Any]) -> str:
    service = whole["service"]
    if service is None:
        return UNKNOWN
    if not service["running"]:
        seen = service.get("seen_seconds_ago")
        told = f", last seen {seconds(seen)} ago" if seen is not None else ""
        return f"does not run{told} (start it with `cdc-migrator run`)"
    waiting = f" ({service['waiting']})" if service["waiting"] else ""
    return f"{service['state']}{waiting}, {service['owner']}, {size(service['rss_bytes'])} resident"


def _content(whole: dict[str, Any]) -> str:
    known = whole["reconcile"]
    if known is None:
        return UNKNOWN
    proven = whole["verified_as_of"]
    told = f"verified as of {proven[:19].replace('T', ' ')}" if proven else "not verified yet"
    told += f", {number(known['open'])} rows differ" if known["open"] else ""
    told += f", {number(known['chunks_dirty'])} of {number(known['chunks'])} chunks changed since"
    return told + (f"; `run`: {known['continuous']}" if known["continuous"] else "")


def _parked(parked: dict[str, Any]) -> str:
    told = []
    if parked["keys"]:
        told.append(f"{number(parked['records'])} records of {number(parked['keys'])} keys")
    if parked["keys_skipped"]:
        told.append(f"{number(parked['keys_skipped'])} keys given up")
    return f"{', '.join(told)}: the target is not exact (`cdc-migrator dead-letters list`)"


def _slot(slot: dict[str, Any] | None) -> str:
    if slot is None:
        return UNKNOWN
    if not slot["exists"]:
        return f"{slot['name']} does not exist"
    safe = f", {size(slot['safe_bytes'])} to the limit" if slot["safe_bytes"] is not None else ""
    if slot["seconds_to_limit"] is not None:
        safe += f" ({seconds(slot['seconds_to_limit'])} at {size(slot['wal_bytes_per_second'])}/s)"
    active = "active" if slot["active"] else "NOT active"
    return f"{slot['name']} {active}, keeps {size(slot['retained_bytes'])} of log{safe}"


def _connector(connector: dict[str, Any] | None) -> str:
    if connector is None:
        return UNKNOWN
    if not connector["exists"]:
        return f"{connector['name']} does not exist"
    tasks = ", ".join(connector["tasks"]) or "none"
    why = f": {connector['trace']}" if connector["trace"] else ""
    if connector["restarts"]:
        why = f", started again {number(connector['restarts'])} times{why}"
    return f"{connector['name']} {connector['state']}, tasks: {tasks}{why}"


def _retention(retention: dict[str, Any] | None) -> str:
    if retention is None:
        return UNKNOWN
    if retention["unlimited"]:
        return "deletes nothing"
    limits = [
        f"what is older than {seconds(retention['seconds'])}"
        if retention["seconds"] is not None
        else "",
        f"what is beyond {size(retention['bytes'])}" if retention["bytes"] is not None else "",
        "older records of a key" if retention["compacted"] else "",
    ]
    left = retention["seconds_left"]
    told = f"; the next record is kept for {seconds(left)} at least" if left is not None else ""
    return f"DELETES {', '.join(filter(None, limits))}{told}"


def _server(server: dict[str, Any] | None) -> str:
    if server is None:
        return UNKNOWN
    told = (
        f"{number(server['connections'])} of {number(server['max_connections'])} connections"
        f", database {size(server['database_bytes'])}"
    )
    if server["lock_waiters"]:
        told += (
            f", waits for locks: {number(server['lock_waiters'])}"
            f", the longest {seconds(server['lock_wait_seconds'])}"
        )
    return told


def number(value: float | None) -> str:
    """With thin groups: ``12 345``, or a dash for None."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", " ")


def percent(fraction: float | None) -> str:
    """``12.3 %``, or a dash for None."""
    return UNKNOWN if fraction is None else f"{fraction * 100:.1f} %"


def seconds(value: float | None) -> str:
    """``85 ms``, ``12.3 s``, ``4 min 5 s``, ``2 h 3 min``, or a dash for None."""
    return UNKNOWN if value is None else lasting(value)


def size(value: float | None) -> str:
    """``812 B``, ``3.4 MiB``, or a dash for None."""
    return UNKNOWN if value is None else amount(value)
