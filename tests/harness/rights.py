"""What the chart grants, and what of it was used: rights as (API group, resource, verb)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.audit import Request
from harness.cluster import Cluster

ROLES = {"Role", "ClusterRole"}
CREATED = 201


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource; a subresource is part of its name, as in `pods/exec`."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


@dataclass(frozen=True)
class Grant:
    """A right, where it holds (every namespace if empty), and for which names (all if empty)."""

    right: Right
    namespace: str = ""
    names: tuple[str, ...] = ()

    def covers(self, right: Right, *, namespace: str, name: str) -> bool:
        """Whether it allows this."""
        return (
            self.right == right
            and self.namespace in ("", namespace)
            and (not self.names or name in self.names)
        )


def granted(manifests: Iterable[Mapping[str, Any]]) -> list[Grant]:
    """What Roles and ClusterRoles grant. Raises `ValueError` on a wildcard or a URL, which are not told apart
    from what they stand for."""
    return [
        Grant(right=right, namespace=body["metadata"].get("namespace", ""), names=tuple(names))
        for body in manifests
        if body["kind"] in ROLES
        for rule in body["rules"]
        for right, names in _rights(rule)
    ]


def _rights(rule: Mapping[str, Any]) -> list[tuple[Right, Sequence[str]]]:
    if set(rule) - {"apiGroups", "resources", "verbs", "resourceNames"}:
        raise ValueError(f"not a rule on resources: {rule}")
    if any("*" in text for values in rule.values() for text in values):
        raise ValueError(f"a wildcard: {rule}")
    return [
        (Right(group, resource, verb), rule.get("resourceNames", ()))
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def used(request: Request) -> list[Right]:
    """The rights that a request needed: a patch that made its object needs create as well."""
    if not request.resource:
        return []
    resource = "/".join(filter(None, (request.resource, request.subresource)))
    verbs = [request.verb]
    if request.verb == "patch" and request.code == CREATED:
        verbs.append("create")
    return [Right(request.group, resource, verb) for verb in verbs]


def may(cluster: Cluster, user: str, questions: Sequence[tuple[Right, str]]) -> dict[tuple[Right, str], bool]:
    """Ask the API server what a ServiceAccount may do: each right with the namespace, empty for all."""
    namespace, account = user.split(":")[2:]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    assert account
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": _attributes(right, where)},
        }
        for right, where in questions
    ]
    bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    text = cluster.kubectl("create", "-f", "-", "-o", "json", stdin=bundle)
    answers = _documents(text)
    return {
        question: bool(answer["status"]["allowed"])
        for question, answer in zip(questions, answers, strict=True)
    }


def _attributes(right: Right, namespace: str) -> dict[str, str]:
    resource, _, subresource = right.resource.partition("/")
    return {
        "group": right.group,
        "resource": resource,
        "subresource": subresource,
        "verb": right.verb,
        "namespace": namespace,
    }


def _documents(text: str) -> list[dict[str, Any]]:
    """Objects that follow each other, or a List of them."""
    found: list[dict[str, Any]] = []
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        body, end = decoder.raw_decode(rest)
        found.extend(body["items"] if body["kind"] == "List" else [body])
        rest = rest[end:].lstrip()
    return found
