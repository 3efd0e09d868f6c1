"""`tonnage plan` without a cluster: what is read, what is answered, and the exit codes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.paths import REPOSITORY
from tonnage.planning.plan import Plan
from tonnage.rendering.plan import build_plan_status
from unit.cli.plan_files import llm, model_with_weights, node, write
from unit.cli.samples import Run
from unit.models.samples import llama_config
from unit.planning.samples import answer

EXAMPLE = str(REPOSITORY / "examples" / "smollm2-cpu.yaml")
DOCUMENTED = (REPOSITORY / "docs" / "machine-output.md").read_text()

GOLDEN = """\
default/chat: planned
  Lossless: KV cache as shipped is the least lossy choice: 34 blocks of 2949120 bytes hold 8.50
  requests of 512 tokens (8 asked) or 2.12 of 2048; with 0.09 GiB of KV, 0.30 GiB of weights, 0.04
  GiB of activations and 2.45 GiB for the engine the pod needs 2.89 GiB

  model      LlamaForCausalLM, from catalogue HuggingFaceTB/SmolLM2-135M-Instruct
             (mlc-ai/mlc-llm@01ced331 python/mlc_llm/model/model_preset.py#smollm2_135m); weights
             computed from its config, not read
  engine     vLLM 0.32.0, this release's; --engine-version names another
  nodes      1 in the files named by --node
  asked      requests of at most 2,048 tokens; 8 at a time, typically of 512; quality NearLossless
  runs on    one CPU node

  memory of one replica
    weights        0.30 GiB  ##
    activations   40.50 MiB  .
    engine         2.20 GiB  ..................
    KV cache      95.62 MiB  =
    /dev/shm       0.25 GiB  ..
    together       2.89 GiB

  KV cache   34 blocks of 128 tokens and 2,949,120 bytes: 4,352 tokens, dtype auto
             2.12 requests of 2,048 tokens, or 8.5 of 512
             GQA stores 23040 bytes per token, 3.0x less than multi-head attention
  instead    NearLossless: KV cache in fp8: needs 2.84 GiB, but a less lossy choice fits already
"""


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    """A file with one node."""
    return write(tmp_path / "nodes.yaml", {"apiVersion": "v1", "kind": "List", "items": [node()]})


def told(tonnage: Run, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, output, _ = tonnage("plan", *arguments, "-o", "json")
    document: dict[str, Any] = json.loads(output)
    return code, document


def test_text_of_the_example(tonnage: Run, nodes: str) -> None:
    assert tonnage("plan", "-f", EXAMPLE, "--node", nodes) == (0, GOLDEN, "")


def test_the_plan_is_the_planners_own(tonnage: Run, nodes: str) -> None:
    code, document = told(tonnage, "-f", EXAMPLE, "--node", nodes)
    shown = document["objects"][0]
    from tonnage.planning.plan import Demand

    plan = answer(Demand(context_length=2048, concurrency=8, typical_tokens=512))
    assert isinstance(plan, Plan)
    assert code == 0
    assert shown["plan"] == {**build_plan_status(plan, plan_hash=""), "hash": None}
    assert (shown["outcome"], shown["kept"], shown["standing"]) == ("planned", False, None)
    assert shown["request_bytes"] == plan.request_bytes
    assert (shown["engine_version"], shown["engine_version_from"]) == ("0.32.0", "release")


def test_yaml_says_the_same_as_json(tonnage: Run, nodes: str) -> None:
    _, document = told(tonnage, "-f", EXAMPLE, "--node", nodes)
    _, output, _ = tonnage("plan", "-f", EXAMPLE, "--node", nodes, "-o", "yaml")
    assert yaml.safe_load(output) == document


def test_keys_are_those_documented(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    file = write(tmp_path / "two.yaml", llm(), {"apiVersion": "v1", "kind": "Service"})
    _, document = told(tonnage, "-f", file, "--node", nodes)
    assert set(document) == {"context", "nodes", "learned", "objects", "skipped"}
    shown = document["objects"][0]
    assert set(shown) == {
        *("name", "namespace", "where", "outcome", "reason", "message", "numbers", "model", "plan", "kept"),
        *("engine_version", "engine_version_from", "request_bytes", "shared_memory_bytes", "refresh"),
        "standing",
    }
    for key in [*document, *shown, *shown["model"], *document["skipped"][0]]:
        assert f"`{key}`" in DOCUMENTED, key


@pytest.mark.parametrize(
    ("spec", "memory", "outcome", "reason", "code"),
    [
        ({}, "32Gi", "planned", None, 0),
        ({}, "1Gi", "does_not_fit", "NotEnoughMemory", 1),
        ({"template": {"nodeSelector": {"a": "b"}}}, "32Gi", "does_not_fit", "NoUsableNode", 1),
        ({"cache": {"sharing": {"mode": "Pool", "pool": {}}}}, "32Gi", "refused", "NotSupportedYet", 3),
        ({"workload": {"contextLength": "long"}}, "32Gi", "refused", "InvalidSpec", 3),
        ({"workload": {"contextLength": 10**6}}, "32Gi", "refused", "ContextTooLong", 3),
        ({"engine": {"extraArgs": ["--block-size=16"]}}, "32Gi", "refused", "PinnedByPlan", 3),
        ({"engine": {"version": "0.1"}}, "32Gi", "refused", "UnknownEngineVersion", 3),
        ({"model": {"uri": "pvc://models/no-such"}}, "32Gi", "unreadable", "ModelUnknown", 2),
        ({"model": {"uri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct"}}, "32Gi", "planned", None, 0),
        ({"model": {"uri": "hf://nobody/no-such"}}, "32Gi", "unreadable", "ModelUnknown", 2),
    ],
)
def test_outcomes_and_exit_codes(
    tonnage: Run,
    tmp_path: Path,
    spec: dict[str, Any],
    memory: str,
    outcome: str,
    reason: str | None,
    code: int,
) -> None:
    nodes = write(tmp_path / "nodes.yaml", node(memory=memory))
    file = write(tmp_path / "chat.yaml", llm(**spec))
    ended, document = told(tonnage, "-f", file, "--node", nodes)
    shown = document["objects"][0]
    assert (ended, shown["outcome"], shown["reason"]) == (code, outcome, reason)
    assert (shown["plan"] is None) == (code != 0)
    ended, text, _ = tonnage("plan", "-f", file, "--node", nodes)
    assert ended == code
    assert reason is None or f"  {reason}: " in text


def test_of_several_objects_the_highest_code_counts_and_all_are_told(
    tonnage: Run, nodes: str, tmp_path: Path
) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    file = write(tmp_path / "all.yaml", llm("a"), service, llm("b", workload={"concurrency": 60000}), None)
    code, document = told(tonnage, "-f", file, "--node", nodes)
    assert code == 1
    assert [each["outcome"] for each in document["objects"]] == ["planned", "does_not_fit"]
    assert document["skipped"] == [{"where": f"{file}, document 2", "kind": "v1 Service"}]
    assert document["objects"][1]["numbers"]["maxConcurrency"] > 8
    _, _, complaint = tonnage("plan", "-f", file, "--node", nodes)
    assert complaint == f"tonnage plan: {file}, document 2 is v1 Service: skipped\n"


def test_objects_come_from_several_files_lists_json_and_standard_input(
    tonnage: Run, nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"apiVersion": "tonnage.dev/v1alpha1", "kind": "LLMDeploymentList"}
    bare = {key: value for key, value in llm("b").items() if key in {"metadata", "spec"}}
    one = tmp_path / "one.json"
    one.write_text(json.dumps({**listed, "items": [llm("a"), bare]}))
    stdin = io.TextIOWrapper(io.BytesIO(yaml.safe_dump(llm("c")).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    code, document = told(tonnage, "-f", str(one), "-f", "-", "--node", nodes)
    assert code == 0
    assert [each["where"] for each in document["objects"]] == [
        f"{one}, item 1",
        f"{one}, item 2",
        "standard input",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("---\n---\n", "is empty"),
        ("- a\n", "no Kubernetes object"),
        ("just text", "no Kubernetes object"),
        ("a: [1, 2", "line 2, column 1 is no valid YAML"),
        ("a: 1\na: 2\n", "the key 'a' comes twice"),
        ("{" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply, or its aliases"),
        ("a: !!python/object/apply:os.getcwd []", "is no valid YAML"),
        ("a: .nan\n", "holds a value that JSON has not"),
        ("? [a]\n: 1\n", "is no valid YAML"),
        ("apiVersion: v1\nkind: Service\n", "no LLMDeployment in"),
        ("apiVersion: apps/v1\nkind: LLMDeployment\n", "no LLMDeployment in"),
        ("apiVersion: tonnage.dev/v1alpha1\nkind: LLMDeployment\n", "metadata must be there"),
        ("apiVersion: v1\nkind: List\nitems: [1]\n", "item 1 is no Kubernetes object"),
        (b"\xff\xfe\x00a", "no text in UTF-8"),
    ],
)
def test_files_that_say_nothing_end_in_two(
    tonnage: Run, nodes: str, tmp_path: Path, content: str | bytes, words: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    code, output, complaint = tonnage("plan", "-f", str(file), "--node", nodes)
    assert (code, output) == (2, "")
    assert words in complaint
    assert str(file) in complaint


def test_aliases_that_unfold_without_end_are_stopped(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 20)}]" for i in range(1, 9))]
    file = tmp_path / "laughs.yaml"
    file.write_text("\n".join(lines))
    code, _, complaint = tonnage("plan", "-f", str(file), "--node", nodes)
    assert code == 2
    assert "aliases unfold to too much" in complaint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "tonnage.dev/v2"}, "this version knows tonnage.dev/v1alpha1"),
        ({"spec": None}, "spec is missing"),
        ({"metadata": {}}, "metadata.name is missing"),
        ({"metadata": {"name": "Chat_1"}}, "metadata.name"),
    ],
)
def test_what_the_api_server_would_refuse_is_refused(
    tonnage: Run, nodes: str, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    file = write(tmp_path / "chat.yaml", {**llm(), **change})
    code, output, _ = tonnage("plan", "-f", file, "--node", nodes)
    assert code == 3
    assert words in output


def test_dates_stay_text_as_for_the_api_server(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text(yaml.safe_dump(llm(template={"labels": {"day": "DAY"}})).replace("DAY", "2026-01-01"))
    code, _, complaint = tonnage("plan", "-f", str(file), "--node", nodes)
    assert (code, complaint) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "-f/--filename"),
        (("-f", "/no/such.yaml"), "/no/such.yaml cannot be read: No such file"),
        (("-f", "/"), "/ cannot be read: Is a directory"),
        (("-f", EXAMPLE), "there is no kubeconfig"),
        (("-f", EXAMPLE), "without a cluster: --node FILE"),
        (("-f", EXAMPLE, "--kubeconfig", "/no/such"), "the kubeconfig /no/such does not exist"),
        (("-f", EXAMPLE, "--node", EXAMPLE), "holds no Node"),
        (("-f", EXAMPLE, "--node", "/no/such"), "/no/such cannot be read"),
        (("-f", EXAMPLE, "--nods", "x"), "did you mean --node?"),
        (("-f", EXAMPLE, "-o", "xml"), "invalid choice: 'xml'"),
    ],
)
def test_wrong_usage_ends_in_two(tonnage: Run, arguments: tuple[str, ...], words: str) -> None:
    code, output, complaint = tonnage("plan", *arguments)
    assert (code, output) == (2, "")
    assert complaint.splitlines()[-1].startswith(("tonnage plan: ", "`tonnage plan --help`"))
    assert words in complaint


def test_a_cluster_and_a_file_of_nodes_exclude_each_other(tonnage: Run, nodes: str) -> None:
    code, _, complaint = tonnage("plan", "-f", EXAMPLE, "--node", nodes, "--context", "prod")
    assert code == 2
    assert "leave out --context" in complaint


def test_a_namespace_that_contradicts_the_object_is_refused(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    body = llm()
    body["metadata"]["namespace"] = "team-a"
    file = write(tmp_path / "chat.yaml", body)
    assert told(tonnage, "-f", file, "--node", nodes)[1]["objects"][0]["namespace"] == "team-a"
    code, _, complaint = tonnage("plan", "-f", file, "--node", nodes, "-n", "team-b")
    assert code == 2
    assert "team-a, not team-b" in complaint


def test_a_directory_is_read_as_the_operator_reads_it(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    model = model_with_weights(tmp_path / "model")
    _, document = told(tonnage, "-f", EXAMPLE, "--node", nodes, "--model", model)
    shown = document["objects"][0]["model"]
    assert (shown["origin"], shown["weights"], shown["weights_bytes"]) == ("directory", "read", 2)
    (tmp_path / "model" / "model.safetensors").unlink()
    code, document = told(tonnage, "-f", EXAMPLE, "--node", nodes, "--model", model)
    assert (code, document["objects"][0]["reason"]) == (2, "WeightsMissing")


def test_a_config_alone_is_enough_and_says_that_weights_are_computed(
    tonnage: Run, nodes: str, tmp_path: Path
) -> None:
    config = Path(model_with_weights(tmp_path / "model")) / "config.json"
    _, read = told(tonnage, "-f", EXAMPLE, "--node", nodes, "--model", str(config))
    shown = read["objects"][0]["model"]
    assert (shown["origin"], shown["weights"], shown["weights_bytes"]) == ("file", "computed", 269_030_016)
    _, named = told(tonnage, "-f", EXAMPLE, "--node", nodes, "--model", "smollm2-135m-instruct")
    assert named["objects"][0]["plan"] == read["objects"][0]["plan"]


def test_an_architecture_that_is_not_planned_is_refused(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    model = model_with_weights(tmp_path / "odd", llama_config(architectures=["MadeUpForCausalLM"]))
    code, document = told(tonnage, "-f", EXAMPLE, "--node", nodes, "--model", model)
    assert (code, document["objects"][0]["reason"]) == (3, "UnknownArchitecture")
    assumed = llm(model={"uri": "pvc://models/odd", "assumeFullAttention": True})
    file = write(tmp_path / "assumed.yaml", assumed)
    assert told(tonnage, "-f", file, "--node", nodes, "--model", model)[0] == 0


def test_several_models_are_told_apart_by_their_uri(tonnage: Run, nodes: str, tmp_path: Path) -> None:
    small, large = "pvc://models/small", "pvc://models/large"
    file = write(tmp_path / "two.yaml", llm("a", uri=small), llm("b", uri=large), llm("c", uri=small))
    names = ("--model", f"{small}=smollm2-135m-instruct", "--model", f"{large}=SmolLM-1.7B-Instruct")
    _, document = told(tonnage, "-f", file, "--node", nodes, *names)
    sizes = [each["model"]["weights_bytes"] for each in document["objects"]]
    assert sizes[0] == sizes[2] == 269_030_016 < sizes[1]
    code, _, complaint = tonnage("plan", "-f", file, "--node", nodes, "--model", "smollm2-135m-instruct")
    assert code == 2
    assert "--model URI=MODEL" in complaint
    assert told(tonnage, "-f", file, "--node", nodes, *names[:2], "--model", "SmolLM-1.7B-Instruct")[0] == 0
    code, _, complaint = tonnage("plan", "-f", EXAMPLE, "--node", nodes, "--model", "a", "--model", "b")
    assert code == 2
    assert "given twice" in complaint


def test_a_node_that_is_not_ready_is_not_used(tonnage: Run, tmp_path: Path) -> None:
    nodes = write(tmp_path / "nodes.yaml", node("a", ready="False"), {"apiVersion": "v1", "kind": "Service"})
    code, output, _ = tonnage("plan", "-f", EXAMPLE, "--node", nodes)
    assert code == 1
    assert "none of 1 nodes can take the pod: 1 node: not Ready" in output


def test_a_node_that_is_none_is_named(tonnage: Run, tmp_path: Path) -> None:
    nodes = write(tmp_path / "nodes.yaml", {"apiVersion": "v1", "kind": "Node", "status": {"conditions": 3}})
    code, _, complaint = tonnage("plan", "-f", EXAMPLE, "--node", nodes)
    assert code == 2
    assert "this Node is not as the API server shows it" in complaint


def test_engine_version_of_the_object_goes_before_the_option(
    tonnage: Run, nodes: str, tmp_path: Path
) -> None:
    plain, pinned = llm("a"), llm("b", engine={"version": "0.33.0"})
    file = write(tmp_path / "two.yaml", plain, pinned)
    _, document = told(tonnage, "-f", file, "--node", nodes, "--engine-version", "0.34.0")
    assert [(each["engine_version"], each["engine_version_from"]) for each in document["objects"]] == [
        ("0.34.0", "option"),
        ("0.33.0", "object"),
    ]


def test_manifests_are_what_the_operator_would_apply(tonnage: Run, nodes: str) -> None:
    code, output, _ = tonnage(
        "plan", "-f", EXAMPLE, "--node", nodes, "--manifests", "--worker-image", "worker:1"
    )
    bodies = list(yaml.safe_load_all(output))
    assert code == 0
    assert [body["kind"] for body in bodies] == ["ConfigMap", "Service", "Deployment"]
    container = bodies[2]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "worker:1"
    assert "--kv-cache-memory-bytes" in " ".join(container["args"])
    assert all("ownerReferences" not in body["metadata"] for body in bodies)
    code, output, complaint = tonnage("plan", "-f", EXAMPLE, "--node", nodes, "--manifests")
    assert (code, output) == (2, "")
    assert "--worker-image" in complaint


GPU_NODES = str(REPOSITORY / "tests" / "data" / "accelerators.yaml")


def on_gpus(tmp_path: Path, **fields: Any) -> str:
    return write(tmp_path / "chat.yaml", llm(**{"hardware": {"accelerator": "GPU"}, **fields}))


def holding(on: str, gpus: int, **labels: str) -> dict[str, Any]:
    """A pod that holds GPUs of a node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "default", "name": "p", "labels": labels},
        "spec": {
            "nodeName": on,
            "containers": [{"name": "x", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}],
        },
        "status": {"phase": "Running"},
    }


def test_a_plan_on_gpus_is_made_for_what_is_free(tonnage: Run, tmp_path: Path) -> None:
    asked = on_gpus(tmp_path, hardware={"products": ["NVIDIA-L40S"], "parallelism": {"tensor": 1}})
    code, output, _ = tonnage("plan", "-f", asked, "--node", GPU_NODES, "-o", "json")
    (answer,) = json.loads(output)["objects"]
    assert (code, answer["outcome"]) == (0, "planned")
    assert answer["plan"]["placement"]["gpusPerReplica"] == 1
    assert "L40S" in answer["plan"]["placement"]["product"]


def test_a_plan_for_gpus_that_others_hold_says_who_does(tonnage: Run, tmp_path: Path) -> None:
    ours = {"app.kubernetes.io/managed-by": "tonnage", "tonnage.dev/deployment": "llama"}
    pods = write(tmp_path / "pods.yaml", holding("h200-0", 8, **ours))
    asked = on_gpus(tmp_path, hardware={"products": ["NVIDIA-H200"]})
    code, output, _ = tonnage("plan", "-f", asked, "--node", GPU_NODES, "--node", pods, "-o", "json")
    (answer,) = json.loads(output)["objects"]
    assert (code, answer["outcome"], answer["reason"]) == (1, "does_not_fit", "NotEnoughGpus")
    assert "in use: NVIDIA-H200: 8 by default/llama" in answer["message"]


EIGHT = {"hardware": {"accelerator": "GPU", "products": ["NVIDIA-H200"]}, "replicas": 8}
URGENT = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "urgent"},
    "value": 9,
}


def of_several(tmp_path: Path, *names: str, **more: dict[str, Any]) -> str:
    """A file with objects that want all GPUs of a node each."""
    return write(tmp_path / "all.yaml", *(llm(name, **EIGHT, **more.get(name, {})) for name in names))


def heads(output: str) -> dict[str, str]:
    return dict(re.findall(r"^default/(\S+): (.*)$", output, re.MULTILINE))


def test_several_objects_are_planned_together_in_order(tonnage: Run, tmp_path: Path) -> None:
    """There is one node with eight H200: the first has them, and the second learns of it."""
    code, output, _ = tonnage("plan", "-f", of_several(tmp_path, "one", "two"), "--node", GPU_NODES)
    assert (code, heads(output)) == (1, {"one": "planned", "two": "does not fit"})
    assert "has        8 of h200-0" in output
    assert "8 by default/one" in re.sub(r"\s+", " ", output)


def test_the_priority_class_is_asked_before_the_place_in_the_file(tonnage: Run, tmp_path: Path) -> None:
    template = {"template": {"priorityClassName": "urgent"}}
    asked = of_several(tmp_path, "one", "two", two=template)
    classes = write(tmp_path / "classes.yaml", URGENT)
    _, output, _ = tonnage("plan", "-f", asked, "--node", GPU_NODES, "--node", classes)
    assert list(heads(output).items()) == [("one", "does not fit"), ("two", "planned")]


def test_one_that_cannot_be_planned_takes_nothing_of_the_next(tonnage: Run, tmp_path: Path) -> None:
    bad = {"one": {"workload": {"contextLength": 100_000_000}}}
    _, output, _ = tonnage("plan", "-f", of_several(tmp_path, "one", "two", **bad), "--node", GPU_NODES)
    assert heads(output) == {"one": "refused", "two": "planned"}


def test_of_one_object_alone_nothing_is_said_of_nodes(tonnage: Run, tmp_path: Path) -> None:
    _, output, _ = tonnage("plan", "-f", of_several(tmp_path, "one"), "--node", GPU_NODES)
    assert heads(output) == {"one": "planned"}
    assert "of h200-0" not in output


def test_hardware_that_means_gpus_is_refused_on_cpu_nodes(tonnage: Run, tmp_path: Path) -> None:
    asked = on_gpus(tmp_path, hardware={"parallelism": {"tensor": 2}})
    nodes = write(tmp_path / "nodes.yaml", node("a"))
    code, output, _ = tonnage("plan", "-f", asked, "--node", nodes, "-o", "json")
    assert (code, json.loads(output)["objects"][0]["reason"]) == (3, "NeedsGpus")
