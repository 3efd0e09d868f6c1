"""Pods as records: what is kept of them, whatever was injected beside our container."""

from __future__ import annotations

from typing import Any

from tonnage.cluster.records import pod_record


def status(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": 1, "containerID": f"containerd://{name}", **state}


def body(*statuses: dict[str, Any]) -> dict[str, Any]:
    meta = {"namespace": "default", "name": "chat-1", "uid": "p1"}
    return {"metadata": meta, "status": {"phase": "Running", "containerStatuses": list(statuses)}}


def test_our_container_is_read_and_not_the_one_before_it() -> None:
    sidecar = status("a-proxy", state={"running": {}})
    ended = {"exitCode": 1, "reason": "Error", "message": "why"}
    ours = status(
        "engine", state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended}
    )
    record = pod_record(body(sidecar, ours))
    assert (record.running, record.waiting_reason, record.container_id) == (
        False,
        "CrashLoopBackOff",
        "containerd://engine",
    )
    assert record.last_exit is not None
    assert record.last_exit.message == "why"


def test_a_pod_without_our_container_says_nothing() -> None:
    assert pod_record(body(status("a-proxy", state={"running": {}}))).running is False
