"""The chart as helm renders it: restricted pods, least rights, values that are checked."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.paths import BIN, REPOSITORY
from harness.restricted import faults
from harness.rights import granted
from tonnage.api.static_inventory import read_static
from tonnage.control.config import read_config
from tonnage.gpus.inventory import Inventory
from tonnage.rendering.names import COMPONENT, MANAGED_BY, MANAGER, WORKER
from tonnage.rendering.settings import WORKER_PORT, HubSettings

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
    # the token's volume is added by the API server
    assert faults({"spec": pod}, token=True) == ["not exactly one bound token"]


WATCHING = ("--set", "watchNamespaces={team-a,team-b}")


def roles(bodies: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Rules by kind, namespace and name."""
    return {
        (b["kind"], b["metadata"].get("namespace", ""), b["metadata"]["name"]): b["rules"]
        for b in bodies
        if b["kind"] in ("Role", "ClusterRole")
    }


def bindings(bodies: list[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[str, str, str]]:
    """Which role each binding binds; all to the operator's account and nobody else."""
    found = {}
    for body in bodies:
        if body["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            (subject,) = body["subjects"]
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "tonnage-system")
            namespace, role = body["metadata"].get("namespace", ""), body["roleRef"]
            assert role["kind"] == body["kind"].removesuffix("Binding")
            found[body["kind"], namespace, body["metadata"]["name"]] = (role["kind"], namespace, role["name"])
    return found


@pytest.mark.parametrize("values", [(), WATCHING])
def test_the_rights_hold_no_secret_no_wildcard_and_no_escalation(helm: Path, values: tuple[str, ...]) -> None:
    rights = [grant.right for grant in granted(rendered(helm, *values))]  # a wildcard is an error
    resources = {right.resource for right in rights}
    assert not resources & {"secrets", "roles", "clusterroles", "serviceaccounts", "namespaces"}
    assert {resource for resource in resources if "/" in resource} == {"llmdeployments/status"}
    assert {right.verb for right in rights} <= {"get", "list", "watch", "create", "patch", "update", "delete"}
    writable = {right.resource for right in rights if right.verb in ("patch", "create", "update", "delete")}
    assert not writable & {"pods", "nodes", "llmdeployments"}


def documented(text: str) -> set[tuple[str, str, str]]:
    """The table of rights: API group, resource, verb."""
    rows = re.findall(r"^\| `([a-z/]+)(?:\.([a-z0-9.-]+))?` \| ([a-z, ]+) \|", text, flags=re.MULTILINE)
    return {(group, resource, verb) for resource, group, verbs in rows for verb in verbs.split(", ")}


def test_the_documentation_names_each_right_and_no_other(helm: Path) -> None:
    rights = {(g.right.group, g.right.resource, g.right.verb) for g in granted(rendered(helm))}
    assert documented((REPOSITORY / "docs" / "security.md").read_text()) == rights


def test_every_role_is_bound_and_every_binding_has_its_role(helm: Path) -> None:
    for values in ((), WATCHING, ("--set", "rbac.nodes=false")):
        bodies = rendered(helm, *values)
        bound = bindings(bodies)
        assert sorted(bound.values()) == sorted(roles(bodies))


def test_without_names_one_cluster_role_holds_what_is_namespaced(helm: Path) -> None:
    found = roles(rendered(helm))
    assert set(found) == {
        ("ClusterRole", "", "tonnage-system:tonnage"),
        ("ClusterRole", "", "tonnage-system:tonnage:nodes"),
        ("Role", "tonnage-system", "tonnage"),
    }


def test_with_names_each_namespace_has_the_same_role_and_the_cluster_nodes_alone(helm: Path) -> None:
    found, wide = roles(rendered(helm, *WATCHING)), roles(rendered(helm))
    name = "tonnage-system:tonnage"
    assert set(found) == {
        ("Role", "team-a", name),
        ("Role", "team-b", name),
        ("ClusterRole", "", f"{name}:nodes"),
        ("Role", "tonnage-system", "tonnage"),
    }
    namespaced = wide["ClusterRole", "", name]
    assert found["Role", "team-a", name] == found["Role", "team-b", name] == namespaced
    # of no namespace, so no Role can grant them
    of_nodes = {"": ["nodes"], "resource.k8s.io": ["resourceslices", "deviceclasses"]}
    of_nodes["scheduling.k8s.io"] = ["priorityclasses"]
    assert found["ClusterRole", "", f"{name}:nodes"] == [
        {"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]}
        for group, resources in of_nodes.items()
    ]


def test_without_nodes_a_namespaced_release_has_no_cluster_role(helm: Path) -> None:
    bodies = rendered(helm, *WATCHING, "--set", "rbac.nodes=false", "--set", "crds.enabled=false")
    assert {b["kind"] for b in bodies} == {"ServiceAccount", "Role", "RoleBinding", "Deployment"}
    assert variables(bodies)["TONNAGE_READ_NODES"] == "false"


def test_the_operator_is_told_what_its_rights_are(helm: Path) -> None:
    wide, narrow = variables(rendered(helm)), variables(rendered(helm, *WATCHING))
    assert (wide["TONNAGE_WATCH_NAMESPACES"], wide["TONNAGE_READ_NODES"]) == ("", "true")
    assert (narrow["TONNAGE_WATCH_NAMESPACES"], narrow["TONNAGE_READ_NODES"]) == ("team-a,team-b", "true")


def variables(bodies: list[dict[str, Any]]) -> dict[str, str]:
    (container,) = one(bodies, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {v["name"]: v["value"] for v in container["env"] if "value" in v}


def test_releases_of_one_name_in_two_namespaces_share_no_cluster_wide_name(helm: Path) -> None:
    def names(namespace: str) -> set[str]:
        bodies = rendered(helm, "--namespace", namespace)
        wide = [b for b in bodies if b["kind"] in ("ClusterRole", "ClusterRoleBinding")]
        return {b["metadata"]["name"] for b in wide}

    assert names("a")
    assert not names("a") & names("b")


def test_the_lease_and_what_was_learned_alone_are_named(helm: Path) -> None:
    found = variables(rendered(helm))
    assert named(helm) == {
        ("leases", "tonnage-system", (found["TONNAGE_LEASE"],)),
        ("configmaps", "tonnage-system", (found["TONNAGE_LEARNED"],)),
    }
    assert found["TONNAGE_LEASE"] == "tonnage-operator"


def named(helm: Path, *arguments: str) -> set[tuple[str, str, tuple[str, ...]]]:
    """Rights on single objects."""
    grants = granted(rendered(helm, *arguments))
    return {(g.right.resource, g.namespace, g.names) for g in grants if g.names}


def test_what_starts_teach_is_kept_by_a_right_of_its_own_and_only_where_it_is_wanted(helm: Path) -> None:
    off = ("--set", "learning.enabled=false")
    assert "TONNAGE_LEARNED" not in variables(rendered(helm, *off))
    assert {resource for resource, _, _ in named(helm, *off)} == {"leases"}
    more = ("--set", "learning.trustedImages={registry.example:5000/a,b/*}", "--set", "worker.image=own/w:1")
    environment = {**variables(rendered(helm, *more)), "TONNAGE_NAMESPACE": "tonnage-system"}
    config = read_config({**environment, "TONNAGE_IDENTITY": "one"})
    assert config.learned == "tonnage-learned"
    assert config.trusted == ("docker.io/own/w", "registry.example:5000/a", "b/*")


def test_only_the_operators_pod_asks_for_a_token(helm: Path) -> None:
    bodies = rendered(helm)
    assert one(bodies, "ServiceAccount")["automountServiceAccountToken"] is False
    assert one(bodies, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert "Secret" not in {b["kind"] for b in bodies}


def test_two_operators_have_a_disruption_budget_and_one_has_none(helm: Path) -> None:
    assert "PodDisruptionBudget" not in {b["kind"] for b in rendered(helm)}
    bodies = rendered(helm, "--set", "replicas=2")
    budget = one(bodies, "PodDisruptionBudget")["spec"]
    labels = one(bodies, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_the_network_policy_is_off_until_it_is_asked_for(helm: Path) -> None:
    assert "NetworkPolicy" not in {b["kind"] for b in rendered(helm)}
    bodies = rendered(helm, "--set", "networkPolicy.enabled=true", *WATCHING)
    policy = one(bodies, "NetworkPolicy")["spec"]
    labels = one(bodies, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    server, workers = policy["egress"]
    assert [port["port"] for port in server["ports"]] == [443, 6443]
    (peer,) = workers["to"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["team-a", "team-b"]
    assert peer["podSelector"]["matchLabels"] == {MANAGED_BY: MANAGER, COMPONENT: WORKER}
    assert [port["port"] for port in workers["ports"]] == [WORKER_PORT]


def test_the_network_policy_narrows_the_api_server_and_opens_metrics(helm: Path) -> None:
    settings = [
        "networkPolicy.enabled=true",
        "networkPolicy.apiServer.to[0].ipBlock.cidr=10.0.0.1/32",
        "networkPolicy.apiServer.ports={6443}",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=watch",
    ]
    bodies = rendered(helm, *(part for setting in settings for part in ("--set", setting)))
    policy = one(bodies, "NetworkPolicy")["spec"]
    assert policy["egress"][0] == {
        "ports": [{"port": 6443, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
    }
    assert policy["egress"][1]["to"][0]["namespaceSelector"] == {}
    (ingress,) = policy["ingress"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}]
    assert ingress["ports"] == [{"port": "health", "protocol": "TCP"}]


def test_the_crd_is_the_generated_one_and_stays_when_the_release_goes(helm: Path) -> None:
    crd = one(rendered(helm), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    generated = (REPOSITORY / "crds" / "tonnage.dev_llmdeployments.yaml").read_text()
    assert crd == yaml.safe_load(generated)
    kinds = {body["kind"] for body in rendered(helm, "--set", "crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds


def test_the_hub_and_the_way_there_reach_the_operator(helm: Path) -> None:
    settings = "hub.endpoint=http://hub.example,hub.httpsProxy=http://proxy:3128,hub.noProxy=.local"
    pod = one(rendered(helm, "--set", settings), "Deployment")["spec"]["template"]["spec"]
    seen = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}
    environment = {name: value for name, value in seen.items() if value is not None}
    given = {"TONNAGE_IDENTITY": "one", "TONNAGE_NAMESPACE": "tonnage-system"}
    hub = read_config({**environment, **given}).settings.hub
    assert hub == HubSettings(
        endpoint="http://hub.example", https_proxy="http://proxy:3128", no_proxy=".local"
    )


@pytest.mark.parametrize(
    "setting",
    [
        "image.repository=",
        "replicas=-1",
        "worker.engineVersion=latest",
        "logLevel=LOUD",
        "watchNamespaces={a*}",
        "watchNamespaces={a,a}",
        "watchNamespaces=a",
        "rbac.nodes=perhaps",
        "hub.endpoint=hub.example.com",
        "hub.endpoint=https://user:password@hub.example.com",
        "hub.httpsProxy=http://user:password@proxy",
        "networkPolicy.apiServer.ports={}",
        "networkPolicy.metricsFrom[0].ip=10.0.0.1",
        "resources.limits.memory=much",
        "resources.limits.gpu=1",
        "tolerations[0].effect=Never",
        "imagePullSecrets={registry}",
        "affinity.node.x=1",
        "crds.enabled=perhaps",
        "inventory.pools[0].product=L40S",
        "inventory.prices.L40S=-1",
        "learning.enabled=perhaps",
        "learning.trustedImages={registry.example/*/worker}",
        "learning.trustedImages={worker:1.0}",
        "learning.trustedImages={*}",
    ],
)
def test_a_wrong_value_is_refused(helm: Path, setting: str) -> None:
    done = template(helm, "--set", setting)
    assert done.returncode != 0
    assert re.split(r"[.\[=]", setting)[0] in done.stderr


def typos(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Each key of the values, misspelt, as helm's --set takes it."""
    for key, value in values.items():
        yield ".".join((*path, f"{key}x")) + "=1"
        if isinstance(value, dict) and value:
            yield from typos(value, (*path, key))


def test_every_field_of_a_stated_pool_is_taken_by_the_schema_and_by_the_operator(helm: Path) -> None:
    pools = [
        {"product": "Own", "vendor": "NVIDIA", "memory": "40Gi", "computeCapability": "9.0"},
        {"product": "L40S", "resource": "nvidia.com/gpu.shared", "sharing": {"mode": "MPS", "clients": 2}},
        {"product": "NVIDIA-A100-SXM4-40GB", "migProfile": "1g.5gb"},
    ]
    base = {"nodes": 2, "devicesPerNode": 4, "nodeCPU": 30.5, "nodeMemory": "120Gi"}
    stated = [{**base, "nodeLabels": {"pool": str(at)}, **pool} for at, pool in enumerate(pools)]
    inventory = {"pools": stated, "prices": {"L40S": "0.8", "Own": 2}}
    done = template(helm, "--set-json", f"inventory={json.dumps(inventory)}")
    assert done.returncode == 0, done.stderr
    told = json.loads(variables(list(yaml.safe_load_all(done.stdout)))["TONNAGE_INVENTORY"])
    assert told == inventory
    assert isinstance(read_static(told), Inventory), read_static(told)
    fields = json.loads((CHART / "values.schema.json").read_text())["properties"]["inventory"]["properties"]
    assert {name for pool in stated for name in pool} == set(fields["pools"]["items"]["properties"])


def test_a_typo_in_any_value_is_refused(helm: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    tried = list(typos(values))
    assert len(tried) > 25
    taken = [typo for typo in tried if template(helm, "--set", typo).returncode == 0]
    assert taken == []


def closed(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Objects of a schema that take names they do not know."""
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        yield path
    for key in ("properties", "patternProperties", "definitions"):
        for name, part in schema.get(key, {}).items():
            yield from closed(part, f"{path}.{name}")
    if "items" in schema:
        yield from closed(schema["items"], f"{path}[]")


def test_the_schema_knows_every_value_and_leaves_only_kubernetes_own_types_open() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    affinities = {f".affinity.{kind}" for kind in ("nodeAffinity", "podAffinity", "podAntiAffinity")}
    peers = {f".networkPeers[].{name}" for name in ("ipBlock", "namespaceSelector", "podSelector")}
    assert set(closed(schema)) == {".global", *affinities, *peers}
