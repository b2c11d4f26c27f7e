"""`journal verify` on another machine, and files that are written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.main import main
from cdc_migrator.control import journal_file
from cdc_migrator.errors import Failed
from tests.support.evidence import BACKWARD, FORWARD, NOW

Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    write_file(path, b"".join(journal_file.dump("shop", "target", NOW, FORWARD.entries)))
    return path


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Verify:
    """The command, in a directory without a configuration: its exit code and document."""
    monkeypatch.chdir("/")

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["journal", "verify", *map(str, arguments), "-o", "json"])
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    return run


def test_files_are_verified_without_database_or_configuration(
    exported: Path, verify: Verify
) -> None:
    """Several at once; one that is wrong makes the whole wrong, and says where."""
    other = exported.with_name("back.jsonl")
    other.write_bytes(b"".join(journal_file.dump("shop_back", "source", NOW, BACKWARD.entries)))
    code, told = verify(exported, other)
    assert (code, told["whole"]) == (0, True)
    other.write_bytes(other.read_bytes().replace(b"ann@", b"eve@"))
    code, told = verify(exported, other)
    assert (code, told["whole"]) == (1, False)
    faults = [one["fault"] for one in told["journals"]]
    assert faults[0] is None
    assert faults[1]["entry"] == 1


def test_a_head_that_was_noted_finds_an_end_that_was_cut_off(
    exported: Path, verify: Verify
) -> None:
    """Also where header and entries fit together again."""
    assert verify(exported, "--head", FORWARD.entries[-1].hash)[0] == 0
    exported.write_bytes(b"".join(journal_file.dump("shop", "target", NOW, FORWARD.entries[:5])))
    assert verify(exported)[0] == 0
    assert verify(exported, "--head", FORWARD.entries[-1].hash)[0] == 1


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """And one that can stands in place of the one before."""
    write_file(tmp_path / "new" / "a.html", b"one")
    write_file(tmp_path / "new" / "a.html", b"two")
    assert (tmp_path / "new" / "a.html").read_bytes() == b"two"
    with pytest.raises(Failed) as caught:
        write_file(tmp_path / "new" / "a.html" / "b.html", b"three")
    assert caught.value.code == "CDCM-OUTPUT-FILE"
    with pytest.raises(Failed):
        write_file(tmp_path / "new", b"a directory is there")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["a.html"]
    assert [one.name for one in tmp_path.iterdir()] == ["new"]
