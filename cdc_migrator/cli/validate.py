"""`validate`: check the rules that rows must keep, on both sides; `validate init` proposes some."""

from __future__ import annotations

import sys
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import session, settings
from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.output import printer, to_json
from cdc_migrator.config.values import parse_duration
from cdc_migrator.errors import Refused

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.validating import Report, ValidateOptions

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules", metavar="FILE", help="The rules of this file, instead of those of the settings."
    ),
]
Tables = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only of tables that match, such as shop.*; repeatable."),
]


@app.callback(invoke_without_command=True)
def validate(
    ctx: typer.Context,
    rules: Rules = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only rules whose name matches; may be repeated."),
    ] = None,
    tables: Tables = None,
    aligned: Annotated[
        bool | None,
        typer.Option(
            "--aligned/--not-aligned",
            help="Judge both sides at one commit point, which `run` gives; default where it runs.",
        ),
    ] = None,
    show_values: Annotated[
        bool,
        typer.Option("--show-values", help="Name rows that break a rule; nothing of them is kept."),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with everything.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, for CI.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=32, metavar="N", help="Sessions on either side, for validate.workers."
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Of one statement, for validate.timeout; such as 5m."
        ),
    ] = None,
) -> None:
    """Check the rules that the rows of both sides must keep.

    A rule is a number of rows, columns that need a value, types, foreign keys, ranges, allowed
    values, duplicates, a condition, a query that returns the same on both sides, how recent the
    newest row is, or a spot check. They stand in migration.yaml under [bold]validate[/bold] or in
    the file that it names; [bold]validate init[/bold] proposes some, docs/validate.md explains
    each.

    While [bold]run[/bold] runs both sides are read at one commit point, so nothing that is only on
    its way breaks a rule. Otherwise each side is read as it is, the result says so, and what moves
    meanwhile may break a rule: stop writers, or give tolerances.

    It only reads, within validate.timeout a statement. What came of it is kept on the target, and
    [bold]readiness[/bold] asks for it: a blocker that is not kept stands against leaving the
    source. Values of rows are shown with [bold]--show-values[/bold] alone, and never kept.

    Exit code 0 when every blocker is kept, 1 when one is not, or could not be asked.

    Example: [bold]cdc-migrator validate --html rules.html --junit rules.xml[/bold]
    """
    if ctx.invoked_subcommand is not None:
        return
    from cdc_migrator.cli import validate_view as view
    from cdc_migrator.cli.reconcile_view import ProgressLine
    from cdc_migrator.service import validating as service

    out = printer(ctx)
    configured = settings(
        ctx, validate={"workers": workers, "timeout": _seconds(timeout) if timeout else None}
    )
    options = _options(ctx, configured, rules, only or [], tables or [], aligned, show_values)
    line = ProgressLine(out)
    try:
        report = service.run(
            options,
            lambda so_far: line.tell(
                f"{so_far.done} of {so_far.rules} rules, {so_far.not_kept} not kept"
            ),
        )
    finally:
        line.close()
    document = view.document(report, configured.name)
    _write(report, document, html, junit, out.say)
    out.data(document, lambda: view.view(document))
    if not report.aligned:
        out.say("`run` gave no commit point: each side was read as it is", style="yellow")
    if not report.passed:
        if not show_values:
            out.next("cdc-migrator validate --show-values", "names rows")
        raise typer.Exit(1)


def _options(
    ctx: typer.Context,
    configured: Settings,
    rules: Path | None,
    only: list[str],
    tables: list[str],
    aligned: bool | None,
    values: bool,
) -> ValidateOptions:
    from cdc_migrator.config import loader, rulebook
    from cdc_migrator.service.direction import direction
    from cdc_migrator.service.validating import ValidateOptions

    book = rulebook.read(configured.validate, loader.find(session(ctx).config), rules)
    source, target = configured.source.dsn_with_password(), configured.target.dsn_with_password()
    return ValidateOptions(
        configured.name,
        source,
        target,
        direction(configured.name, source, target),
        book.rules,
        book.place,
        only,
        tables,
        aligned,
        values,
        configured.validate.workers,
        configured.validate.timeout.total_seconds(),
        rulebook.in_force(configured.validate),
    )


def _write(
    report: Report,
    document: dict[str, Any],
    html: Path | None,
    junit: Path | None,
    say: Callable[[str], None],
) -> None:
    if html is not None:
        from cdc_migrator.cli.validate_page import page

        write_file(html, page(document).encode())
        say(f"written: {html}")
    if junit is not None:
        from cdc_migrator.cli.junit import junit_xml

        write_file(junit, junit_xml(report))
        say(f"written: {junit}")


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timeout") from None


@app.command()
def init(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to write; default: standard output."),
    ] = None,
    tables: Tables = None,
) -> None:
    """Propose rules from the source's catalog and from what its rows are like.

    Columns that need a value, keys, foreign keys, conditions and labels of enum types come from the
    catalog, as blockers. Bounds of numbers and dates, the values of texts that have few, and the
    column that says how recent a table is, come from the rows, as warnings: look at them. It reads
    each table about once, and writes commented YAML; values of rows are in it.

    A table whose columns change on the way (`mapping`) is left out: its rules are stated by the
    target's columns. A file that is there is never written over.

    Example: [bold]cdc-migrator validate init --output rules.yaml[/bold]
    """
    from cdc_migrator.service.proposing import ProposeOptions, propose

    configured = settings(ctx)
    if output is not None and output.exists():
        raise Refused(
            "CDCM-VALIDATE-FILE",
            f"{output} is there already",
            "Name another file with --output, or move it away.",
        )
    patterns = configured.tables
    # What else an entry says changes columns, or leaves rows out.
    mapped = [one.table for one in configured.mapping if one.model_fields_set - {"table", "to"}]
    changed = [one if one.endswith(".*") else escape(one) for one in mapped]
    text = propose(
        ProposeOptions(
            configured.name,
            configured.source.dsn_with_password(),
            tables or patterns.include,
            [*patterns.exclude, *changed],
            configured.validate.timeout.total_seconds(),
        )
    )
    out = printer(ctx)
    if mapped:
        out.say(f"left out, for their columns change on the way: {', '.join(mapped)}")
    if output is None:
        sys.stdout.write(text)
        return
    write_file(output, text.encode())
    out.say(f"written: {output}")
    out.next(f"cdc-migrator validate --rules {output}", "then name it in validate.file")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a file of rules.

    For editors and CI; that of migration.yaml, which may hold rules as well, is printed by
    [bold]config schema[/bold].

    Example: [bold]cdc-migrator validate schema[/bold]
    """
    from cdc_migrator.config.rules import RulesFile

    document = RulesFile.model_json_schema()
    sys.stdout.write(
        to_json(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                **document,
                "title": "cdc-migrator: rules",
            },
            indent=True,
        )
    )
