"""The manifests are valid, ask for no more than they need, and fit the service that they run."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cdc_migrator.config.secrets import parse_dsn, read_secret_file
from cdc_migrator.config.settings import Settings
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.service import runner
from tests.support.deployed import (
    IMAGE,
    KUBERNETES,
    ROOT,
    documents,
    health,
    image_environment,
    said,
    settings,
    understood,
)

SIDECAR = KUBERNETES / "sidecar" / "patch.yaml"
EXAMPLES = {"secret.example.yaml"}
HEAD = "prometheusrule.head.yaml"
# What a StatefulSet of the user's looks like to the patch.
SOURCE_SERVER = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: source}
spec:
  serviceName: source
  selector: {matchLabels: {app: source}}
  template:
    metadata: {labels: {app: source}}
    spec:
      containers: [{name: postgres, image: "postgres:18.6"}]
      volumes: [{name: data, emptyDir: {}}]
"""


def merged(below: Any, above: Any) -> Any:
    """A strategic merge, as far as the patch uses it: lists of named things are joined."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: merged(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **both}
    return below + above if isinstance(below, list) else above


def manifests() -> dict[str, dict[str, Any]]:
    """Each object by its file; the sidecar as it is once it is patched in."""
    found = {}
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name not in ("kustomization.yaml", HEAD):
            (found[str(path.relative_to(KUBERNETES))],) = documents(path)
    patch = str(SIDECAR.relative_to(KUBERNETES))
    found[patch] = merged(yaml.safe_load(SOURCE_SERVER), found[patch])
    return found


MANIFESTS = manifests()


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The specification of the pods that an object makes."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return found


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """File, pod and our container in it."""
    for name, manifest in MANIFESTS.items():
        pod = pod_of(manifest)
        if pod is not None:
            every = [*pod.get("initContainers", ()), *pod["containers"]]
            (ours,) = [one for one in every if one["image"] == "cdc-migrator"]
            yield name, pod, ours


PODS = {name: (pod, ours) for name, pod, ours in pods()}
(CONFIGURATION,) = [one for one in MANIFESTS.values() if one["kind"] == "ConfigMap"]
DEPLOYMENT = MANIFESTS["deployment.yaml"]


def configured(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the service as it runs in that pod."""
    variables = {one["name"]: one["value"] for one in PODS[name][1].get("env", ())}
    text = CONFIGURATION["data"]["migration.yaml"]
    return settings(text, variables, directory, monkeypatch)


@pytest.mark.parametrize(
    "name", [n for n, m in MANIFESTS.items() if "coreos" not in m["apiVersion"]]
)
def test_each_manifest_is_valid(name: str) -> None:
    """By Kubernetes' own schemas, without a key that they do not know."""
    checker = pytest.importorskip("kubernetes_validate", reason="make setup installs it")
    checker.validate(copy.deepcopy(MANIFESTS[name]), "1.33", strict=True)


def test_each_manifest_is_applied_by_one_kustomization() -> None:
    """None is forgotten; examples and what other operators read are applied by hand."""
    listed = []
    for path in KUBERNETES.rglob("kustomization.yaml"):
        (one,) = documents(path)
        listed += [str((path.parent / x).relative_to(KUBERNETES)) for x in one["resources"]]
        assert one["namespace"] == MANIFESTS["namespace.yaml"]["metadata"]["name"]
        assert [image["name"] for image in one["images"]] == ["cdc-migrator"]
    by_hand = {n for n in MANIFESTS if n.startswith(("sidecar/", "monitoring/"))} | EXAMPLES
    assert sorted(listed) == sorted(set(MANIFESTS) - by_hand)


@pytest.mark.parametrize("name", PODS)
def test_no_container_may_more_than_it_needs(name: str) -> None:
    """The restricted profile: another user than root, nothing to write to, no capability."""
    pod, ours = PODS[name]
    given = {**pod.get("securityContext", {}), **ours["securityContext"]}
    assert given["runAsNonRoot"] is True
    assert f"{given['runAsUser']}:{given['runAsGroup']}" == said(IMAGE, "USER")
    assert given["seccompProfile"] == {"type": "RuntimeDefault"}
    assert given["allowPrivilegeEscalation"] is False
    assert given["readOnlyRootFilesystem"] is True
    assert given["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in ours["resources"]["limits"]
    assert {"cpu", "memory"} <= set(ours["resources"]["requests"])
    if not name.startswith("sidecar/"):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("name", PODS)
def test_the_configuration_fits_the_product(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loader takes file and environment, its command line the verb; it can read what it must
    and write where it will."""
    pod, ours = PODS[name]
    found = configured(name, tmp_path, monkeypatch)
    understood(ours["args"])
    mounted = {one["mountPath"]: one for one in ours["volumeMounts"]}
    assert {one["name"] for one in ours["volumeMounts"]} <= {one["name"] for one in pod["volumes"]}
    written = {str(found.state_dir), str(found.apply.spill_dir), "/tmp"}
    assert found.connect is not None
    if "reconcile" not in name:  # it makes no connector
        written.add(str(found.connect.secrets_dir))
    for path in written:
        assert not mounted[path].get("readOnly"), path
    read = {Path(image_environment()["CDC_MIGRATOR_CONFIG"]).parent}
    for side in (found.source, found.target):
        assert side.password_file is not None
        assert side.sslrootcert is not None
        read |= {side.password_file.parent, side.sslrootcert.parent}
    for directory in read:
        assert mounted[str(directory)]["readOnly"] is True


def test_secrets_are_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No password in a ConfigMap or an environment; in the repository none at all."""
    for name in PODS:
        found = configured(name, tmp_path, monkeypatch)
        for side in (found.source, found.target):
            assert side.password is None
            assert "password" not in parse_dsn(side.dsn.get_secret_value())
            assert side.sslmode in ("verify-full", "verify-ca")
    example = MANIFESTS["secret.example.yaml"]
    assert set(example["stringData"].values()) == {"CHANGE-ME"}
    secrets = [name for name, one in MANIFESTS.items() if one["kind"] == "Secret"]
    assert secrets == sorted(EXAMPLES)
    wanted = {found.source.password_file, found.target.password_file}
    wanted |= {found.source.sslrootcert, found.target.sslrootcert}
    assert {one.name for one in wanted if one} == set(example["stringData"])


@pytest.mark.parametrize("name", PODS)
def test_a_mounted_password_has_a_mode_that_the_product_takes(name: str, tmp_path: Path) -> None:
    """The default of a Secret's files is refused: everybody may read them."""
    (volume,) = [one["secret"] for one in PODS[name][0]["volumes"] if "secret" in one]
    assert volume["secretName"] == MANIFESTS["secret.example.yaml"]["metadata"]["name"]
    file = tmp_path / "password"
    file.write_text("not-shown")
    file.chmod(volume["defaultMode"])
    assert read_secret_file(file) == "not-shown"
    file.chmod(0o644)
    with pytest.raises(ConfigurationError):
        read_secret_file(file)


@pytest.mark.parametrize("name", [name for name, (_, ours) in PODS.items() if "ports" in ours])
def test_probes_ask_what_the_service_answers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its port, at paths that it knows; what restarts it asks no dependency."""
    ours = PODS[name][1]
    served = configured(name, tmp_path, monkeypatch).service
    (port,) = ours["ports"]
    assert port["containerPort"] == served.http_port
    assert served.http_host == "0.0.0.0"
    probes = {key: one["httpGet"] for key, one in ours.items() if key.endswith("Probe")}
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert probes["livenessProbe"]["path"] == "/livez"
    with health() as own:
        for probe in probes.values():
            answer = httpx.get(f"http://127.0.0.1:{own}{probe['path']}", trust_env=False)
            assert answer.status_code == 200
    with health(idle=3600) as own:
        stuck = httpx.get(f"http://127.0.0.1:{own}/livez", trust_env=False)
        assert stuck.status_code == 503


def test_one_writes() -> None:
    """One Deployment runs the service, one pod of it at a time, and no Job does."""
    writers = [name for name, (_, ours) in PODS.items() if ours["args"] == ["run"]]
    assert writers == ["deployment.yaml", "sidecar/patch.yaml"]
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}
    for name, (_, ours) in PODS.items():
        assert ours["args"] != ["migrate"], f"{name}: without --no-run it would run on"


def test_a_sidecar_does_not_take_the_source_along() -> None:
    """It is one, and neither its start nor its health is a condition of the server's."""
    ours = PODS["sidecar/patch.yaml"][1]
    assert ours["restartPolicy"] == "Always"
    assert ours in PODS["sidecar/patch.yaml"][0]["initContainers"]
    assert "readinessProbe" not in ours
    assert "startupProbe" not in ours


def test_stopping_leaves_time_for_the_batch_under_way() -> None:
    """More than the service itself takes; and a drain is not held up."""
    grace = PODS["deployment.yaml"][0]["terminationGracePeriodSeconds"]
    assert grace >= runner._STOP_SECONDS + 15
    budget = MANIFESTS["poddisruptionbudget.yaml"]["spec"]
    assert budget["maxUnavailable"] >= DEPLOYMENT["spec"]["replicas"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_a_job_is_tried_again_only_where_that_can_help() -> None:
    """Not after the exit codes that name a remedy; a comparison never."""
    spec = MANIFESTS["jobs/migrate.yaml"]["spec"]
    by_code, by_disruption = spec["podFailurePolicy"]["rules"]
    useless = {ConfigurationError.exit_code, Refused.exit_code}
    assert set(by_code["onExitCodes"]["values"]) == useless
    assert Failed.exit_code not in useless
    assert by_code["action"] == "FailJob"
    assert by_code["onExitCodes"]["containerName"] == PODS["jobs/migrate.yaml"][1]["name"]
    assert by_disruption["action"] == "Ignore"
    nightly = MANIFESTS["jobs/reconcile.yaml"]["spec"]
    assert nightly["concurrencyPolicy"] == "Forbid"
    assert nightly["jobTemplate"]["spec"]["backoffLimit"] == 0
    for name in ("jobs/migrate.yaml", "jobs/reconcile.yaml"):
        assert PODS[name][0]["restartPolicy"] == "Never"


def test_metrics_are_found_and_let_through() -> None:
    """Monitor to Service to pod, by names that are there; the policy covers each of our pods."""
    service = MANIFESTS["service.yaml"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    (exposed,) = service["spec"]["ports"]
    (port,) = PODS["deployment.yaml"][1]["ports"]
    assert (exposed["targetPort"], exposed["port"]) == (port["name"], port["containerPort"])
    assert service["spec"]["selector"].items() <= labels.items()
    monitor = MANIFESTS["monitoring/servicemonitor.yaml"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == exposed["name"]
    with health() as own:
        answer = httpx.get(f"http://127.0.0.1:{own}{endpoint['path']}", trust_env=False)
        assert answer.status_code == 200
    policy = MANIFESTS["networkpolicy.yaml"]["spec"]
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["name"]}]
    covered = policy["podSelector"]["matchLabels"]
    for name, manifest in MANIFESTS.items():
        if name in PODS and not name.startswith("sidecar/"):
            spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
            assert covered.items() <= spec["template"]["metadata"]["labels"].items()


def test_the_policy_lets_the_service_reach_what_it_is_configured_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Databases, Kafka and Connect, by their ports, and names."""
    found = configured("deployment.yaml", tmp_path, monkeypatch)
    assert found.kafka is not None
    assert found.connect is not None
    wanted = {
        int(parse_dsn(x.dsn.get_secret_value())["port"]) for x in (found.source, found.target)
    }
    wanted |= {int(found.kafka.bootstrap_servers.rpartition(":")[2])}
    wanted |= {*(httpx.URL(url).port or 80 for url in found.connect.url), 53}
    rules = MANIFESTS["networkpolicy.yaml"]["spec"]["egress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == wanted


def test_the_rules_of_the_operator_are_those_of_the_product() -> None:
    """Made by the command of the README, from the one file that holds them."""
    text = (KUBERNETES / "README.md").read_text()
    (command,) = re.findall(r"^(\{ cat .*?\}) \| kubectl", text, re.M | re.S)
    made = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (rule,) = yaml.safe_load_all(made.stdout)
    rules = ROOT / "deploy" / "alerts" / "cdc-migrator.rules.yaml"
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load(rules.read_text())
