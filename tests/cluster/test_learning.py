"""What starts teach: kept beside the operator, by rights of its own and once each, and used by new plans."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.command_line import tonnage
from cluster.conftest import HEALTH_PORT
from cluster.objects import llm, plan_map
from cluster.operator_process import Release, install_rights, operator_process, rights
from cluster.test_gpu_objects import Room
from harness.audit import Request
from harness.chart import NAMESPACE
from harness.cluster import Cluster
from harness.simulated_workers import SimulatedWorkers, simulated_workers
from harness.waiting import wait_until
from tonnage.control.learning import WRITE_SECONDS
from tonnage.planning.gpu.again import sized_again
from tonnage.planning.gpu.candidates import Candidate
from tonnage.planning.residuals import Learned, Residuals, plan_bound, read
from tonnage.rendering.plan import read_kept

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="simulated workers need root"),
]
BESIDE = 3 * 2**29
ON_GPUS = {"accelerator": "GPU"}
MAP = "learner-learned"
PARTS = ("context", "nonTorch", "weights", "activation", "graphs", "burstMargin", "kv")
SOON = WRITE_SECONDS + 30.0


class School:
    """A release that serves one namespace, with what its operators keep of what they learned."""

    def __init__(self, cluster: Cluster, namespace: str, workers: SimulatedWorkers) -> None:
        self.cluster, self.workers = cluster, workers
        self.room = Room(cluster, namespace)
        self.release = Release("learner", (f"watchNamespaces={{{namespace}}}",))
        self.start = cluster.audit.position()

    def kept(self) -> Residuals:
        """What the ConfigMap holds."""
        body = self.cluster.get("configmap", MAP, namespace=NAMESPACE) or {}
        found, problems = read(body.get("data", {}))
        assert problems == ()
        return found

    def version(self) -> str:
        """The ConfigMap's resourceVersion."""
        body = self.cluster.get("configmap", MAP, namespace=NAMESPACE)
        assert body is not None
        return str(body["metadata"]["resourceVersion"])

    def starts(self) -> int:
        """How many starts are kept."""
        return sum(len(each.starts) for each in self.kept().learned.values())

    def learned(self) -> Learned:
        """What is kept of the one key that there is."""
        (found,) = self.kept().learned.values()
        return found

    def sized(self, name: str) -> Candidate:
        """What the laws alone say of an object's plan."""
        kept = read_kept(plan_map(self.cluster, namespace=self.room.namespace, name=name))
        assert kept is not None
        model = kept.resolved()
        assert model is not None
        found = sized_again(kept.plan, model=model.profile)
        assert found is not None
        return found

    def explained(self, name: str) -> dict[str, Any]:
        """What `tonnage explain` tells of what was learned."""
        shown = tonnage(self.cluster, "explain", name, "-n", self.room.namespace, "-o", "json")
        found: dict[str, Any] = shown.document["learned"]
        return found

    def asked(self) -> list[Request]:
        """What the operators asked of the API server."""
        return self.cluster.audit.requests(after=self.start, user=self.release.account)


@pytest.fixture
def school(cluster: Cluster, namespace: str) -> Iterator[School]:
    """A room of its own, and workers that tell of their devices."""
    with simulated_workers(cluster) as workers:
        found = School(cluster, namespace, workers)
        install_rights(cluster, found.release)
        yield found
        found.room.end()
        cluster.remove(*rights(found.release))
        cluster.kubectl("delete", "configmap", MAP, "-n", NAMESPACE, "--ignore-not-found")


def test_a_start_teaches_once_and_new_plans_take_it_up(school: School) -> None:
    room, workers = school.room, school.workers
    room.add("h100-0", gpus=4)
    workers.hold(BESIDE)
    with operator_process(
        school.cluster, port=HEALTH_PORT, identity="learner", release=school.release
    ) as operator:
        room.put("first")
        room.is_ready("first")
        before = room.plan("first")
        assert "held:" not in before["reason"]
        wait_until("one start to be kept", lambda: school.starts() == 1, seconds=SOON)
        assert operator.metric("tonnage_learned_starts_total") == 1
    sized = school.sized("first")
    measured = round((BESIDE - sized.budget.at_ready.likely) / 2**20)
    assert school.learned().residuals_mib == (measured,)

    version = school.version()
    with operator_process(
        school.cluster, port=HEALTH_PORT, identity="learner", release=school.release
    ) as operator:
        wait_until("a pass", lambda: operator.metric("tonnage_reconciles_total") >= 1)
        time.sleep(WRITE_SECONDS + 5)
        assert operator.metric("tonnage_learned_starts_total") == 0
        assert (school.version(), room.plan("first")) == (version, before)

        bound = plan_bound(sized.budget, school.learned())
        body = llm("second", hardware=ON_GPUS, template={"nodeSelector": {"room": room.namespace}})
        foretold = tonnage(
            school.cluster, "plan", "-f", "-", "-n", room.namespace, "-o", "json", stdin=body
        ).document
        room.put("second")
        room.is_ready("second")
        after = room.plan("second")
        assert "by what 1 start held" in after["reason"]
        assert foretold["learned"] is True
        assert foretold["objects"][0]["plan"] == after
        assert 0 <= bound - after["memoryBytes"]["kv"] < after["kv"]["bytesPerBlock"]
        assert after["memoryBytes"]["kv"] > before["memoryBytes"]["kv"]
        assert sum(after["memoryBytes"][name] for name in PARTS) <= after["placement"]["deviceBytes"]
        wait_until("both starts to be kept", lambda: school.starts() == 2, seconds=SOON)
        assert room.plan("first") == before
        told = {name: school.explained(name) for name in ("first", "second")}
        assert {name: each["used"] for name, each in told.items()} == {"first": False, "second": True}
        for each in told.values():
            assert (each["starts"], each["bound_mib"]) == (2, school.learned().bound_mib)

        # to forget: delete it; what starts afterwards teaches
        school.cluster.kubectl("delete", "configmap", MAP, "-n", NAMESPACE)
        room.put("third")
        room.is_ready("third")
        wait_until("the third start alone to be kept", lambda: school.starts() == 1, seconds=SOON)
        room.cluster.kubectl("annotate", "llmdep/first", "tonnage.dev/replan=1", "-n", room.namespace)
        assert "by what 1 start held" in room.changed_from("first", before)["reason"]

    asked = school.asked()
    assert [each.path for each in asked if each.forbidden] == []
    beside = {(each.what, each.name) for each in asked if each.namespace == NAMESPACE}
    assert {each for each in beside if "leases" not in each[0]} == {
        ("get configmaps", MAP),
        ("patch configmaps", MAP),
    }


def test_where_it_may_not_be_kept_it_is_said_and_plans_use_it_all_the_same(school: School) -> None:
    room = school.room
    room.add("h100-0", gpus=2)
    school.workers.hold(BESIDE)
    without = Release(school.release.name, (*school.release.values, "learning.enabled=false"))
    school.cluster.remove(*rights(school.release))
    install_rights(school.cluster, without)
    with operator_process(
        school.cluster, port=HEALTH_PORT, identity="learner", release=school.release
    ) as operator:
        room.put("first")
        room.is_ready("first")
        wait_until("a start to teach", lambda: operator.metric("tonnage_learned_starts_total") == 1)
        room.put("second")
        room.is_ready("second")
        assert "by what 1 start held" in room.plan("second")["reason"]
        assert operator.page("/readyz")
        assert operator.page("/healthz")
        said = [line for line in operator.log.read_text().splitlines() if "cannot be kept" in line]
        assert said
        assert "the chart's Role of this namespace grants get, create and patch" in said[-1]
    assert {each.what for each in school.asked() if each.forbidden} == {"get configmaps"}
