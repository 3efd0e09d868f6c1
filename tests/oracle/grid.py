"""The questions that the oracle checks the answers of: kinds of nodes x models x workloads x qualities.

Everything is in an order of its own, so that a question keeps its number while the tables keep theirs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any, Final

from tonnage.engines import gpu_rules_for, rules_for
from tonnage.gpus.inventory import Inventory, Sharing
from tonnage.gpus.nodes import Node
from tonnage.gpus.records import Records
from tonnage.models import ModelProfile, Weights, parse_config
from tonnage.planning.choose import plan_for
from tonnage.planning.gpu.choose import gpu_question, plan_on_gpus, takes_gpus
from tonnage.planning.gpu.question import GpuQuestion, sorted_pools
from tonnage.planning.plan import Demand, Plan, Quality, Rejection
from tonnage.planning.weights import weight_bytes
from unit.gpus.clusters import node, real
from unit.models.samples import published_configs, published_quantization

VERSION: Final = "0.32.0"
_SEED: Final = "tonnage"
_LOOKED_AT: Final = 16

NODES: Final[dict[str, dict[str, int]]] = {
    "H100": {"h100-0": 2},
    "H200": {"h200-0": 2},
    "B200": {"b200-0": 1},
    "A100-40": {"a100-40-0": 2},
    "A100-80": {"a100-80-0": 2},
    "L40S": {"l40s-0": 2},
    "L4": {"l4-0": 4},
    "T4": {"t4-0": 2},
    "MI300X": {"mi300x-0": 1},
    "MIG": {"mig-single-0": 1, "mig-mixed-0": 1},
    "DRA": {"dra-0": 1, "dra-mig-0": 1},
    "CPU": {"cpu-0": 2},
    "mixed": {"h100-0": 1, "a100-80-0": 1, "l40s-0": 1, "l4-0": 2, "t4-0": 1, "cpu-0": 1, "mixed-0": 1},
}
"""How many of which node of tests/data/accelerators.yaml a cluster has. Of `MIG` only the slices count."""

MODELS: Final = (
    # dense
    "SmolLM2-135M-Instruct",
    "Qwen--Qwen3-0.6B",
    "Qwen--Qwen3-8B",
    "Qwen--Qwen3-32B",
    "Qwen--Qwen3-32B-FP8",
    "meta-llama--Meta-Llama-3.1-8B",
    "meta-llama--Meta-Llama-3.1-70B",
    "nvidia--Llama-3.1-70B-Instruct-FP8",
    "tfdefault--phi3",
    # windows
    "tfdefault--gemma2",
    "tfdefault--gemma3_text",
    "tfdefault--mistral",
    "google--gemma-4-26B-A4B--textonly",
    "nvidia--Gemma-4-31B-IT-NVFP4",
    "openai--gpt-oss-20b",
    "openai--gpt-oss-120b",
    "XiaomiMiMo--MiMo-V2-Flash",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct--textonly",
    # experts
    "Qwen--Qwen3-30B-A3B",
    "Qwen--Qwen3-30B-A3B-FP8",
    "Qwen--Qwen3-235B-A22B",
    "Qwen--Qwen3-235B-A22B-FP8",
    "nvidia--Qwen3-235B-A22B-NVFP4",
    "mistralai--Mixtral-8x7B-v0.1",
    "mistralai--Mixtral-8x22B-v0.1",
    "MiniMaxAI--MiniMax-M2.5",
    "nvidia--MiniMax-M2.5-NVFP4",
    # latent attention
    "made--deepseek-v2-lite",
    "deepseek-ai--DeepSeek-V3",
    "nvidia--DeepSeek-V3.1-NVFP4",
    "deepseek-ai--DeepSeek-V3.2",
    "moonshotai--Kimi-K2-Instruct",
    "zai-org--GLM-5-FP8",
    # recurrent state beside attention
    "Qwen--Qwen3.5-35B-A3B--textonly",
    "tfdefault--qwen3_next",
    "tfdefault--jamba",
    "nvidia--Nemotron-H-56B-Base-8K",
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4",
    # images
    "Qwen--Qwen3-VL-8B-Instruct",
)
"""Names in tests/data/model_configs.jsonl.gz."""

WORKLOADS: Final[dict[str, dict[str, Any]]] = {
    "chat": {"context_length": 8192, "concurrency": 32, "typical_tokens": 2048},
    "documents": {"context_length": 32768, "concurrency": 8, "typical_tokens": 16384},
    "batch": {"context_length": 4096, "concurrency": 256, "typical_tokens": 1024},
    "longest": {"concurrency": 2},
}
"""What `workload` says; `longest` asks for all that the model can."""

QUALITIES: Final = tuple(Quality)


@dataclass(frozen=True, slots=True, order=True)
class Scenario:
    """One question of the grid, by names."""

    model: str
    nodes: str
    workload: str
    quality: str

    @property
    def name(self) -> str:
        """For people, and for tests' names."""
        return f"{self.model}-{self.nodes}-{self.workload}-{self.quality}"


def scenarios() -> Iterator[Scenario]:
    """All, model by model."""
    for model in MODELS:
        for nodes in NODES:
            for workload in WORKLOADS:
                for quality in QUALITIES:
                    yield Scenario(model, nodes, workload, quality)


@cache
def shuffled() -> tuple[Scenario, ...]:
    """All in an order that is as good as random and always the same."""
    return tuple(
        sorted(scenarios(), key=lambda each: hashlib.sha256(f"{_SEED} {each.name}".encode()).digest())
    )


@cache
def sample() -> tuple[Scenario, ...]:
    """One scenario of every model: of the first few in the order of `shuffled` that have a plan, the one
    whose kind of plan was taken least so far; and one on a T4, which few models fit. Cases of one platform
    come together."""
    taken: Counter[tuple[object, ...]] = Counter()
    found = [_ON_T4]
    for model in MODELS:
        mine = (each for each in shuffled() if each.model == model)
        planned = list(islice((each for each in mine if isinstance(answer(each), Plan)), _LOOKED_AT))
        best = min(planned, key=lambda each: taken[_kind(each)])
        taken[_kind(best)] += 1
        found.append(best)
    return tuple(sorted(found, key=platform))


_ON_T4: Final = Scenario("SmolLM2-135M-Instruct", "T4", "chat", "Lossless")


def _kind(scenario: Scenario) -> tuple[object, ...]:
    plan = answer(scenario)
    assert isinstance(plan, Plan)
    gpu = plan.gpu
    if gpu is None:
        return ("CPU", plan.kv_dtype)
    lossy = (plan.kv_dtype, gpu.quantization)
    return (gpu.compute_capability, *lossy, gpu.pipeline_parallel > 1, gpu.enforce_eager)


def platform(scenario: Scenario) -> tuple[int, ...]:
    """The compute capability of a plan's card, () for CPU nodes."""
    plan = answer(scenario)
    assert isinstance(plan, Plan)
    return () if plan.gpu is None else plan.gpu.compute_capability or ()


@cache
def answer(scenario: Scenario) -> Plan | Rejection:
    """The planner's answer: on GPUs where the cluster has any, else on CPU nodes."""
    cluster, inventory = _cluster(scenario.nodes)
    if takes_gpus(None, inventory=inventory):
        return plan_on_gpus(
            gpu_question(
                demand(scenario),
                model=profile(scenario.model),
                inventory=inventory,
                engine=gpu_rules_for(VERSION),
            )
        )
    return plan_for(
        demand(scenario),
        model=profile(scenario.model),
        nodes=cluster.nodes,
        engine=rules_for(VERSION),
    )


def question(scenario: Scenario) -> GpuQuestion:
    """The question as the search on GPUs takes it."""
    return GpuQuestion(
        demand=demand(scenario),
        model=profile(scenario.model),
        engine=gpu_rules_for(VERSION),
        pools=sorted_pools(_cluster(scenario.nodes)[1].pools),
    )


def demand(scenario: Scenario) -> Demand:
    """The demand of a scenario."""
    return Demand(quality=Quality(scenario.quality), **WORKLOADS[scenario.workload])


def files(model: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """config.json and hf_quant_config.json of a model."""
    name = f"{model}_config.json"
    return published_configs()[name], published_quantization(name)


@cache
def profile(model: str) -> ModelProfile:
    """A model with the weights that its config says, all of one dtype."""
    config, quantization = files(model)
    shape = parse_config(config, hf_quant_config=quantization)
    whole = weight_bytes(shape, dtype="bfloat16")[0] if shape.weights_known else 2
    return ModelProfile(
        shape=shape, weights=Weights(bytes_by_dtype=(("BF16", whole),), parameters=max(1, whole // 2))
    )


@cache
def _cluster(name: str) -> tuple[Records, Inventory]:
    copies = NODES[name]
    nodes = tuple(_named(node(each), number) for each, count in copies.items() for number in range(count))
    slices = real().slices if name == "DRA" else ()
    cluster = replace(real(), nodes=nodes, slices=slices)
    inventory = cluster.inventory()
    if name == "MIG":
        slices_only = tuple(pool for pool in inventory.pools if pool.sharing is Sharing.MIG)
        inventory = replace(inventory, pools=slices_only)
    return cluster, inventory


def _named(base: Node, number: int) -> Node:
    """A further node like one of the data."""
    if number == 0:
        return base
    name = f"{base.name}-copy-{number}"
    return replace(base, name=name, labels={**base.labels, "kubernetes.io/hostname": name})
