"""The worker as a process: real subprocesses, real signals, an engine that misbehaves on command."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from unit.worker.worker_process import Worker


def test_an_engine_as_planned_becomes_ready(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.until(lambda: worker.get("/live")[0] == 200, "alive")
        worker.until_ready()
        report = worker.capacity()
    figures = {"blocks": 182, "tokens": 5824, "concurrency": "2.84375", "blockSize": 32, "kvDtype": "auto"}
    assert report.pop("startSeconds") >= 0
    assert report == {
        "state": "Verified",
        "planHash": "1f2e3d4c5b",
        "verification": "Strict",
        "expected": figures,
        "observed": figures,
        "engines": 1,
        "engineVersion": "0.32.0",
        "reason": "CapacityVerified",
        "message": "the engine holds the planned 182 KV blocks of 32 tokens, 5824 tokens, "
        "concurrency 2.84375, dtype auto",
        "kvUsage": 0.25,
        "memory": None,
    }


def test_what_the_engine_left_of_its_device(tmp_path: Path) -> None:
    told = {"total": 100, "free_at_start": 90, "free_at_ready": 5, "compiled": True}
    with Worker(tmp_path, faults={"memory": told}) as worker:
        worker.until_ready()
        assert worker.capacity()["memory"] == {
            "totalBytes": 100,
            "freeAtStartBytes": 90,
            "freeAtReadyBytes": 5,
            "compiled": True,
        }
        assert list(tmp_path.glob("tonnage-memory-*"))
        worker.process.send_signal(signal.SIGINT)
        worker.wait()
    assert not list(tmp_path.glob("tonnage-memory-*"))


def test_the_engine_gets_its_arguments_the_middleware_and_the_drain_file(tmp_path: Path) -> None:
    with Worker(tmp_path, engine_arguments=("--model", "/models/m", "--", "odd")) as worker:
        worker.until_ready()
        seen = json.loads(worker.get("/environment", port=worker.engine_port)[1])
        pid = worker.process.pid
    assert seen["arguments"] == [
        *("--port", str(worker.engine_port), "--model", "/models/m", "--", "odd"),
        *("--middleware", "tonnage_worker.drain_middleware.CloseWhenDraining"),
    ]
    assert seen["TONNAGE_DRAIN_FILE"] == str(tmp_path / f"tonnage-draining-{pid}")


@pytest.mark.parametrize(
    ("verification", "blocks", "state", "ready"),
    [
        ("Strict", 91, "Mismatch", False),
        ("Strict", 364, "Mismatch", False),
        ("AtLeast", 91, "Mismatch", False),
        ("AtLeast", 364, "Verified", True),
        ("Report", 91, "Reported", True),
    ],
)
def test_an_engine_not_as_planned(
    tmp_path: Path, verification: str, blocks: int, state: str, ready: bool
) -> None:
    with Worker(tmp_path, faults={"blocks": blocks}, verification=verification) as worker:
        worker.until_state(state)
        report, answer, live = worker.capacity(), worker.get("/ready"), worker.get("/live")[0]
        metrics = worker.get("/metrics")[1]
    assert answer[0] == (200 if ready else 503)
    assert live == 200, "a mismatch must not become a crash loop"
    assert f"{blocks} KV blocks of 32 tokens, planned 182 of 32" in report["message"]
    assert report["reason"] == ("CapacityDiffers" if ready else "CapacityMismatch")
    assert f"tonnage_capacity_verified {float(ready)}" in metrics
    assert worker.output().count(f"{blocks} KV blocks of 32 tokens, planned 182 of 32") == 1


def test_an_engine_that_does_not_report_capacity_is_never_ready(tmp_path: Path) -> None:
    with Worker(tmp_path, faults={"labels": None}) as worker:
        worker.until_state("Mismatch")
        assert worker.get("/ready")[0] == 503
        report = worker.capacity()
    assert (report["reason"], report["observed"]) == ("CapacityUnknown", None)


def test_the_metrics_page_joins_both_and_is_valid(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.until_ready()
        text = worker.get("/metrics")[1]
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["vllm:kv_cache_usage_perc"] == 0.25
    assert values["tonnage_planned_kv_blocks"] == values["tonnage_observed_kv_blocks"] == 182
    assert (values["tonnage_capacity_verified"], values["tonnage_engine_up"]) == (1, 1)


@pytest.mark.parametrize(
    ("faults", "code", "reason", "words"),
    [
        ({"exit": 3, "print": ["ValueError: no such thing"]}, 3, "EngineExited", "ValueError: no such thing"),
        ({"exit": 0}, 1, "EngineExited", "exit code 0"),
        ({"signal": 9}, 137, "EngineKilled", "SIGKILL"),
        ({"signal": 11}, 139, "EngineExited", "SIGSEGV"),
        (
            {"exit": 1, "print": ["No available memory for the cache blocks."]},
            1,
            "NoKvMemory",
            "No available",
        ),
    ],
)
def test_an_engine_that_ends_by_itself(
    tmp_path: Path, faults: dict[str, Any], code: int, reason: str, words: str
) -> None:
    with Worker(tmp_path, faults=faults) as worker:
        assert worker.wait() == code
        last = worker.last_words()
    assert (last["reason"], last["exitCode"]) == (reason, code)
    assert words in last["message"]


def test_secrets_do_not_reach_the_termination_message_or_the_log(tmp_path: Path) -> None:
    faults = {"exit": 1, "print": ["ValueError: bad token s3cr3t-value and topsecret1 and Bearer abc.def"]}
    with Worker(
        tmp_path,
        faults=faults,
        environment={"HF_TOKEN": "s3cr3t-value"},
        engine_arguments=("--api-key", "topsecret1"),
    ) as worker:
        worker.wait()
        message = worker.last_words()["message"]
    own_log = [line for line in worker.output().splitlines() if " tonnage_worker: " in line]
    for secret in ("s3cr3t-value", "topsecret1", "abc.def"):
        assert secret not in message
        assert secret not in "\n".join(own_log)
    # what is known to be secret is masked in the engine's lines too
    assert "s3cr3t-value" not in worker.output()
    assert "topsecret1" not in worker.output()
    assert "ValueError: bad token [redacted]" in message


@pytest.mark.parametrize(
    ("plan", "words"), [("{", "not JSON"), ('{"schema": 7}', "schema is 7, this worker reads 1")]
)
def test_an_unreadable_plan_starts_no_engine(tmp_path: Path, plan: str, words: str) -> None:
    with Worker(tmp_path, plan=plan) as worker:
        assert worker.wait() == 2
        last = worker.last_words()
    assert last["reason"] == "PlanUnreadable"
    assert words in last["message"]
    assert str(tmp_path / "plan.json") in last["message"]


def test_a_drain_waits_for_a_stream_and_ends_with_zero(tmp_path: Path) -> None:
    parts: list[str] = []
    with Worker(tmp_path) as worker:
        worker.until_ready()
        client = threading.Thread(
            target=lambda: parts.append(worker.get("/stream/2", port=worker.engine_port)[1])
        )
        client.start()
        worker.until(lambda: "GET /stream/2" in worker.output(), "the stream is open")
        worker.process.send_signal(signal.SIGTERM)
        worker.until_state("Draining")
        answers = worker.get("/ready"), worker.get("/live")[0]
        client.join()
        code = worker.wait()
    assert answers == ((503, "draining\n"), 200)
    assert parts == ["".join(f"part {part}\n" for part in range(10))]
    assert (code, worker.last_words()["reason"]) == (0, "Drained")
    assert not list(tmp_path.glob("tonnage-draining-*"))


def test_a_second_sigterm_does_not_shorten_the_drain(tmp_path: Path) -> None:
    with Worker(tmp_path, drain__endpointSeconds=3) as worker:
        worker.until_ready()
        worker.process.send_signal(signal.SIGTERM)
        worker.until_state("Draining")
        worker.process.send_signal(signal.SIGTERM)
        worker.until(lambda: "further SIGTERM" in worker.output(), "the second signal was seen")
        still = worker.capacity()
        assert worker.wait() == 0
    assert (still["state"], still["message"]) == ("Draining", "waiting for endpoints to be forgotten")


def test_draining_sets_the_flag_for_the_middleware(tmp_path: Path) -> None:
    with Worker(tmp_path, drain__endpointSeconds=2) as worker:
        worker.until_ready()
        assert not list(tmp_path.glob("tonnage-draining-*"))
        worker.process.send_signal(signal.SIGTERM)
        worker.until_state("Draining")
        assert list(tmp_path.glob("tonnage-draining-*"))


def test_a_flag_left_by_an_earlier_container_is_removed(tmp_path: Path) -> None:
    leave_flag = "open(os.environ['TMPDIR'] + f'/tonnage-draining-{os.getpid()}', 'w').close()"
    with Worker(tmp_path, before=leave_flag) as worker:
        worker.until(lambda: worker.get("/live")[0] == 200, "alive")
        worker.until_ready()
        assert not list(tmp_path.glob("tonnage-draining-*"))


def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    soon = "from tonnage_worker import drain; drain.KILL_MARGIN_SECONDS = 0.5"
    faults = {"ignore_sigterm": True}
    with Worker(tmp_path, faults=faults, before=soon, drain__shutdownTimeoutSeconds=0) as worker:
        worker.until_ready()
        engine = _engine_pid(worker)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 137
    assert worker.last_words()["reason"] == "DrainTimeout"
    assert not _exists(engine)


def test_sigterm_while_the_engine_mismatches_stops_it_at_once(tmp_path: Path) -> None:
    with Worker(tmp_path, faults={"blocks": 91}, drain__endpointSeconds=3600) as worker:
        worker.until_state("Mismatch")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    last = worker.last_words()
    assert last["reason"] == "CapacityMismatch"
    assert "91 KV blocks of 32 tokens, planned 182 of 32" in last["message"]


def test_sigint_stops_at_once(tmp_path: Path) -> None:
    with Worker(tmp_path, faults={"ignore_sigterm": True}, drain__endpointSeconds=3600) as worker:
        worker.until_ready()
        engine = _engine_pid(worker)
        worker.process.send_signal(signal.SIGINT)
        assert worker.wait() == 130
    assert worker.last_words()["reason"] == "Interrupted"
    assert not _exists(engine)


def test_a_sigterm_in_the_first_moment_is_not_lost(tmp_path: Path) -> None:
    """The kernel drops signals for a PID 1 without a handler: ours must stand before the imports."""
    with Worker(tmp_path) as worker:
        worker.until(lambda: _handles_sigterm(worker.process.pid), "the first handler stands")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert worker.last_words()["reason"] == "Drained"


def test_orphans_of_the_engine_are_reaped(tmp_path: Path) -> None:
    with Worker(tmp_path, faults={"orphan": True}) as worker:
        worker.until_ready()
        engine = _engine_pid(worker)
        worker.until(lambda: set(_children(worker.process.pid)) == {engine}, "only the engine is left")


def test_a_sick_engine_takes_the_pod_out_of_service(tmp_path: Path) -> None:
    with Worker(tmp_path, faults={"sick_after": 3}) as worker:
        worker.until(lambda: "healthy after" in worker.output(), "healthy once")
        worker.until(lambda: "answers /health with an error" in worker.get("/ready")[1], "not ready")
        assert worker.get("/live")[0] == 200


def test_an_engine_that_stays_sick_is_ended(tmp_path: Path) -> None:
    soon = "from tonnage_worker import status; status.UNHEALTHY_SECONDS = 1.0"
    with Worker(tmp_path, faults={"sick_after": 3, "ignore_sigterm": True}, before=soon) as worker:
        assert worker.wait() == 1
    last = worker.last_words()
    assert last["reason"] == "EngineUnhealthy"
    assert "was healthy and has not been for" in last["message"]


def test_own_probes_are_kept_out_of_the_log_and_others_are_not(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.until_ready()
        worker.get("/health", port=worker.engine_port)
        worker.until(lambda: "127.0.0.1:" in worker.output(), "a client's request is logged")
        assert "127.0.0.2:" not in worker.output()


def test_the_workers_port_in_use_is_said(tmp_path: Path) -> None:
    with Worker(tmp_path) as first:
        first.until_ready()
        second = Worker(tmp_path)
        second.command[second.command.index(str(second.port))] = str(first.port)
        second.log = tmp_path / "log2"
        with second:
            assert second.wait() == 71
    assert "address already in use" in second.output()


def test_unknown_paths_are_not_found(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.until(lambda: worker.get("/live")[0] == 200, "alive")
        connection = http.client.HTTPConnection("127.0.0.1", worker.port)
        connection.request("GET", "/nothing")
        assert connection.getresponse().status == 404
        connection.close()


def _engine_pid(worker: Worker) -> int:
    line = next(line for line in worker.output().splitlines() if "started fake_engine as process" in line)
    return int(line.rpartition(" ")[2])


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _handles_sigterm(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
