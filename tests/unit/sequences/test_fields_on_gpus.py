"""On GPUs too every field does something: specs that differ in one leaf are rendered unlike, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from sequences.fields import ALIKE, Case, cases
from sequences.ground import BASE, DEDICATED
from sequences.schema import Spec
from tonnage.api.base import GROUP, KIND, VERSION
from tonnage.cli.exits import FINE, REFUSED
from unit.cli.samples import Run, runner
from unit.gpus.clusters import body

# four L40S hold it with a narrower KV cache than it ships
LARGE, LARGE_MODEL = "pvc://models/large", "meta-llama/Llama-3.3-70B-Instruct"
CONTEXT: Final = 32768
ALIKE_ON_GPUS: Final[Mapping[tuple[str, str], str]] = {
    **{name: why for name, why in ALIKE.items() if name != ("hardware.accelerator", "CPU")},
    ("hardware.accelerator", "GPU"): "what is chosen where there are GPUs",
}
"""As `ALIKE`, on a cluster that has GPUs."""
Said = tuple[int, str, str]
Effect = Callable[[Spec], Said]


@pytest.fixture
def effect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Effect:
    """What `tonnage plan` would have applied for a spec on GPUs, or why nothing."""
    tonnage, known = runner(capsys), dict[str, Said]()
    nodes = _written(tmp_path / "nodes.json", {"apiVersion": "v1", "kind": "List", "items": _nodes()})

    def found(spec: Spec) -> Said:
        spec = on_gpus(spec)
        text = json.dumps(spec, sort_keys=True)
        if text not in known:
            file = _written(tmp_path / "chat.json", _object(spec))
            known[text] = _plan(tonnage, "-f", file, "--node", nodes, "--model", LARGE_MODEL)
        return known[text]

    return found


def _plan(tonnage: Run, *asked: str) -> Said:
    said = tonnage("plan", *asked, "--manifests", "--worker-image", "worker:1")
    return said if said[0] == FINE else tonnage("plan", *asked)


def _written(file: Path, content: Mapping[str, Any]) -> str:
    file.write_text(json.dumps(content))
    return str(file)


def _object(spec: Spec) -> dict[str, Any]:
    meta = {"name": "chat", "namespace": "default"}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": meta, "spec": spec}


def _nodes() -> list[dict[str, Any]]:
    """Two nodes with four L40S each, labelled as those of the sequences, one of them tainted."""
    nodes = []
    for name, taints in (("a", []), ("tainted", [DEDICATED])):
        node = body("Node", "l40s-0")
        node["metadata"]["name"] = f"ground-{name}"
        node["metadata"]["labels"] |= {"pool": name, "kubernetes.io/os": "linux"}
        node["spec"] = {"taints": [{"key": t.key, "value": t.value, "effect": t.effect} for t in taints]}
        nodes.append(node)
    return nodes


def on_gpus(spec: Spec) -> Spec:
    """The same with a model that wants GPUs, and longer requests, where nothing else is said."""
    model = {**spec["model"], "uri": LARGE} if spec["model"]["uri"] == BASE["model"]["uri"] else spec["model"]
    return {**spec, "model": model, "workload": {"contextLength": CONTEXT, **spec.get("workload", {})}}


def test_without_any_field_it_is_planned_on_gpus(effect: Effect) -> None:
    code, output, _ = effect(BASE)
    assert code == FINE
    assert "nvidia.com/gpu: '4'" in output
    assert "int8_per_token_head" in output


def test_every_field_changes_what_is_made_on_gpus_or_is_refused(effect: Effect) -> None:
    silent = [case for case in cases() if not _does_something(case, effect)]
    fine = {case.field.name for case in cases() if case not in silent}
    # of a field that is no choice, one value suffices: another may be what the default is
    wrong = [case for case in silent if case.is_choice or case.field.name not in fine]
    named = {(case.field.name, str(case.value)) for case in wrong}
    assert named <= set(ALIKE_ON_GPUS), named - set(ALIKE_ON_GPUS)


def _does_something(case: Case, effect: Effect) -> bool:
    code, output, complaint = effect(case.spec)
    named = any(part in output for part in case.field.path)
    return (code == REFUSED and named) or (code, output, complaint) != effect(case.other)
