"""`tonnage plan` beside a cluster: kept plans, what stands, and rights that are missing."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tonnage.cli.errors import Missing, UsageError
from tonnage.cli.outcome import Outcome, outcomes
from tonnage.cli.plan_document import document
from tonnage.cli.plan_text import lines_of
from tonnage.cli.style import Style
from tonnage.cli.surroundings import Surroundings
from tonnage.planning.residuals import Residuals, dump
from tonnage.planning.term import Term
from tonnage.rendering.learned import build_learned
from tonnage.rendering.lessons import key_of_start
from tonnage.rendering.names import MODEL, REFRESH_MODEL, Owner
from tonnage.rendering.plan import build_plan_config_map, build_plan_status
from unit.cli.plan_files import around, found, llm, model_with_weights, node
from unit.gpus import clusters

OWNER = Owner(namespace="default", name="chat", uid="u1")
FORBIDDEN = Missing("you may not list all nodes: forbidden")


def outcome(body: dict[str, Any], place: Surroundings, **options: Any) -> Outcome:
    return outcomes([found(body)], place, models=(), version=None, **options)[0]


def running(body: dict[str, Any], *, engine: str = "0.32.0") -> tuple[dict[str, Any], dict[str, Any]]:
    """The object as it stands after the operator planned it, and the ConfigMap of its plan."""
    planned = outcomes([found(body)], around(), models=(), version=engine)[0]
    assert planned.decision is not None
    assert planned.spec is not None
    kept, plan_hash = planned.decision.kept, planned.decision.plan_hash
    spec = planned.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    standing = {
        **body,
        "metadata": {"name": "chat", "namespace": "default", "uid": OWNER.uid, "generation": 1},
        "spec": spec,
        "status": {"observedGeneration": 1, "plan": build_plan_status(kept.plan, plan_hash=plan_hash)},
    }
    return standing, build_plan_config_map(kept, plan_hash=plan_hash, spec=planned.spec, owner=OWNER)


def beside(
    standing: dict[str, Any], plan: dict[str, Any], *nodes: dict[str, Any], **known: Any
) -> Surroundings:
    return around(*nodes, **{"objects": {"default": [standing]}, "plans": {"default": [plan]}, **known})


def text(answer: Outcome, place: Surroundings) -> str:
    return " ".join(" ".join(lines_of(answer, place, Style())).split())


def test_an_unchanged_object_keeps_its_plan_even_where_no_node_would_do() -> None:
    standing, plan = running(llm())
    place = beside(standing, plan, node(memory="1Gi"))
    answer = outcome(llm(), place)
    assert answer.decision is not None
    assert not answer.decision.made
    assert answer.standing is not None
    assert (answer.standing.effect, answer.standing.changes) == ("keep", ())
    assert "is in force and stays" in text(answer, place)
    assert answer.model is not None
    assert (answer.model.origin, answer.model.weights) == ("plan", "read")


def test_a_changed_object_replaces_its_plan_and_says_which_fields_differ() -> None:
    standing, plan = running(llm())
    place = beside(standing, plan)
    answer = outcome(llm(workload={"contextLength": 1024, "concurrency": 8}, replicas=3), place)
    assert answer.standing is not None
    assert answer.standing.effect == "replace"
    assert answer.standing.plan_hash == standing["status"]["plan"]["hash"]
    assert [(c.field, c.before, c.after) for c in answer.standing.changes] == [
        ("replicas", None, 3),
        ("workload.contextLength", 2048, 1024),
        ("workload.typicalTokens", 512, None),
    ]
    told = text(answer, place)
    assert "applying this replaces it by" in told
    assert "replicas (absent) -> 3; workload.contextLength 2048 -> 1024" in told


def test_what_the_plan_does_not_depend_on_keeps_it() -> None:
    standing, plan = running(llm())
    answer = outcome(llm(replicas=3), beside(standing, plan))
    assert answer.standing is not None
    assert (answer.standing.effect, len(answer.standing.changes)) == ("keep", 1)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"cache": {"sharing": {"mode": "Pool", "pool": {}}}}, 3), ({"workload": {"concurrency": 65000}}, 1)],
)
def test_a_change_that_gets_no_plan_leaves_what_serves(change: dict[str, Any], code: int) -> None:
    standing, plan = running(llm())
    place = beside(standing, plan)
    answer = outcome(llm(**change), place)
    assert answer.code == code
    assert answer.standing is not None
    assert answer.standing.effect == "none"
    assert "what it serves goes on" in text(answer, place)


def test_an_object_that_does_not_exist_yet() -> None:
    place = around(objects={"default": []}, plans={"default": []})
    answer = outcome(llm(), place)
    assert answer.standing is not None
    assert (answer.standing.exists, answer.standing.effect) == (False, "create")
    assert "there is no chat in the cluster yet" in text(answer, place)


def test_an_object_without_a_plan_so_far() -> None:
    standing, plan = running(llm())
    del standing["status"]
    place = beside(standing, plan, plans={"default": []})
    answer = outcome(llm(), place)
    assert answer.standing is not None
    assert answer.standing.effect == "plan"
    assert "has no plan yet" in text(answer, place)


def test_plans_of_an_object_that_had_the_name_before_do_not_count() -> None:
    standing, plan = running(llm())
    standing["metadata"]["uid"] = "u2"
    answer = outcome(llm(), beside(standing, plan))
    assert answer.decision is not None
    assert answer.decision.made


def test_a_neighbours_plan_tells_the_model_and_the_operators_engine() -> None:
    standing, plan = running(llm(), engine="0.33.0")
    answer = outcome(llm("other"), beside(standing, plan))
    assert answer.model is not None
    assert answer.model.origin == "plan"
    assert (answer.version, answer.version_from) == ("0.33.0", "cluster")


def test_an_engine_that_an_object_names_is_not_the_operators() -> None:
    standing, plan = running(llm(engine={"version": "0.33.0"}))
    answer = outcome(llm("other"), beside(standing, plan))
    assert (answer.version, answer.version_from) == ("0.32.0", "release")


def test_a_neighbour_that_reads_by_other_credentials_tells_nothing() -> None:
    standing, plan = running(llm())
    plan["metadata"]["labels"][MODEL] = "other"
    answer = outcome(llm("other"), beside(standing, plan))
    assert answer.model is not None
    assert answer.model.origin == "catalogue"


def test_the_hash_is_told_only_where_the_files_were_seen(tmp_path: Path) -> None:
    unseen = outcome(llm(), around())
    assert unseen.decision is not None
    assert (unseen.plan_hash, document([unseen], around(), skipped=[])["objects"][0]["plan"]["hash"]) == (
        None,
        None,
    )
    model = model_with_weights(tmp_path / "model")
    seen = outcomes([found(llm())], around(), models=[model], version=None)[0]
    assert seen.plan_hash
    standing, plan = running(llm())
    kept = outcome(llm(), beside(standing, plan))
    assert kept.plan_hash == standing["status"]["plan"]["hash"]


def test_the_model_of_the_plan_in_force_goes_before_newer_ones() -> None:
    standing, plan = running(llm())
    newer = deepcopy(plan)
    newer["metadata"] |= {"name": "chat-plan-ffffffffff", "creationTimestamp": "2099-01-01T00:00:00Z"}
    kept = json.loads(newer["data"]["kept.json"]) | {"revision": "files-9999999"}
    newer["data"]["kept.json"] = json.dumps(kept)
    place = beside(standing, plan, plans={"default": [newer, plan]})
    changed = outcome(llm(workload={"contextLength": 1024}), place)
    assert changed.decision is not None
    assert changed.decision.kept.revision == json.loads(plan["data"]["kept.json"])["revision"]


def test_a_refresh_that_was_not_made_yet_is_said() -> None:
    standing, plan = running(llm())
    body = llm()
    body["metadata"]["annotations"] = {REFRESH_MODEL: "now"}
    place = beside(standing, plan)
    answer = outcome(body, place)
    assert answer.refresh
    assert "if the files have changed, so will the plan" in text(answer, place)
    assert not outcome(llm(), place).refresh
    assert not outcome(body, around()).refresh  # the first reading is no refresh


def test_a_plan_of_another_version_of_tonnage_is_passed_over() -> None:
    standing, plan = running(llm())
    plan["data"]["kept.json"] = '{"schema": 99}'
    answer = outcome(llm(), beside(standing, plan))
    assert answer.decision is not None
    assert answer.decision.made
    assert answer.model is not None
    assert answer.model.origin == "catalogue"


def test_without_rights_to_nodes_only_a_new_plan_is_impossible() -> None:
    standing, plan = running(llm())
    place = Surroundings(
        namespace="default",
        context="kind",
        nodes=FORBIDDEN,
        objects={"default": [standing]},
        plans={"default": [plan]},
    )
    kept = outcome(llm(), place)
    assert kept.decision is not None
    assert document([kept], place, skipped=[])["nodes"] is None
    with pytest.raises(UsageError, match="you may not list all nodes: forbidden; ask for the right to list"):
        outcome(llm(quality="Lossless"), place)


def test_without_rights_to_objects_it_is_said_that_nothing_is_known() -> None:
    why = Missing("you may not list llmdeployments in default: forbidden")
    place = around(objects={"default": why}, plans={"default": why})
    answer = outcome(llm(), place)
    assert answer.standing is not None
    assert answer.standing.exists is None
    assert "whether this one exists is not known" in text(answer, place)


def test_machine_form_of_what_stands() -> None:
    standing, plan = running(llm())
    place = beside(standing, plan)
    shown = document([outcome(llm(replicas=2), place)], place, skipped=[])
    assert shown["context"] == "kind"
    assert shown["objects"][0]["kept"] is True
    assert shown["objects"][0]["standing"] == {
        "exists": True,
        "plan_hash": standing["status"]["plan"]["hash"],
        "effect": "keep",
        "changes": [{"field": "replicas", "before": None, "after": 2}],
    }


def on_a_gpu(**known: Any) -> tuple[dict[str, Any], Surroundings]:
    """The object on a GPU, and a cluster that has one."""
    place = around(clusters.body("Node", "h100-0"), **known)
    return llm(hardware={"accelerator": "GPU"}), place


def taught(body: dict[str, Any], residual_mib: int, *, watched: tuple[str, ...] = ()) -> dict[str, Any]:
    """What an operator keeps once a start of this object's plan has taught."""
    decided = outcome(body, on_a_gpu()[1]).decision
    assert decided is not None
    key = key_of_start(decided.kept)
    assert key is not None
    law = Term(0, 2**40, 2**41)
    measured = law.likely + residual_mib * 2**20
    known = Residuals().with_start(key, started_at=1, measured_bytes=measured, law=law, trusted=True)
    return build_learned(dump(known), namespace="system", name="learned", watched=watched)


def test_a_plan_is_made_by_what_the_operator_of_the_namespace_has_learned() -> None:
    body, plain = on_a_gpu()
    by_law = outcome(body, plain).decision
    place = around(clusters.body("Node", "h100-0"), learned=[taught(body, 900)])
    by_starts = outcome(body, place).decision
    assert by_law is not None
    assert by_starts is not None
    assert "by what 1 start held" in by_starts.kept.plan.reason
    assert by_starts.kept.plan.memory.kv < by_law.kept.plan.memory.kv
    others = around(clusters.body("Node", "h100-0"), learned=[taught(body, 900, watched=("team",))])
    assert outcome(body, others).decision == by_law
    assert document([outcome(body, place)], place, skipped=())["learned"] is True


def test_where_what_was_learned_cannot_be_read_it_is_said() -> None:
    body, place = on_a_gpu(learned=Missing("you may not list all configmaps: forbidden"))
    answer = outcome(body, place)
    assert "the operator may plan other bytes" in text(answer, place)
    assert document([answer], place, skipped=())["learned"] is False
    on_cpu = around(learned=Missing("you may not list all configmaps: forbidden"))
    assert "configmaps" not in text(outcome(llm(), on_cpu), on_cpu)
