"""`init`: look at a source, write a commented migration.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr, ValidationError

from cdc_migrator.cli.acls import Users, print_acls
from cdc_migrator.cli.grants import Managed, configured, print_grants
from cdc_migrator.cli.output import Printer, printer
from cdc_migrator.config import secrets
from cdc_migrator.config.database import Database
from cdc_migrator.config.loader import FILE_NAME, STATE_DIR, environment_password, load
from cdc_migrator.config.starter import Found, Side, identity_text, text
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.model.naming import NAME_PATTERN

if TYPE_CHECKING:
    from rich.table import Table as View

    from cdc_migrator.databases.postgres.catalog import IdentityProblem
    from cdc_migrator.databases.postgres.grants import Part
    from cdc_migrator.model.tables import Table


def init(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            envvar="CDC_MIGRATOR_SOURCE__DSN",
            show_envvar=False,
            help="The database that the application writes to: postgresql://user@host:5432/database",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            envvar="CDC_MIGRATOR_TARGET__DSN",
            show_envvar=False,
            help="The database that it is to move to.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the migration. Default: the source database's name."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Tables to move, such as 'shop.*'. Default: all."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Tables to leave out, such as 'tmp.*'."),
    ] = None,
    file: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")] = Path(
        FILE_NAME
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    acls: Annotated[
        bool,
        typer.Option(
            "--acls",
            help="Write nothing: print the rights on Kafka (ACLs) that the migration of "
            "migration.yaml needs, as commands, or as data with -o json.",
        ),
    ] = False,
    service_user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="With --acls: our user. Default: sasl.username."),
    ] = None,
    worker_user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="With --acls: the Connect worker's user."),
    ] = None,
    worker_group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP", help="With --acls: group.id of the worker. Default: connect-cluster."
        ),
    ] = None,
    grants: Annotated[
        bool,
        typer.Option(
            "--grants",
            help="Print the SQL that makes roles with the least rights instead, on both servers: "
            "of the migration.yaml that there is, or of --source and --target.",
        ),
    ] = False,
    managed: Annotated[
        Managed,
        typer.Option(help="With --grants: whose managed service the servers are."),
    ] = Managed.NONE,
) -> None:
    """Look at a source and write a commented migration.yaml.

    Reads the source's catalog, lists the tables with their keys in the file, and warns of tables
    that cannot be captured as they are. Changes nothing in either database.

    A password is not written to the file. Give it as CDC_MIGRATOR_SOURCE__PASSWORD and
    CDC_MIGRATOR_TARGET__PASSWORD, PGPASSWORD or ~/.pgpass; one that stands in a DSN goes to a
    file of its own that only you can read, .cdc-migrator/source.password.

    Where tables move to other names of their own database, give it twice and say with --include
    which: the file has a mapping then, to be filled.

    With --grants it writes nothing and runs nothing: the SQL on stdout is for who administers the
    servers, and can be run again. [bold]cdc-migrator check[/bold] then looks at each grant.

    Example: cdc-migrator init --source postgresql://app@db1/shop --target postgresql://app@db2/shop
    """
    if acls:
        print_acls(ctx, Users(service_user, worker_user, worker_group))
        return
    from cdc_migrator.databases.postgres.catalog import identity_problems, read_tables

    if grants:
        _grants(ctx, source, target, include, exclude or (), managed)
        return
    file = file.resolve()
    if file.exists() and not force:
        raise Refused(
            "CDCM-CONFIG-EXISTS",
            f"{file} is there already",
            "Name another file with --file, or replace it with --force.",
        )
    sides = _both(source, target)
    within = _same_place(sides)
    if within and not include:
        raise _one_database("say with --include which tables of it move to another name")
    chosen = name or _name_from(sides["source"])
    if not re.fullmatch(NAME_PATTERN, chosen):
        raise typer.BadParameter(f"must match {NAME_PATTERN}", param_hint="--name")
    out = printer(ctx)
    with _connect("source", sides["source"]) as conn:
        server = _server(conn, "source")
        tables = read_tables(conn, include, exclude or ())
        problems = identity_problems(conn, tables)
    target_server = _look_at_target(sides["target"], out)
    files = _write_passwords(file, sides)
    found = Found(
        name=chosen,
        source=_side("source", sides["source"], files, server),
        target=_side("target", sides["target"], files, target_server),
        tables=tables,
        include=include or (),
        exclude=exclude or (),
        problems=[(str(p.table), p.reason, p.remedy) for p in problems],
        within=within,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text(found), encoding="utf-8")
    load(file)  # a file that we wrote ourselves must be right
    _tell(out, file, chosen, tables, problems, files)


def _grants(
    ctx: typer.Context,
    source: str | None,
    target: str | None,
    include: list[str] | None,
    exclude: Sequence[str],
    managed: Managed,
) -> None:
    if source is not None or target is not None:
        sides = _both(source, target)
        if _same_place(sides):
            raise _one_database("have the roles of migration.yaml printed, without --source")
        print_grants(ctx, sides, include, exclude, managed, way_back=True)
        return
    databases, found = configured(ctx)
    chosen = (include or found.tables.include, exclude or found.tables.exclude)
    way_back = found.cutover.without_way_back is None
    wanted = tuple(one.wanted() for one in found.mapping)
    print_grants(ctx, databases, *chosen, managed, way_back, wanted)


def _both(source: str | None, target: str | None) -> dict[Part, Database]:
    return {"source": _database("source", source), "target": _database("target", target)}


def _database(side: str, dsn: str | None) -> Database:
    if dsn is None:
        raise typer.BadParameter("is needed", param_hint=f"--{side}")
    try:
        return Database(dsn=SecretStr(dsn), password=environment_password(side))
    except ValidationError as error:
        message = str(error.errors(include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise typer.BadParameter(message, param_hint=f"--{side}") from None


def _same_place(sides: Mapping[Part, Database]) -> bool:
    places = [
        (p.get("host", ""), p.get("port", "5432"), p.get("dbname") or p.get("user", ""))
        for p in (side.parameters() for side in sides.values())
    ]
    return places[0] == places[1]


def _one_database(otherwise: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-CONFIG-SAME-DATABASE",
        "source and target are the same database",
        f"Give the target's own connection string with --target; or {otherwise}.",
    )


def _name_from(source: Database) -> str:
    parameters = source.parameters()
    database = parameters.get("dbname") or parameters.get("user") or ""
    return re.sub(r"[^a-z0-9_]+", "_", database.lower()).strip("_0123456789")[:40] or "migration"


def _connect(side: str, database: Database) -> Any:
    from cdc_migrator.databases.postgres.connect import connect

    return connect(
        database.dsn_with_password(),
        application_name="cdc-migrator init",
        side=side,
        read_only=True,
    )


def _server(conn: Any, side: str) -> str:
    from cdc_migrator.databases.postgres.catalog import server_facts

    facts = server_facts(conn)
    level = f", wal_level {facts.wal_level}" if side == "source" else ""
    role = "The database the application writes to now" if side == "source" else "Where it moves to"
    return f"{role}: PostgreSQL {facts.version}{level}."


def _look_at_target(target: Database, out: Printer) -> str:
    """The target may be made later: that it does not answer yet is told, not refused."""
    try:
        with _connect("target", target) as conn:
            return _server(conn, "target")
    except (Failed, Refused) as error:
        out.say(f"warning {error.code}: {error.cause}", style="yellow")
        return "Where it moves to; it could not be reached when this file was written."


def _write_passwords(file: Path, sides: Mapping[Part, Database]) -> dict[str, Path]:
    """Put the passwords that stand in a DSN into files of their own."""
    written: dict[str, Path] = {}
    for side, database in sides.items():
        password = secrets.parse_dsn(database.dsn.get_secret_value()).get("password")
        if password:
            path = file.parent / STATE_DIR / f"{side}.password"
            secrets.write_secret_file(path, password)
            # So that nobody commits it by accident.
            (path.parent / ".gitignore").write_text("*\n", encoding="utf-8")
            written[side] = path
    return written


def _side(name: str, database: Database, files: dict[str, Path], server: str) -> Side:
    return Side(
        dsn=database.public_dsn,
        password_file=f"{STATE_DIR}/{name}.password" if name in files else None,
        variable=f"CDC_MIGRATOR_{name.upper()}__PASSWORD",
        server=server,
    )


def _tell(
    out: Printer,
    file: Path,
    name: str,
    tables: list[Table],
    problems: list[IdentityProblem],
    files: dict[str, Path],
) -> None:
    document = {
        "file": str(file),
        "migration": name,
        "tables": [
            {
                "table": str(table.name),
                "estimated_rows": table.estimated_rows,
                "bytes": table.bytes,
                "key": list(table.key),
                "replica_identity": table.replica_identity.name.lower(),
            }
            for table in tables
        ],
        "problems": [
            {"table": str(p.table), "reason": p.reason, "remedy": p.remedy} for p in problems
        ],
        "password_files": {side: str(path) for side, path in files.items()},
    }
    out.data(document, lambda: _view(tables))
    for problem in problems:
        out.say(f"warning: {problem.table}: {problem.reason}", style="yellow")
        out.say(f"  on the source: {problem.remedy};")
    for side, path in files.items():
        out.say(f"the {side}'s password went to {path}, which only you can read")
    out.say(f"wrote {file}")
    out.next("cdc-migrator check", "are both databases ready?")


def _view(tables: list[Table]) -> View:
    from rich.table import Table as View

    view = View(box=None, pad_edge=False, header_style="dim")
    view.add_column("table", overflow="fold")
    view.add_column("rows (estimate)", justify="right")
    view.add_column("size", justify="right")
    view.add_column("rows told apart by")
    for table in tables:
        view.add_row(
            str(table.name),
            f"{table.estimated_rows:,}",
            f"{table.bytes / (1 << 20):,.1f} MiB",
            identity_text(table),
        )
    return view
