"""Rendered objects as files that people can read: `python -m unit.rendering.golden` (in tests/) writes them.

Those of CPU plans are of the version before plans had a GPU part: a change restarts what runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from tonnage.rendering.children import build_children
from tonnage.rendering.plan import Kept, hash_of
from unit.rendering.samples import (
    A_SLICE,
    CLAIMED,
    HUB,
    HUB_KEPT,
    KEPT,
    ON_FOUR,
    OWNER,
    SETTINGS,
    on_gpus,
    spec,
)

KINDS: Final = frozenset({"Deployment", "ResourceClaimTemplate", "LeaderWorkerSet"})
FILES: Final = Path(__file__).parent / "golden"


def rendered(kept: Kept, **fields: Any) -> list[dict[str, Any]]:
    """The children of a plan that depend on it, less the ConfigMap of the plan itself."""
    asked = spec(**fields)
    plan_hash = hash_of(kept, spec=asked)
    children = build_children(kept, plan_hash=plan_hash, spec=asked, owner=OWNER, settings=SETTINGS)
    return [child for child in children if child["kind"] in KINDS]


def objects() -> Mapping[str, list[dict[str, Any]]]:
    """What is rendered, by the name of its file."""
    one = replace(ON_FOUR, devices_per_pod=1)
    eight = replace(ON_FOUR, devices_per_pod=8, quantization="fp8_per_tensor", kv_scales="1.0")
    two_nodes = replace(eight, nodes_per_replica=2, pipeline_parallel=2)
    return {
        "cpu": rendered(KEPT),
        "cpu-hub": rendered(HUB_KEPT, model=HUB),
        "gpu-resource": rendered(on_gpus(one)),
        "gpu-mig": rendered(on_gpus(A_SLICE)),
        "gpu-claim": rendered(on_gpus(CLAIMED)),
        "gpu-two-nodes": rendered(on_gpus(two_nodes), replicas=2),
        "gpu-tensor-8": rendered(on_gpus(eight, kept=HUB_KEPT, kv_dtype="fp8"), model=HUB),
    }


def text_of(children: list[dict[str, Any]]) -> str:
    """Objects in the form of the files."""
    return yaml.safe_dump_all(children, sort_keys=False, width=110)


if __name__ == "__main__":
    for name, children in objects().items():
        (FILES / f"{name}.yaml").write_text(text_of(children))
