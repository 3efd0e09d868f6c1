"""What the operator would make of one object: accepted or not, the model, the decision, and what changes.

The functions that answer are the operator's own: `api.acceptance`, `rendering.decision`, `planning`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tonnage.api.acceptance import Refusal, accept
from tonnage.api.base import GROUP, KIND, VERSION
from tonnage.api.v1alpha1 import Spec
from tonnage.cli.arguments import ENGINE_VERSION
from tonnage.cli.errors import Missing
from tonnage.cli.exits import FINE, NOT_YET, REFUSED, USAGE
from tonnage.cli.manifests import Found
from tonnage.cli.model import REFUSALS
from tonnage.cli.profiles import Resolved, choose, find_kept, find_known, read_named
from tonnage.cli.surroundings import Surroundings
from tonnage.cluster.port import Object
from tonnage.gpus.records import Records
from tonnage.models import ConfigError
from tonnage.planning.gpu.choose import takes_gpus
from tonnage.planning.gpu.contend import NO_ROOM, Contender, Room, Site, plan_next, room_of
from tonnage.planning.plan import Plan, Rejection
from tonnage.rendering.decision import (
    Decision,
    Subject,
    contender_of,
    made,
    plan_on_nodes,
    replan_of,
    standing,
)
from tonnage.rendering.gpu import not_rendered
from tonnage.rendering.inspection import Reading, reading_of
from tonnage.rendering.names import Owner
from tonnage.rendering.plan import Kept

API_VERSION: Final = f"{GROUP}/{VERSION}"
PLANNED, DOES_NOT_FIT, REFUSED_WORD, UNREADABLE = "planned", "does_not_fit", "refused", "unreadable"
CODES: Final = {PLANNED: FINE, DOES_NOT_FIT: NOT_YET, UNREADABLE: USAGE, REFUSED_WORD: REFUSED}
_NO_ROOM: Final = frozenset({"NotEnoughMemory", "NoUsableNode", *NO_ROOM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A field of the spec that differs from what stands; None is absent."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The object as it stands in the cluster, and what applying the file would do to its plan.

    `exists` is None where that cannot be read. `effect`: create, plan, keep, replace, or none where the file
    is refused, and what serves goes on serving.
    """

    exists: bool | None
    plan_hash: str | None = None
    effect: str = "none"
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of one object; `reason` and `message` say why it has no plan.

    `refresh`: the operator would read the model again, and make another plan if its files have changed.
    `given`: the node that each pod of a new plan on GPUs may count on.
    """

    name: str
    namespace: str
    where: str
    outcome: str
    reason: str = ""
    message: str = ""
    numbers: Mapping[str, int | str] = field(default_factory=dict)
    spec: Spec | None = None
    model: Resolved | None = None
    version: str = ENGINE_VERSION
    version_from: str = "release"
    decision: Decision | None = None
    hash_known: bool = False
    refresh: bool = False
    standing: Standing | None = None
    given: Sequence[str] = ()

    @property
    def plan_hash(self) -> str | None:
        """The hash of the plan; None where files that were not seen enter into it."""
        return self.decision.plan_hash if self.decision and self.hash_known else None

    @property
    def code(self) -> int:
        """The exit code of this one."""
        return CODES[self.outcome]


class _StopError(Exception):
    """It ends here: the outcome's word, reason and message."""

    def __init__(
        self, outcome: str, reason: str, message: str, numbers: Mapping[str, int | str] | None = None
    ) -> None:
        super().__init__(message)
        self.told: dict[str, Any] = {
            "outcome": outcome,
            "reason": reason,
            "message": message,
            "numbers": numbers or {},
        }


def is_ours(found: Found) -> bool:
    """Is this an LLMDeployment, of whatever version?"""
    return found.body.get("kind") == KIND and str(found.body.get("apiVersion", "")).startswith(f"{GROUP}/")


def outcomes(
    asked: Sequence[Found], around: Surroundings, *, models: Sequence[str], version: str | None
) -> list[Outcome]:
    """The outcome of each object, in order. Raises UsageError.

    They are planned one after another as the operator does it, each on the GPUs that those ahead leave: by
    the value of their priority class, then by age, those that are not there yet as they stand in the files.
    """
    uris = [uri for found in asked if (uri := _uri(found.body))]
    line = _Line(around)
    cases = [_Case(found, around, models=models, uris=uris, version=version, line=line) for found in asked]
    ranked = sorted(range(len(cases)), key=lambda at: (cases[at].rank, at))
    told = {at: cases[at].outcome() for at in ranked}
    return [told[at] for at in range(len(cases))]


class _Line:
    """Objects that want GPUs, one after another: what those that were planned leave."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._site: Site | None = None
        self._room: Room | None = None

    def plan(self, contender: Contender, records: Records) -> tuple[Plan | Rejection, tuple[str, ...]]:
        """The outcome of the next, and the node of each pod that finds one."""
        if self._site is None or self._room is None:
            self._site = Site(hardware=records, accepted=tuple(self._around.accepted()), prices={})
            self._room = room_of(self._site)
        namespace, _, _ = contender.key.partition("/")
        site = dataclasses.replace(self._site, learned=self._around.learned_for(namespace))
        outcome, behind = plan_next(contender, site=site, room=self._room)
        if isinstance(outcome, Rejection) or not_rendered(outcome, groups=self._around.groups):
            return outcome, ()
        self._room = behind
        return outcome, behind.granted[-1].nodes


class _Case:
    """One object on its way to an outcome; what is known of it so far is kept for the answer."""

    def __init__(
        self,
        found: Found,
        around: Surroundings,
        *,
        models: Sequence[str],
        uris: Sequence[str],
        version: str | None,
        line: _Line,
    ) -> None:
        meta = metadata_of(found.body)
        self._found, self._around = found, around
        self._models, self._uris, self._version = models, uris, version
        self._name, self._namespace = (
            str(meta.get("name") or ""),
            str(meta.get("namespace") or around.namespace),
        )
        self._existing = around.existing(self._namespace, self._name)
        self._line = line
        self._known: dict[str, Any] = {}

    @property
    def rank(self) -> tuple[int, bool, str]:
        """What comes first: the higher priority, then what exists, the older first."""
        spec = self._found.body.get("spec")
        template = spec.get("template") if isinstance(spec, dict) else None
        named = template.get("priorityClassName") if isinstance(template, dict) else None
        created = self._created
        return -self._around.priorities.get(str(named or ""), 0), not created, created

    @property
    def _created(self) -> str:
        existing = self._existing if isinstance(self._existing, dict) else {}
        return str(existing.get("metadata", {}).get("creationTimestamp", ""))

    def outcome(self) -> Outcome:
        """What becomes of it."""
        try:
            self._decide()
            told: dict[str, Any] = {"outcome": PLANNED}
        except _StopError as stop:
            told = stop.told
        return Outcome(
            name=self._name,
            namespace=self._namespace,
            where=self._found.where,
            standing=self._standing(),
            **self._known,
            **told,
        )

    def _decide(self) -> None:
        self._check_envelope()
        spec = accept(self._found.body)
        if isinstance(spec, Refusal):
            raise _StopError(REFUSED_WORD, spec.reason, spec.message)
        self._known["spec"] = spec
        self._known["version"], self._known["version_from"] = self._engine_version(spec)
        before = self._around.decisions(self._owner) if self._owner else []
        reading = reading_of(spec, annotations=_annotations(self._found.body))
        model = self._known["model"] = self._resolve(spec, reading, [kept for kept, _ in before])
        own = [kept for kept, _ in before if kept.source == reading.source]
        # the operator does not look again at files that it has read, unless a refresh is asked for
        revision = own[0].revision if own else model.model.revision
        self._known["hash_known"] = bool(own) or model.seen_as(spec.model.uri)
        self._known["refresh"] = bool(own) and reading.refreshed not in {"", *(k.refreshed for k in own)}
        subject = Subject(
            spec=spec,
            source=reading.source,
            model=dataclasses.replace(model.model, revision=revision),
            refreshed=reading.refreshed,
            replan=replan_of(_annotations(self._found.body)),
            default_version=self._known["version"],
        )
        groups = self._around.groups
        decided = standing(subject, before=before, groups=groups) or made(
            subject, self._plan(subject, before=before), groups=groups
        )
        if isinstance(decided, Rejection):
            word = DOES_NOT_FIT if decided.reason in _NO_ROOM else REFUSED_WORD
            raise _StopError(word, decided.reason, decided.message, decided.numbers)
        self._known["decision"] = decided

    def _plan(self, subject: Subject, *, before: Sequence[tuple[Kept, str]]) -> Plan | Rejection:
        """A new plan, beside all that is in force and those of the files that are ahead; other objects that
        wait are not looked at."""
        records, accelerator = self._around.records(), subject.spec.hardware.accelerator
        if not takes_gpus(accelerator, inventory=records.inventory()):
            return plan_on_nodes(subject, nodes=records.nodes)
        key = f"{self._namespace}/{self._name}"
        existing = self._existing if isinstance(self._existing, dict) else {}
        in_force = _hash_in_force(existing)
        contender = contender_of(
            subject,
            key=key,
            created=self._created,
            priority=self._around.priorities.get(subject.spec.template.priority_class_name or "", 0),
            surges=any(
                pod.plan and not pod.leaving and f"{pod.namespace}/{pod.deployment}" == key
                for pod in records.pods
            ),
            in_force=next((kept.plan for kept, plan_hash in before if plan_hash == in_force), None),
        )
        if isinstance(contender, Rejection):
            return contender
        outcome, self._known["given"] = self._line.plan(contender, records)
        return outcome

    def _check_envelope(self) -> None:
        """What the API server checks beside the spec."""
        body = self._found.body
        if body.get("apiVersion") != API_VERSION:
            text = f"apiVersion is {str(body.get('apiVersion'))[:60]}; this version knows {API_VERSION}"
            raise _StopError(REFUSED_WORD, "UnknownVersion", text)
        if not isinstance(body.get("spec"), dict):
            raise _StopError(REFUSED_WORD, "InvalidSpec", "spec is missing: it must at least name model.uri")
        if not self._name:
            raise _StopError(REFUSED_WORD, "InvalidSpec", "metadata.name is missing: give the object a name")

    def _engine_version(self, spec: Spec) -> tuple[str, str]:
        """The version planned for, and who says so. The operator's default shows in plans of objects that
        name none."""
        if spec.engine.version:
            return spec.engine.version, "object"
        if self._version:
            return self._version, "option"
        own = [self._existing] if isinstance(self._existing, dict) else []
        for body in [*own, *self._around.siblings(self._namespace)]:
            planned = body.get("status", {}).get("plan", {}).get("engineVersion")
            if planned and not body.get("spec", {}).get("engine", {}).get("version"):
                return str(planned), "cluster"
        return ENGINE_VERSION, "release"

    def _resolve(self, spec: Spec, reading: Reading, own: Sequence[Kept]) -> Resolved:
        named = choose(self._models, uri=spec.model.uri, uris=self._uris)
        try:
            if named is not None:
                return read_named(named, spec)
            others = self._around.neighbours(self._namespace, name=self._name, access=reading.access)
            fresh = [kept for kept in others if reading.refreshed in ("", kept.refreshed)]
            return find_kept([*own, *fresh], source=reading.source) or find_known(spec)
        except ConfigError as error:
            word = REFUSED_WORD if error.reason in REFUSALS else UNREADABLE
            raise _StopError(word, error.reason, error.message) from None

    @property
    def _owner(self) -> Owner | None:
        if not isinstance(self._existing, dict):
            return None
        return Owner(
            namespace=self._namespace, name=self._name, uid=self._existing["metadata"].get("uid", "")
        )

    def _standing(self) -> Standing | None:
        if self._around.context is None:
            return None
        if isinstance(self._existing, Missing):
            return Standing(exists=None)
        decision: Decision | None = self._known.get("decision")
        spec: Spec | None = self._known.get("spec")
        if self._existing is None:
            return Standing(exists=False, effect="create" if decision else "none")
        in_force = _hash_in_force(self._existing)
        return Standing(
            exists=True,
            plan_hash=in_force,
            effect=_effect(decision, in_force=in_force),
            changes=tuple(differences(self._existing, spec)) if spec else (),
        )


def metadata_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metadata of an object that may have none."""
    meta = body.get("metadata")
    return meta if isinstance(meta, dict) else {}


def _annotations(body: Mapping[str, Any]) -> Mapping[str, str]:
    found = metadata_of(body).get("annotations")
    return found if isinstance(found, dict) else {}


def differences(existing: Object, spec: Spec) -> Iterator[Change]:
    """Fields in which the spec that stands and this one differ, defaults filled in on both sides."""
    before = dict(_flat(existing.get("spec", {})))
    after = dict(_flat(spec.model_dump(mode="json", by_alias=True, exclude_none=True)))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Change(field=name, before=before.get(name), after=after.get(name))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{prefix}{key}.")
        elif each not in ([], None, ""):
            yield f"{prefix}{key}", each


def _hash_in_force(existing: Object) -> str | None:
    found = existing.get("status", {}).get("plan", {}).get("hash")
    return None if found is None else str(found)


def _effect(decision: Decision | None, *, in_force: str | None) -> str:
    if decision is None:
        return "none"
    if in_force is None:
        return "plan"
    return "keep" if decision.plan_hash == in_force else "replace"


def _uri(body: Mapping[str, Any]) -> str:
    spec = body.get("spec")
    model = spec.get("model") if isinstance(spec, dict) else None
    return str(model.get("uri") or "") if isinstance(model, dict) else ""
