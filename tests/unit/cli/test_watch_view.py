"""The rules and what has fired, as people see them."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from cdc_migrator.cli.watch import view
from tests.support.samples import NOW, WATCHED


def shown(**changes: Any) -> str:
    document: dict[str, Any] = {
        "migration": "shop",
        "open": True,
        "watching": True,
        "settling": False,
        "rules": list(WATCHED),
        "firings": [],
    }
    console = Console(width=160)
    with console.capture() as captured:
        console.print(view({**document, **changes}))
    return captured.get()


def test_each_rule_tells_its_number_and_how_it_stands() -> None:
    """With what could not be done, and why a number cannot be judged."""
    text = shown()
    assert text.startswith("the target is open and watched")
    errors, latency = (
        line.split() for line in text.splitlines() if " rollback " in line or " alert " in line
    )
    assert errors[:9] == ["error_rate", "0.04", "above", "0.01", "30", "s", "rollback", "fired",
                          "2026-01-02T03:04:05"]  # fmt: skip
    assert "CDCM-WATCH-NO-WAY-BACK:" in errors
    assert latency[:7] == ["latency", "3.5", "?", "30", "s", "alert", "unknown"]


def test_the_first_line_says_whether_anybody_watches() -> None:
    """An open target that nobody watches is told as such."""
    assert shown(open=False, watching=False).startswith("the target is not open")
    assert "nobody watches it: start cdc-migrator run" in shown(watching=False)
    assert "no rule counts yet" in shown(settling=True)


def test_measured_on_the_spot_each_number_is_judged() -> None:
    """Also where nobody watches, so that rules can be tried before."""
    row = {**WATCHED[0], "state": None, "since": None, "error": None}
    for beyond, told in ((True, "beyond"), (False, "fine"), (None, "unknown")):
        assert f" {told} " in shown(open=False, rules=[{**row, "beyond": beyond}])


def test_what_has_fired_says_what_came_of_it() -> None:
    """Told, gone back, failed, or still due."""
    firing = {
        "at": NOW,
        "rule": "level",
        "number": 11.0,
        "threshold": 10.0,
        "below": False,
        "for_seconds": 30.0,
        "action": "rollback",
        "acted_at": NOW,
        "error": None,
    }
    line = "2026-01-02 03:04:05 level fired: 11, above 10 for 30 s; "
    for changes, end in (
        ({}, "went back"),
        ({"action": "alert"}, "told"),
        ({"acted_at": None}, "rollback is due"),
        ({"acted_at": None, "error": {"code": "CDCM-X"}}, "rollback failed (CDCM-X)"),
    ):
        assert line + end in shown(firings=[{**firing, **changes}])
