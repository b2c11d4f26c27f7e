"""The command line: verbs, shared options, how failures end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from cdc_migrator.cli import main
from cdc_migrator.cli.main import VERBS, Verb, load_verb
from cdc_migrator.errors import Failed, MigratorError, Refused

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app:hunter2@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
"""


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    with pytest.raises(SystemExit) as end:
        main.main(list(args))
    printed = capsys.readouterr()
    return int(end.value.code or 0), printed.out, printed.err


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in [name for name in os.environ if name.startswith("CDC_MIGRATOR_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "migration.yaml").write_text(MINIMAL)
    return tmp_path


def leaves(command: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        return [(path, command)]
    found = []
    for name, inner in command.commands.items():
        found += leaves(inner, f"{path} {name}")
    return found


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_loads_and_explains_itself(verb: Verb) -> None:
    """A summary in one line and a paragraph for each command, an example for each verb."""
    command = load_verb(verb)
    assert command.name == verb.name
    told = str(command.help)
    for path, leaf in leaves(command, verb.name):
        summary, *rest = (leaf.help or "").split("\n\n")
        assert summary.endswith("."), path
        assert len(summary) <= 100, path
        assert rest, f"{path}: a paragraph"
        told += leaf.help or ""
        options = {option for parameter in leaf.params for option in parameter.opts}
        assert {"--config", "--set", "--verbose", "--no-color"} <= options, path
    assert f"cdc-migrator {verb.name}" in told, "an example"


def test_help_imports_no_verb() -> None:
    """So that it is quick: no driver, no client, no settings library."""
    program = (
        "import sys\n"
        "from cdc_migrator.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'psycopg', 'pydantic', 'confluent_kafka', 'httpx', 'structlog'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb.summary.split()[0] in done.stdout


def test_a_misspelt_verb_names_the_near_one(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error ends with 2."""
    code, out, err = run(capsys, "statsu")
    assert (code, out) == (2, "")
    assert "Did you mean 'status'?" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("CDCM-X-FAILED", "it broke", "mend it"), 1),
        (Refused("CDCM-X-REFUSED", "it will not", "ask it"), 3),
        (KeyboardInterrupt(), 130),
        (KeyError("hunter2"), 1),
    ],
)
def test_each_failure_has_its_exit_code(
    workdir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    """A coded error tells code, cause and remedy on stderr; an unexpected one not its own text."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("cdc_migrator.config.loader.load", fail)
    ended, out, err = run(capsys, "config", "show")
    assert (ended, out) == (code, "")
    assert "hunter2" not in err
    if isinstance(error, MigratorError):
        assert f"error {error.code}: {error.cause}" in err
        assert f"remedy: {error.remedy}" in err
    elif isinstance(error, KeyError):
        assert "CDCM-INTERNAL: an unexpected KeyError" in err
    ended, out, err = run(capsys, "config", "show", "-o", "json")
    assert (ended, out) == (code, "")
    if isinstance(error, Exception):
        document = json.loads(err)
        assert document["schema_version"] == 1
        assert set(document["error"]) == {"code", "cause", "remedy"}


def test_shared_options_hold_before_and_after_the_verb(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--config`, `--set` and `-o` mean the same in both places."""
    other = workdir / "other.yaml"
    other.write_text(MINIMAL.replace("shop", "other", 1))
    for args in (
        ("--config", str(other), "--set", "load.workers=7", "--json", "config", "show"),
        ("config", "show", "--config", str(other), "--set", "load.workers=7", "-o", "json"),
        ("--config", str(other), "config", "--json", "show", "--set", "load.workers=7"),
    ):
        code, out, err = run(capsys, *args)
        assert (code, err) == (0, "")
        shown = json.loads(out)
        assert (shown["name"], shown["load"]["workers"]) == ("other", 7)
        assert next(iter(shown)) == "schema_version"


def test_a_malformed_assignment_is_a_usage_error(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a well-formed one of an unknown key is told like one in the file."""
    assert run(capsys, "--set", "load.workers", "config", "show")[0] == 2
    code, _, err = run(capsys, "--set", "load.wrokers=1", "config", "check")
    assert code == 2
    assert "did you mean load.workers?" in err


def test_config_shows_no_password(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In none of the three forms."""
    for form in ("table", "json", "yaml"):
        code, out, err = run(capsys, "config", "show", "-o", form)
        assert code == 0
        assert "postgresql://app@db1/shop" in out
        assert "hunter2" not in out + err


def test_config_check_and_schema(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A right file ends with 0, a wrong one with 2; the schema is JSON."""
    assert json.loads(run(capsys, "config", "check", "--json")[1])["valid"] is True
    assert json.loads(run(capsys, "config", "schema")[1])["properties"]["name"]
    (workdir / "migration.yaml").write_text(MINIMAL + "aply: {}\n")
    code, out, err = run(capsys, "config", "check")
    assert (code, out) == (2, "")
    assert "migration.yaml:4" in err


def test_colour_is_only_for_terminals_that_want_it(workdir: Path) -> None:
    """No escape sequence in a pipe, and the options agree with NO_COLOR."""
    command = [sys.executable, "-m", "cdc_migrator.cli.main"]
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    for args in (["status", "--help"], ["--no-color", "config", "show"]):
        done = subprocess.run(
            [*command, *args], check=False, capture_output=True, env=env, cwd=workdir
        )
        assert done.returncode == 0
        assert b"\x1b[" not in done.stdout + done.stderr
