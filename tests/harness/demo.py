"""`make demo`: from nothing to an answer, with what was planned beside what the engine reports."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness import chart, lifecycle
from harness.cluster import Cluster
from harness.engine.models import SMOLLM2, models_directory
from harness.images import catalogue
from harness.models_volume import CLAIM, make_claim, mounted_directory
from harness.paths import CACHE, REPOSITORY
from harness.steps import StepError, say, step
from harness.waiting import wait_until

_EXAMPLE = REPOSITORY / "examples/smollm2-cpu.yaml"
_NAME = "chat"
_QUESTION = "What is the capital of France?"
_READY_SECONDS = 900.0
_LOCAL_NAMESPACE = "demo"
_MARK = {"harness.tonnage.dev/demo": "true"}
"""On the namespace that the demo made: nothing else is ever upgraded or removed."""


def up(options: argparse.Namespace) -> None:
    """Install Tonnage, serve the example, ask it something, compare plan and engine."""
    existing = options.cluster == "existing"
    if existing:
        cluster, namespace = _existing(options)
        operator, worker, pull_policy = options.operator_image, options.worker_image, "IfNotPresent"
    else:
        cluster, namespace = _local(), _LOCAL_NAMESPACE
        with step("build images"):
            images = catalogue.operator(), catalogue.worker_cpu()
        operator, worker = (cluster.load(image) for image in images)
        pull_policy = "Never"
    try:
        chart.install(cluster, operator=operator, worker=worker, pull_policy=pull_policy, labels=_MARK)
        with step(f"apply {_EXAMPLE.relative_to(REPOSITORY)}"):
            cluster.kubectl("apply", "-n", namespace, "-f", str(_EXAMPLE))
        _await_ready(cluster, namespace)
        _show(cluster, namespace, existing=existing)
    except Exception:
        _keep_operator_log(cluster)
        raise
    say(f"kubeconfig of the cluster: {cluster.kubeconfig}")


def down(options: argparse.Namespace) -> None:
    """Remove what `up` started."""
    if options.cluster == "existing":
        cluster = lifecycle.from_current_kubeconfig()
        try:
            if not _is_ours(cluster):
                raise StepError(f"namespace {chart.NAMESPACE} is not the demo's: nothing was removed")
            with step(f"delete {_EXAMPLE.relative_to(REPOSITORY)}"):
                cluster.kubectl("delete", "-f", str(_EXAMPLE), "--ignore-not-found", check=False)
            chart.uninstall(cluster)
        finally:
            shutil.rmtree(cluster.state)  # it holds a copy of the credentials
    else:
        lifecycle.stop(lifecycle.named("demo"))


def _local() -> Cluster:
    directory = models_directory()
    cluster = lifecycle.start_real("demo")
    if mounted_directory(cluster, namespace=_LOCAL_NAMESPACE) not in ("", str(directory)):
        say("the running demo mounts other models: it is started anew")
        lifecycle.stop(cluster)
        cluster = lifecycle.start_real("demo")
    lifecycle.disown(cluster)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": _LOCAL_NAMESPACE, "labels": labels}
    with step("make the volume with the models"):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        make_claim(cluster, directory, namespace=_LOCAL_NAMESPACE)
    return cluster


def _existing(options: argparse.Namespace) -> tuple[Cluster, str]:
    if not (options.operator_image and options.worker_image):
        raise StepError(
            "CLUSTER=existing needs images that your cluster can pull: OPERATOR_IMAGE=... WORKER_IMAGE=... "
            "(operator/Containerfile and worker/Containerfile build them)"
        )
    cluster = lifecycle.from_current_kubeconfig()
    _refuse_to_displace(cluster)
    namespace = cluster.kubectl("config", "view", "-o", "jsonpath={..namespace}").strip() or "default"
    if cluster.get("pvc", CLAIM, namespace=namespace) is None:
        raise StepError(
            f"namespace {namespace} has no PersistentVolumeClaim `{CLAIM}`: make one that holds the model "
            f"in its folder {SMOLLM2}"
        )
    return cluster, namespace


def _is_ours(cluster: Cluster) -> bool:
    namespace = cluster.get("namespace", chart.NAMESPACE) or {"metadata": {}}
    return bool(_MARK.items() <= namespace["metadata"].get("labels", {}).items())


def _refuse_to_displace(cluster: Cluster) -> None:
    """Two operators would work against each other, and the demo must not take over somebody's own."""
    selector = "app.kubernetes.io/name=tonnage,app.kubernetes.io/component=operator"
    where = "jsonpath={range .items[*]}{.metadata.namespace} {end}"
    found = cluster.kubectl("get", "deployments", "--all-namespaces", "-l", selector, "-o", where).split()
    if (found or cluster.get("namespace", chart.NAMESPACE)) and not _is_ours(cluster):
        raise StepError(
            f"the cluster has a Tonnage already (namespace {', '.join(found) or chart.NAMESPACE}): "
            f"apply {_EXAMPLE.relative_to(REPOSITORY)} to it instead of running the demo"
        )


def _await_ready(cluster: Cluster, namespace: str) -> None:
    said = ""

    def ready() -> bool:
        nonlocal said
        status = (cluster.get("llmdeployment", _NAME, namespace=namespace) or {}).get("status", {})
        conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
        condition = conditions.get("Ready", {})
        now = f"{status.get('phase', 'Pending')}: {condition.get('message', 'not seen by the operator yet')}"
        if now != said:
            say(now)
            said = now
        return bool(condition.get("status") == "True")

    with step("wait until it is Ready"):
        try:
            wait_until(f"LLMDeployment {_NAME} to be Ready", ready, seconds=_READY_SECONDS)
        except TimeoutError as error:
            raise StepError(f"{error}; it said last: {said}") from error


def _show(cluster: Cluster, namespace: str, *, existing: bool) -> None:
    with (_forwarded if existing else _direct)(cluster, namespace) as url:
        with step("ask through the Service"):
            answer = _chat(url)
        reported = _engine_reports(url)
    status = (cluster.get("llmdeployment", _NAME, namespace=namespace) or {})["status"]
    print(f"\n> {_QUESTION}\n{answer}\n")
    print(cluster.kubectl("get", "llmdep", "-n", namespace))
    print(_comparison(status["plan"]["kv"], reported))


def _comparison(planned: dict[str, Any], reported: dict[str, str]) -> str:
    concurrency = f"{float(reported['kv_cache_max_concurrency']):.2f}".rstrip("0").rstrip(".")
    rows = [
        ("KV blocks", str(planned["blocks"]), reported["num_gpu_blocks"]),
        ("KV tokens", str(planned["tokens"]), reported["kv_cache_size_tokens"]),
        ("concurrency at context", str(planned["concurrencyAtContext"]), concurrency),
    ]
    lines = [f"{'':24}{'planned':>12}{'engine':>12}"]
    lines += [f"{what:24}{plan:>12}{engine:>12}" for what, plan, engine in rows]
    if unequal := [what for what, plan, engine in rows if plan != engine]:
        raise StepError("\n".join([*lines, f"planned and engine-reported {', '.join(unequal)} differ"]))
    return "\n".join([*lines, "", "planned and engine-reported are equal"])


@contextmanager
def _direct(cluster: Cluster, namespace: str) -> Iterator[str]:
    """The Service's own address: this machine is a node of the local cluster."""
    service = cluster.get("service", _NAME, namespace=namespace) or {}
    yield f"http://{service['spec']['clusterIP']}"


@contextmanager
def _forwarded(cluster: Cluster, namespace: str) -> Iterator[str]:
    argv = [cluster.program("kubectl"), "port-forward", "-n", namespace, f"service/{_NAME}", ":80"]
    with subprocess.Popen(argv, env=cluster.full_environment, stdout=subprocess.PIPE, text=True) as forward:
        assert forward.stdout
        try:
            line = forward.stdout.readline()
            port = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not port:
                raise StepError(f"kubectl port-forward service/{_NAME} said: {line or 'nothing'}")
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            forward.terminate()


def _chat(url: str) -> str:
    body = {
        "model": SMOLLM2,
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": 32,
        "temperature": 0,
    }
    answer = json.loads(_http(f"{url}/v1/chat/completions", body))
    content: str = answer["choices"][0]["message"]["content"]
    return content


def _engine_reports(url: str) -> dict[str, str]:
    pages = _http(f"{url}/metrics").splitlines()
    line = next(line for line in pages if line.startswith("vllm:cache_config_info{"))
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


def _http(url: str, body: dict[str, Any] | None = None) -> str:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=120) as response:
        text: str = response.read().decode()
    return text


def _keep_operator_log(cluster: Cluster) -> None:
    log = CACHE / "logs/demo-operator.log"
    target = f"deployment/{chart.RELEASE}"
    log.write_text(cluster.kubectl("logs", target, "-n", chart.NAMESPACE, "--tail=-1", check=False))
    say(f"log of the operator: {log}; logs of the cluster: {cluster.state / 'logs'}")


def main() -> int:
    """Run `up` or `down`; a failure is one message and exit code 1."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--cluster", choices=["local", "existing"], default="local")
    parser.add_argument("--operator-image", default="")
    parser.add_argument("--worker-image", default="")
    options = parser.parse_args()
    begun = time.monotonic()
    try:
        (up if options.action == "up" else down)(options)
    except (StepError, TimeoutError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        print(f"demo failed by a bug of its own; logs: {CACHE / 'logs'}", file=sys.stderr)
        return 1
    say(f"demo {options.action} took {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
