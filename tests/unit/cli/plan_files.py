"""Files and surroundings for the tests of `tonnage plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tonnage.cli.manifests import Found
from tonnage.cli.surroundings import Surroundings
from tonnage.cluster.records import node_record
from unit.cli.samples import safetensors
from unit.models.samples import smollm2_config


def llm(
    name: str = "chat", *, uri: str = "pvc://models/smollm2-135m-instruct", **spec: Any
) -> dict[str, Any]:
    """An LLMDeployment of the small model."""
    base: dict[str, Any] = {
        "model": {"uri": uri},
        "workload": {"contextLength": 2048, "concurrency": 8, "typicalTokens": 512},
        "hardware": {"accelerator": "CPU"},
    }
    return {
        "apiVersion": "tonnage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {**base, **spec},
    }


def node(name: str = "cpu-1", *, memory: str = "32Gi", ready: str = "True") -> dict[str, Any]:
    """A Node as the API server shows it."""
    resources = {"cpu": "8", "memory": memory}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def write(path: Path, *bodies: object) -> str:
    """A file with these documents."""
    path.write_text(yaml.safe_dump_all(bodies, sort_keys=False))
    return str(path)


def model_with_weights(path: Path, config: dict[str, Any] | None = None) -> str:
    """A directory with a config.json and the header of a checkpoint of SmolLM2's size."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config or smollm2_config()))
    header = safetensors(elements=1)
    (path / "model.safetensors").write_bytes(header)
    return str(path)


def around(*nodes: dict[str, Any], **known: Any) -> Surroundings:
    """A cluster as it was read."""
    found = tuple(map(node_record, nodes or (node(),)))
    return Surroundings(**{"namespace": "default", "context": "kind", "nodes": found, **known})


def found(body: dict[str, Any]) -> Found:
    """An object as read from a file."""
    return Found(body=body, where="chat.yaml")
