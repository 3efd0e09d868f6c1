"""Playing histories on the stage, many at a time, with every check."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sequences import checks
from sequences.client import Family, Key
from sequences.fields import Case
from sequences.generate import History, Step
from sequences.ground import INVALID, REFUSED, Verdict, verdict
from sequences.schema import Spec
from sequences.stage import SETTLE_SECONDS, Stage, manifest
from sequences.state import NOTE, State, blocked, effects_of, state_of, unsettled
from tonnage.cluster.port import BY_KIND, DEPLOYMENT, LLM_DEPLOYMENT, Kind, Object

BLOCKED_SECONDS = 3.0
AT_ONCE = 12
COMPARE_SECONDS = 20.0
EMPTY_SECONDS = 180.0
_THEIRS = {"metadata": {"labels": {NOTE: "theirs"}, "annotations": {NOTE: "theirs"}}}


class BrokenPromiseError(Exception):
    """A check that does not hold: its name, and what is wrong."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check, self.text = check, text


@dataclass(frozen=True)
class Failure:
    """A history that broke a promise."""

    history: History
    check: str
    text: str


@dataclass
class Tally:
    """What was played, for people and for the test that the mix is as meant."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)


class Player:
    """Plays waves of histories. Names count up from `first`, so that none is used again."""

    def __init__(self, stage: Stage, *, first: int = 0, settle_seconds: float = SETTLE_SECONDS) -> None:
        self.stage, self.tally = stage, Tally()
        self.settle_seconds = settle_seconds
        self._number = first
        self._noted: set[tuple[Key, str]] = set()

    async def wave(self, histories: Sequence[History], *, restart: bool) -> list[Failure | None]:
        """Play histories side by side, then check all of them at rest; for each its failure, or None.

        Raises AssertionError if a pass of the operator ended by a bug.
        """
        keys = [self._keys() for _ in histories]
        gate = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(
            *(self._played(history, pair, gate) for history, pair in zip(histories, keys, strict=True))
        )
        await self._at_rest(histories, keys, found, restart=restart)
        await self._deleted(histories, keys, found)
        if bugs := self.stage.bugs():
            raise AssertionError(bugs)
        return found

    def _keys(self) -> tuple[Key, Key]:
        self._number += 1
        namespace = self.stage.namespaces[self._number % len(self.stage.namespaces)]
        return (namespace, f"p{self._number:05d}"), (namespace, f"f{self._number:05d}")

    async def _played(
        self, history: History, keys: tuple[Key, Key], gate: asyncio.Semaphore
    ) -> Failure | None:
        async with gate:
            try:
                await self._play(history, *keys)
            except BrokenPromiseError as broken:
                return Failure(history, broken.check, broken.text)
        return None

    async def _play(self, history: History, key: Key, fresh: Key) -> None:
        rest: Family | None = Family()
        for step in history.steps:
            rest = await self._take(step, key, rest)
        await self.settle(history.last, fresh)
        await self._compare(key, fresh)
        kept = await self.stage.mirror.until(
            key, lambda family: checks.leaves_notes_alone(family, key[1]), seconds=COMPARE_SECONDS
        )
        self._require("others' notes stay", kept)

    async def _take(self, step: Step, key: Key, before: Family | None) -> Family | None:
        """Apply one object and check what becomes of it; the family at rest, None if it is not waited for."""
        said = verdict(step.spec)
        self.tally.verdicts[said.kind] += 1
        self.tally.reasons[said.reason] += 1
        generation = await self.apply(step.spec, key, said)
        if said.kind == INVALID:
            return before
        if step.hurried:
            return None
        family = await self.rest(key, generation)
        self._require("conditions say it", checks.says_what_became_of_it(family, key[1], said))
        self._require("the status is valid", checks.status_is_valid(family))
        if said.kind == REFUSED and before is not None:
            self._require("a refusal keeps", checks.keeps_what_was_deployed(before, family, key[1]))
        await self._leave_notes(family, key)
        return Family(object=family.object, children=dict(family.children))

    async def settle(self, spec: Spec, key: Key) -> Family:
        """Make an object and wait until it is at rest."""
        generation = await self.apply(spec, key, verdict(spec))
        return await self.rest(key, generation)

    async def apply(self, spec: Spec, key: Key, said: Verdict) -> int:
        """Apply a spec; the generation that it makes, 0 where the API server refuses it, as it must."""
        code, answer = await self.stage.client.apply(LLM_DEPLOYMENT, manifest(*key, spec))
        if code in (200, 201):
            wrong = "the API server took what the models refuse" if said.kind == INVALID else ""
        elif said.kind == INVALID:
            wrong = "" if answer.get("message") else f"{code} without a message"
        else:
            wrong = f"the API server refused what the models take: {code}: {answer.get('message')}"
        self._require("refused at the earliest place", wrong)
        return int(answer["metadata"]["generation"]) if code in (200, 201) else 0

    async def rest(self, key: Key, generation: int) -> Family:
        """Wait until an object is at rest at this generation."""

        def wrong(family: Family) -> str:
            seen = (family.object or {}).get("metadata", {}).get("generation", 0)
            return "not seen yet" if seen < generation else unsettled(family, key[1])

        mirror = self.stage.mirror
        self._require("comes to rest", await mirror.until(key, wrong, seconds=self.settle_seconds))
        deployment = mirror.family(key).child(DEPLOYMENT.kind, key[1])
        if deployment is not None and blocked(mirror.family(key), deployment):
            # for a while its controller tells of the ReplicaSet before, which may have been mended
            await asyncio.sleep(BLOCKED_SECONDS)
            self._require("comes to rest", await mirror.until(key, wrong, seconds=self.settle_seconds))
        return mirror.family(key)

    async def _compare(self, key: Key, fresh: Key) -> None:
        """The two become equal; a change of either that is still on its way is waited for."""
        mirror = self.stage.mirror

        def wrong(family: Family) -> str:
            return checks.equals_fresh(state_of(family, key), state_of(mirror.family(fresh), fresh))

        self._require("equals fresh", await mirror.until(key, wrong, seconds=COMPARE_SECONDS))

    async def _leave_notes(self, family: Family, key: Key) -> None:
        """Somebody else labels and annotates the object and its children, once; returns when that is seen.

        An annotation makes another generation of a Deployment (registry/apps/deployment/strategy.go): seen
        late, it would be taken for the operator's.
        """
        bodies = [
            (LLM_DEPLOYMENT, family.object),
            *((kind, family.child(kind.kind, key[1])) for kind in checks.NOTED),
        ]
        for kind, body in bodies:
            if body is not None and (key, kind.kind) not in self._noted:
                self._noted.add((key, kind.kind))
                code, noted = await self.stage.client.note(kind, body, _THEIRS)
                if code == HTTPStatus.OK:
                    await self._seen(key, kind, noted)

    async def _seen(self, key: Key, kind: Kind, body: Object) -> None:
        """Wait until the mirror shows a child, or the object, as a write left it or later."""

        def wrong(family: Family) -> str:
            known = family.object if kind == LLM_DEPLOYMENT else family.child(kind.kind, key[1])
            version = int(known["metadata"]["resourceVersion"]) if known else 0
            return "" if version >= int(body["metadata"]["resourceVersion"]) else f"{kind.kind} is seen late"

        await self.stage.mirror.until(key, wrong, seconds=self.settle_seconds)

    # single fields

    async def fields(self, cases: Sequence[Case]) -> list[str]:
        """What is wrong with the effects of fields; each spec is made once."""
        specs = {_text(spec): spec for case in cases for spec in (case.spec, case.other)}
        gate = asyncio.Semaphore(AT_ONCE)
        keys = [self._keys()[1] for _ in specs]
        made = await asyncio.gather(
            *(self._effects(spec, key, gate) for spec, key in zip(specs.values(), keys, strict=True))
        )
        effects = dict(zip(specs, made, strict=True))
        wrong: list[str] = []
        fine: set[str] = set()
        for case in cases:
            text = checks.has_effect(case, effects[_text(case.spec)], effects[_text(case.other)])
            if not text:
                fine.add(case.field.name)
            elif case.is_choice and not case.alike:
                wrong.append(text)
        # of a field that is no choice, one value suffices: another may be what the default is
        silent = {case.field.name for case in cases if not case.is_choice} - fine
        await self._delete(keys)
        return [*wrong, *(f"spec.{name} changes nothing" for name in sorted(silent))]

    async def _effects(self, spec: Spec, key: Key, gate: asyncio.Semaphore) -> State:
        async with gate:
            family = await self.settle(spec, key)
            self._require("conditions say it", checks.says_what_became_of_it(family, key[1], verdict(spec)))
            return effects_of(state_of(family, key))

    # all objects of a wave

    async def _at_rest(
        self,
        histories: Sequence[History],
        keys: Sequence[tuple[Key, Key]],
        found: list[Failure | None],
        *,
        restart: bool,
    ) -> None:
        """Looking again changes nothing: after somebody else's edit, and after a restart of the operator."""
        looked: dict[str, int] = {}
        await self.stage.passed()
        looked["looking again writes nothing"] = self.stage.cluster.audit.position()
        for key in _each(keys):
            body = self.stage.mirror.family(key).object
            if body is not None:
                await self.stage.client.note(
                    LLM_DEPLOYMENT, body, {"metadata": {"annotations": {"example.com/look": "again"}}}
                )
        await self.stage.passed()
        ends = [self.stage.cluster.audit.position()]
        if restart:
            if bugs := self.stage.bugs():
                raise AssertionError(bugs)
            looked["a restart writes nothing"] = ends[0]
            await self.stage.start_operator()
        for check, position in looked.items():
            writes = self.stage.writes(position)
            for number, pair in enumerate(keys):
                for key in pair:
                    if found[number] is None and not self._waits(key):
                        text = checks.wrote_nothing(writes, key)
                        self.tally.checks[check] += 1
                        if text:
                            found[number] = Failure(histories[number], check, text)

    def _waits(self, key: Key) -> bool:
        """A roll-out that cannot end may still be told to have failed, after its deadline."""
        family = self.stage.mirror.family(key)
        deployment = family.child(DEPLOYMENT.kind, key[1])
        return deployment is None or bool(blocked(family, deployment))

    async def _deleted(
        self, histories: Sequence[History], keys: Sequence[tuple[Key, Key]], found: list[Failure | None]
    ) -> None:
        """Deleting leaves nothing."""
        left = await self._delete(_each(keys))
        for number, text in enumerate(left):
            self.tally.checks["deleting leaves nothing"] += 1
            if text and found[number // 2] is None:
                found[number // 2] = Failure(histories[number // 2], "deleting leaves nothing", text)

    async def _delete(self, keys: Sequence[Key]) -> list[str]:
        """Delete objects; for each what is left of it."""
        for namespace, name in keys:
            await self.stage.client.delete(LLM_DEPLOYMENT, namespace=namespace, name=name)
        mirror = self.stage.mirror
        return await asyncio.gather(*(mirror.until(key, _left, seconds=EMPTY_SECONDS) for key in keys))

    def _require(self, check: str, wrong: str) -> None:
        self.tally.checks[check] += 1
        if wrong:
            raise BrokenPromiseError(check, wrong)


def _text(spec: Spec) -> str:
    return json.dumps(spec, sort_keys=True)


def _each(keys: Sequence[tuple[Key, Key]]) -> list[Key]:
    return [key for pair in keys for key in pair]


def _left(family: Family) -> str:
    kept = [f"{kind} {name}" for kind, name in family.children if kind in {*BY_KIND, "Pod"}]
    return ", ".join([*(["the object"] if family.object else []), *kept])


def told(tally: Tally) -> Mapping[str, Any]:
    """The tally as plain data."""
    return {"objects": dict(tally.verdicts), "reasons": dict(tally.reasons), "checks": dict(tally.checks)}
