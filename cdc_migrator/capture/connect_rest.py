"""Kafka Connect's REST interface: one method a request, and the patience that each one needs.

A worker that is rebalancing answers 409 and one that has only just stored a connector answers
404: both are waited for here and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from cdc_migrator.clients.connect import WorkerSession
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Workers
from cdc_migrator.model.traces import summary


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """What Connect says of a connector; `trace` is the redacted reason of a failure, or ''."""

    state: str
    tasks: tuple[str, ...]
    trace: str

    @property
    def failed(self) -> bool:
        """A connector can be RUNNING while its task has FAILED."""
        return self.state == "FAILED" or "FAILED" in self.tasks

    @property
    def running(self) -> bool:
        """The connector and at least one task run."""
        return self.state == "RUNNING" and bool(self.tasks) and set(self.tasks) == {"RUNNING"}


@dataclass(frozen=True, slots=True)
class Plugin:
    """A connector plug-in of the worker."""

    name: str
    version: str


class ConnectClient:
    """A session with a cluster of Connect workers; use it as a context manager.

    Every method raises what `WorkerSession.request` does, and Refused CDCM-CONNECT-REJECTED when
    a worker answers with an error of its own.

    Args:
        patience: seconds to wait out a rebalance.
    """

    def __init__(self, workers: Workers, patience: float = 60.0, timeout: float = 15.0) -> None:
        self._workers = workers
        self._http = WorkerSession(workers, timeout)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._http.close()

    def called(self, names: Names) -> str:
        """The name of a stream's connector."""
        return self._workers.connector(names)

    def version(self) -> str:
        """The worker's Kafka version."""
        return str(self._json("GET", "/")["version"])

    def plugins(self) -> list[Plugin]:
        """The connector plug-ins that the worker has."""
        return [
            Plugin(p["class"], p.get("version") or "")
            for p in self._json("GET", "/connector-plugins")
        ]

    def validate(self, plugin: str, config: Mapping[str, str]) -> dict[str, list[str]]:
        """The worker's objections to a configuration, by setting; empty if there are none."""
        answer = self._json(
            "PUT",
            f"/connector-plugins/{quote(plugin)}/config/validate",
            json={**config, "connector.class": plugin},
            timeout=60.0,
        )
        values = [entry["value"] for entry in answer["configs"]]
        return {v["name"]: v["errors"] for v in values if v["errors"]}

    def names(self) -> list[str]:
        """All connectors of the worker's cluster."""
        return list(self._json("GET", "/connectors"))

    def config(self, name: str) -> dict[str, str] | None:
        """A connector's stored configuration, or None if there is no such connector."""
        return self._json("GET", f"/connectors/{quote(name)}/config", absent=None)  # type: ignore[no-any-return]

    def create_stopped(self, name: str, config: Mapping[str, str]) -> None:
        """Store a new connector without starting it."""
        body = {"name": name, "config": dict(config), "initial_state": "STOPPED"}
        self._json("POST", "/connectors", json=body, timeout=60.0)

    def put_config(self, name: str, config: Mapping[str, str]) -> None:
        """Change a connector's configuration; its tasks start anew with it."""
        self._json("PUT", f"/connectors/{quote(name)}/config", json=dict(config), timeout=60.0)

    def status(self, name: str) -> ConnectorStatus | None:
        """How a connector and its tasks are, or None if Connect knows nothing of it (yet)."""
        answer = self._json("GET", f"/connectors/{quote(name)}/status", absent=None)
        if answer is None:
            return None
        connector, tasks = answer["connector"], answer["tasks"]
        traces = [t.get("trace", "") for t in (connector, *tasks) if t["state"] == "FAILED"]
        return ConnectorStatus(
            connector["state"],
            tuple(task["state"] for task in tasks),
            summary(next(iter(traces), "")),
        )

    def restart_failed(self, name: str) -> None:
        """Start the failed instances of a connector again."""
        self._json(
            "POST",
            f"/connectors/{quote(name)}/restart",
            params={"includeTasks": "true", "onlyFailed": "true"},
            absent=None,
        )

    def resume(self, name: str) -> None:
        """Let a stopped or paused connector run."""
        self._json("PUT", f"/connectors/{quote(name)}/resume")

    def stop(self, name: str) -> bool:
        """End a connector's tasks and keep its configuration; False if there is no connector."""
        return self._json("PUT", f"/connectors/{quote(name)}/stop", absent=False) is not False

    def offsets(self, name: str) -> list[Any]:
        """The source offsets that Connect keeps for a connector; empty before its first event."""
        answer = self._json("GET", f"/connectors/{quote(name)}/offsets", absent={"offsets": []})
        return list(answer["offsets"])

    def reset_offsets(self, name: str) -> None:
        """Forget a stopped connector's offsets, if it has any.

        Waits for its tasks to end: Connect refuses while one of them still runs. It also fails
        on a connector that has never run and whose offsets were reset before, which is why it
        is not asked where there is nothing to forget.
        """
        deadline = time.monotonic() + self._patience
        while self.offsets(name):
            try:
                self._json("DELETE", f"/connectors/{quote(name)}/offsets", timeout=60.0)
                return
            except Refused:
                status = self.status(name)
                if time.monotonic() > deadline or status is None or status.state != "STOPPED":
                    raise
                time.sleep(0.3)

    def delete(self, name: str) -> bool:
        """Remove a connector; False if there was none. Its tasks end a moment later."""
        return self._json("DELETE", f"/connectors/{quote(name)}", absent=False) is not False

    def _json(self, method: str, path: str, *, absent: Any = ..., **kwargs: Any) -> Any:
        """The decoded answer; `absent` in place of a 404, where it is given."""
        deadline = time.monotonic() + self._patience
        while True:
            answer = self._http.request(method, path, **kwargs)
            rebalancing = answer.status_code == 409 and "rebalance" in answer.text.lower()
            starting = answer.status_code == 503
            if not (rebalancing or starting) or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        if answer.status_code == 404 and absent is not ...:
            return absent
        if answer.is_error:
            raise Refused(
                "CDCM-CONNECT-REJECTED",
                f"Kafka Connect answered {answer.status_code} to {method} {path}: "
                f"{_reason(answer)}",
                "Correct what it names; the worker's log says more.",
            )
        return answer.json() if answer.content else None


def _reason(answer: httpx.Response) -> str:
    try:
        return summary(str(answer.json().get("message", "")))
    except ValueError:
        return "no reason given"
