"""The worker around the real engine, without a cluster: capacity, drain, reasons of exits."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.engine.install import ENVIRONMENT, LAUNCHER, PYTHON, engine_site
from harness.engine.models import SMOLLM2, models_directory
from harness.images.catalogue import entry_points
from harness.paths import REPOSITORY
from unit.worker import worker_process
from unit.worker.worker_process import Worker

pytestmark = pytest.mark.e2e
KV_BYTES = 128 * 2**20
TOO_LARGE = {"weights": 2**28, "kv": 2**50, "activation": 0, "graphs": 0, "burstMargin": 0}


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "DEADLINE_SECONDS", 300.0)


def real(directory: Path, *, kv_bytes: int = KV_BYTES, model: str = SMOLLM2, **changes: Any) -> Worker:
    """A worker with the real engine on 127.0.0.1; `changes` go to the plan."""
    arguments = [
        *("--model", str(models_directory() / model), "--served-model-name", "m", "--host", "127.0.0.1"),
        *("--kv-cache-memory-bytes", str(kv_bytes), "--max-model-len", "2048", "--block-size", "32"),
        *("--max-num-seqs", "32", "--shutdown-timeout", "60", "--enforce-eager"),
    ]
    worker = REPOSITORY / "worker"
    for path, content in entry_points(worker / "pyproject.toml").items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_bytes(content)
    python_path = f"{engine_site()}:{LAUNCHER.parent}:{worker / 'src'}:{directory}"
    return Worker(
        directory,
        python=str(PYTHON),
        engine_arguments=tuple(arguments),
        environment={**ENVIRONMENT, "PYTHONPATH": python_path, "HOME": str(directory)},
        drain__endpointSeconds=7,
        drain__shutdownTimeoutSeconds=60,
        **changes,
    )


class Client:
    """One keep-alive connection to the engine."""

    def __init__(self, worker: Worker) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", worker.engine_port, timeout=120)

    def ask(self, *, tokens: int, stream: bool = False) -> tuple[dict[str, Any], bool]:
        """(finish_reason and completion_tokens, whether the server closes the connection)."""
        body = {"model": "m", "prompt": "Count:", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        self._connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        text = answer.read().decode()
        parts = (
            [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            if stream
            else [json.loads(text)]
        )
        choices = [choice for part in parts for choice in part["choices"] if choice["finish_reason"]]
        usage = [part["usage"]["completion_tokens"] for part in parts if part.get("usage")]
        result = {"status": answer.status, "finish": choices[-1]["finish_reason"], "tokens": usage[-1]}
        return result, answer.getheader("connection") == "close"

    @property
    def open(self) -> bool:
        return self._connection.sock is not None


def test_verified_served_and_drained_without_loss(tmp_path: Path) -> None:
    with real(tmp_path) as worker:
        worker.until_ready()
        report, metrics = worker.capacity(), worker.get("/metrics")[1]
        stays, streams = Client(worker), Client(worker)
        before = stays.ask(tokens=4)
        long: list[Any] = []
        stream = threading.Thread(target=lambda: long.append(streams.ask(tokens=300, stream=True)))
        stream.start()
        worker.until(lambda: "num_requests_running{" in _running(worker), "the stream runs")
        worker.process.send_signal(signal.SIGTERM)
        worker.until_state("Draining")
        ready = worker.get("/ready")
        during = stays.ask(tokens=4)
        stream.join()
        after_stream = streams.ask(tokens=4)
        code = worker.wait()
    assert report["observed"] == report["expected"]
    assert (report["state"], report["engineVersion"], report["observed"]["blocks"]) == (
        "Verified",
        "0.32.0",
        182,
    )
    names = [family.name for family in text_string_to_metric_families(metrics)]
    assert len(names) == len(set(names))
    assert before == ({"status": 200, "finish": "length", "tokens": 4}, False)
    assert ready == (503, "draining\n")
    assert during == ({"status": 200, "finish": "length", "tokens": 4}, True)
    assert long == [({"status": 200, "finish": "length", "tokens": 300}, False)]
    # Its connection had no `close` yet, since the stream began before the drain: it must still be served.
    assert after_stream == ({"status": 200, "finish": "length", "tokens": 4}, True)
    assert not stays.open
    assert (code, worker.last_words()["reason"]) == (0, "Drained")


def _running(worker: Worker) -> str:
    """Lines of the engine's page that count running requests, if there are any."""
    lines = worker.get("/metrics")[1].splitlines()
    return "\n".join(
        line for line in lines if line.startswith("vllm:num_requests_running{") and not line.endswith(" 0.0")
    )


def test_fewer_blocks_than_planned_stay_unready_and_alive(tmp_path: Path) -> None:
    with real(tmp_path, expected__blocks=364) as worker:
        worker.until_state("Mismatch")
        assert worker.get("/ready")[0] == 503
        assert worker.get("/live")[0] == 200
        report = worker.capacity()
    assert report["reason"] == "CapacityMismatch"
    assert "182 KV blocks of 32 tokens, planned 364 of 32" in report["message"]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"kv_bytes": 10**7}, "NoKvMemory", "the estimated maximum length is 384 tokens"),
        ({"model": "missing"}, "ModelNotFound", "there is no model at "),
        (
            {"plan__memoryBytes": TOO_LARGE, "plan__placement": {}},
            "InsufficientMemory",
            "the plan needs 1048576.25 GiB more (0.25 GiB weights and 1048576.00 GiB KV cache)",
        ),
    ],
)
def test_an_engine_that_cannot_start_says_why(
    tmp_path: Path, changes: dict[str, Any], reason: str, words: str
) -> None:
    with real(tmp_path, **changes) as worker:
        assert worker.wait() == 1
        last = worker.last_words()
    assert (last["reason"], words in last["message"]) == (reason, True), last
