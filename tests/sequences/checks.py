"""What must hold of every history, one pure function per promise; each returns what is wrong, or ""."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from harness.audit import Write
from sequences.client import Family, Key
from sequences.fields import Case
from sequences.ground import PLANNED, REFUSED, Verdict, verdict
from sequences.state import NOTE, State, blocked, conditions, differences
from tonnage.api.v1alpha1 import Status
from tonnage.cluster.port import DEPLOYMENT, DISRUPTION_BUDGET, SERVICE

MAX_STATUS_BYTES = 16 * 1024
NOTED = (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET)
_MOST_SHOWN = 12


def says_what_became_of_it(family: Family, name: str, verdict: Verdict) -> str:
    """Conditions say what the core says: planned, or refused by the right one, for the right reason."""
    found = conditions(family)
    if verdict.kind == PLANNED:
        for kind in ("Accepted", "ModelResolved", "Planned"):
            one = found.get(kind, {"status": "absent", "reason": "", "message": ""})
            if one["status"] != "True":
                return f"{kind} is {one['status']}, {one['reason']}: {one['message']}"
        degraded, deployment = found["Degraded"], family.child(DEPLOYMENT.kind, name)
        if degraded["status"] == "True" and not (deployment and blocked(family, deployment)):
            return f"planned, but {degraded['reason']}: {degraded['message']}"
        return ""
    one = found.get(verdict.condition, {"status": "absent", "reason": ""})
    if one["status"] == "True" or one["reason"] != verdict.reason:
        return f"{verdict.condition} is {one['status']}, {one['reason']}; expected {verdict.reason}"
    ready = found["Ready"]
    if ready["status"] != "False" or ready["reason"] != verdict.reason or not ready["message"]:
        return f"Ready is {ready['status']}, {ready['reason']}: {ready['message']!r}"
    return ""


def keeps_what_was_deployed(before: Family, after: Family, name: str) -> str:
    """A refused object leaves the Deployment as it was, and serving if it served."""
    was, now = before.child(DEPLOYMENT.kind, name), after.child(DEPLOYMENT.kind, name)
    if was is None:
        return "" if now is None else "a Deployment was made for a refused object"
    if now is None:
        return "the Deployment is gone"
    for part in ("uid", "generation"):
        if was["metadata"][part] != now["metadata"][part]:
            return f"the Deployment's {part} was {was['metadata'][part]}, is {now['metadata'][part]}"
    available = [conditions(family)["Available"]["status"] for family in (before, after)]
    return "" if available[0] == available[1] else f"Available was {available[0]}, is {available[1]}"


def equals_fresh(found: State, fresh: State) -> str:
    """An object's state follows from its spec, not from what it was before."""
    return _lines(differences(found, fresh))


def has_effect(case: Case, found: State, other: State) -> str:
    """Two objects that differ in one field differ in what is made, planned or said; or the one is refused
    with a reason that names the field."""
    if found != other:
        return ""
    said = found["status"].get("conditions", {}).get("Ready", {})
    named = [part for part in case.field.path if part in said.get("message", "")]
    if said.get("status") == "False" and verdict(case.spec).kind == REFUSED and named:
        return ""
    return f"spec.{case.field.name}: {case.value!r} changes nothing"


def leaves_notes_alone(family: Family, name: str) -> str:
    """Labels and annotations of others stay where they were put."""
    bodies = [family.object, *(family.child(kind.kind, name) for kind in NOTED)]
    for body in bodies:
        if body is None:
            continue
        meta = body["metadata"]
        for part in ("labels", "annotations"):
            if meta.get(part, {}).get(NOTE) != "theirs":
                return f"{body['kind']}: the {part[:-1]} {NOTE} of somebody else is gone"
    return ""


def status_is_valid(family: Family) -> str:
    """A status is what its model allows, and small."""
    status = (family.object or {}).get("status", {})
    size = len(json.dumps(status, separators=(",", ":")))
    if size > MAX_STATUS_BYTES:
        return f"the status has {size} bytes"
    try:
        Status.model_validate_json(json.dumps(status))
    except ValidationError as error:
        return str(error)
    return ""


def wrote_nothing(writes: Sequence[Write], key: Key) -> str:
    """At rest, the operator writes nothing, whatever makes it look again."""
    mine = [write for write in writes if (write.namespace, owner_of(write.name)) == key]
    return _lines(f"{w.verb} {w.resource}/{w.subresource or '-'} {w.name}: {w.code}" for w in mine)


def owner_of(name: str) -> str:
    """The object that a child's name begins with; objects of histories have no hyphen in theirs."""
    return name.partition("-")[0]


def _lines(found: Iterable[str]) -> str:
    lines = list(found)
    rest = len(lines) - _MOST_SHOWN
    return "\n".join([*lines[:_MOST_SHOWN], *([f"... and {rest} more"] if rest > 0 else [])])
