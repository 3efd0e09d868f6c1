"""What the operator's account may not do, asked of the API server itself, in both modes of the chart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.operator_process import Release, install_rights, rights
from harness.chart import NAMESPACE
from harness.cluster import Cluster
from harness.rights import Right, granted, may

pytestmark = pytest.mark.cluster
WATCHED, OTHER = "rights-watched", "rights-other"
RELEASES = {
    "cluster-wide": Release(),
    "namespaced": Release("fenced", (f"watchNamespaces={{{WATCHED}}}", "rbac.nodes=false")),
}
READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
RBAC = "rbac.authorization.k8s.io"
NEVER: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", ("secrets", "namespaces", "persistentvolumeclaims", "replicationcontrollers"), READ + WRITE),
    ("", ("serviceaccounts",), (*READ, *WRITE, "impersonate")),
    ("", ("serviceaccounts/token",), ("create",)),
    ("", ("users", "groups"), ("impersonate",)),
    ("", ("pods", "nodes"), ("get", *WRITE)),
    ("", ("pods/exec", "pods/attach", "pods/portforward", "pods/log"), ("get", "create")),
    ("", ("pods/ephemeralcontainers", "pods/status", "nodes/status"), ("update", "patch")),
    ("", ("pods/eviction", "pods/binding"), ("create",)),
    ("", ("nodes/proxy", "nodes/stats", "nodes/log", "nodes/metrics"), ("get", "create")),
    ("", ("services/proxy", "pods/proxy"), ("get", "create")),
    (RBAC, ("roles", "clusterroles"), (*READ, *WRITE, "escalate", "bind")),
    (RBAC, ("rolebindings", "clusterrolebindings"), READ + WRITE),
    ("apps", ("deployments",), ("update", "deletecollection")),
    ("apps", ("daemonsets", "statefulsets"), ("update", "delete", "deletecollection")),
    ("apiextensions.k8s.io", ("customresourcedefinitions",), READ + WRITE),
    ("admissionregistration.k8s.io", ("mutatingwebhookconfigurations",), READ + WRITE),
    ("certificates.k8s.io", ("certificatesigningrequests",), (*WRITE, "approve")),
    ("authentication.k8s.io", ("tokenreviews",), ("create",)),
    ("tonnage.dev", ("llmdeployments",), WRITE),
    ("*", ("*",), (*READ, *WRITE, "*")),
)
PLACES = (NAMESPACE, WATCHED, OTHER, "kube-system", "")


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Release]:
    """A release with its rights in the cluster."""
    for name in (WATCHED, OTHER):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    chosen = RELEASES[request.param]
    install_rights(cluster, chosen)
    yield chosen
    if chosen.values:
        cluster.remove(*rights(chosen))


def test_no_secret_no_shell_no_token_and_no_way_to_more_rights(cluster: Cluster, release: Release) -> None:
    never = [Right(group, kind, verb) for group, kinds, verbs in NEVER for kind in kinds for verb in verbs]
    asked = [(right, where) for right in never for where in PLACES]
    answers = may(cluster, release.account, asked)
    assert {f"{right} in {where or 'all'}" for (right, where), yes in answers.items() if yes} == set()


def test_what_the_chart_grants_is_allowed_where_it_says_and_nowhere_else(
    cluster: Cluster, release: Release
) -> None:
    """The same question answered with yes: the refusals above are not those of an unknown account."""
    grants = [grant for grant in granted(rights(release)) if not grant.names]
    asked = [(grant.right, where) for grant in grants for where in PLACES]
    answers = may(cluster, release.account, asked)
    expected = {
        (right, where): any(grant.covers(right, namespace=where, name="") for grant in grants)
        for right, where in asked
    }
    assert answers == expected
    assert any(answers.values())
    if release.values:
        assert not any(yes for (_, where), yes in answers.items() if where in (OTHER, "kube-system", ""))


def test_the_lease_alone_may_be_changed_in_its_namespace(cluster: Cluster, release: Release) -> None:
    (verbs,) = {
        tuple(g.right.verb for g in granted(rights(release)) if g.names == (f"{release.name}-operator",))
    }
    assert {"get", "update"} <= set(verbs)
    asked = [(Right("coordination.k8s.io", "leases", verb), NAMESPACE) for verb in verbs]
    assert not any(may(cluster, release.account, asked).values())
