"""What an engine says of itself, read from outside: chat, metrics, capacity."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

from harness.cluster import Cluster
from harness.images import catalogue
from harness.waiting import wait_until

WORKERS = "tonnage.dev/component=worker,tonnage.dev/deployment="


def service_url(cluster: Cluster, name: str, *, namespace: str) -> str:
    """Address of a Service; the host reaches cluster IPs through kube-proxy."""
    body = cluster.get("service", name, namespace=namespace)
    assert body is not None
    return f"http://{body['spec']['clusterIP']}"


def pods(cluster: Cluster, name: str, *, namespace: str) -> list[dict[str, Any]]:
    """Worker pods that are not being deleted."""
    found = cluster.find("pods", namespace=namespace, labels=f"{WORKERS}{name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: dict[str, Any]) -> bool:
    """The pod's Ready condition."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def get(url: str) -> str:
    """Body of a page."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def chat(url: str, *, model: str, tokens: int = 16) -> dict[str, Any]:
    """One chat completion."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        result: dict[str, Any] = json.loads(answer.read())
    return result


def cache_config(url: str) -> dict[str, str]:
    """Labels of the engine's own vllm:cache_config_info."""
    lines = get(f"{url}/metrics").splitlines()
    line = next(line for line in lines if line.startswith("vllm:cache_config_info{"))
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


def check_plan_equals_engine(cluster: Cluster, name: str, *, namespace: str) -> None:
    """Blocks, tokens, concurrency and bytes of the plan, the status and the engine itself are equal."""
    status = (cluster.get("llmdep", name, namespace=namespace) or {})["status"]
    planned, observed = status["plan"]["kv"], status["observed"]
    engine = cache_config(service_url(cluster, name, namespace=namespace))
    assert planned["blocks"] == int(engine["num_gpu_blocks"]) == observed["blocks"]
    assert planned["tokens"] == int(engine["kv_cache_size_tokens"]) == observed["tokens"]
    concurrency = float(engine["kv_cache_max_concurrency"])
    assert planned["concurrencyAtContext"] == f"{concurrency:.2f}".rstrip("0").rstrip(".")
    assert float(observed["concurrency"]) == concurrency
    assert planned["blockSize"] == int(engine["block_size"])
    assert planned["blocks"] * planned["bytesPerBlock"] == int(engine["kv_cache_memory_bytes"])


def serve_page(pod: dict[str, Any], path: str) -> str:
    """A page of the worker's own port."""
    return get(f"http://{pod['status']['podIP']}:8081{path}")


def ask_from_a_pod(cluster: Cluster, name: str, *, namespace: str) -> str:
    """What a pod in the cluster reads under the Service's name: the list of models."""
    url = f"http://{name}.{namespace}.svc.cluster.local/v1/models"
    script = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=20).read().decode())"
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "client",
        "image": cluster.load(catalogue.python()),
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-c", script],
        "securityContext": restricted,
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    cluster.delete("pod", "client", namespace=namespace)
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}, namespace=namespace
    )

    def ended() -> bool:
        phase = (cluster.get("pod", "client", namespace=namespace) or {})["status"]["phase"]
        return phase in ("Succeeded", "Failed")

    wait_until("the client pod to end", ended, seconds=120)
    return cluster.kubectl("logs", "client", "-n", namespace)
