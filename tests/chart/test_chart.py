"""The chart as helm renders it: restricted pods, least rights, values that are checked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.paths import BIN, REPOSITORY

CHART = REPOSITORY / "charts" / "tonnage"
HELM = BIN / "helm"
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def helm() -> Path:
    """helm, built with the cluster's other programs."""
    from harness.lifecycle import build_binaries

    build_binaries("helm")
    return HELM


def template(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(helm), "template", "tonnage", str(CHART), "--namespace", "tonnage-system", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def rendered(helm: Path, *arguments: str) -> list[dict[str, Any]]:
    done = template(helm, *arguments)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def one(bodies: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [body for body in bodies if body["kind"] == kind]
    return found


def test_the_operator_is_restricted(helm: Path) -> None:
    pod = one(rendered(helm), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "volumes" not in pod


def test_the_rights_hold_no_secret_no_wildcard_and_no_escalation(helm: Path) -> None:
    bodies = rendered(helm)
    rules = one(bodies, "ClusterRole")["rules"] + one(bodies, "Role")["rules"]
    resources = {resource for rule in rules for resource in rule["resources"]}
    verbs = {verb for rule in rules for verb in rule["verbs"]}
    assert not resources & {"secrets", "*", "roles", "clusterroles", "serviceaccounts", "pods/exec"}
    assert verbs <= {"get", "list", "watch", "create", "patch", "update", "delete"}
    writable = {r for rule in rules for r in rule["resources"] if {"patch", "create"} & set(rule["verbs"])}
    assert not writable & {"pods", "nodes", "llmdeployments"}


def test_the_crd_is_the_generated_one_and_stays_when_the_release_goes(helm: Path) -> None:
    crd = one(rendered(helm), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    generated = (REPOSITORY / "crds" / "tonnage.dev_llmdeployments.yaml").read_text()
    assert crd == yaml.safe_load(generated)
    kinds = {body["kind"] for body in rendered(helm, "--set", "crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds


@pytest.mark.parametrize(
    "setting",
    ["image.repo=x", "replicas=-1", "worker.engineVersion=latest", "logLevel=LOUD", "image.repository="],
)
def test_a_wrong_value_is_refused(helm: Path, setting: str) -> None:
    done = template(helm, "--set", setting)
    assert done.returncode != 0
    assert setting.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in done.stderr


def test_the_schema_knows_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) <= set(schema["properties"])
