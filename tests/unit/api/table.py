"""Good and bad objects, each with what is said of it: the models and a real API server must agree on all.

tests/unit/api judges them by the models, tests/cluster also by a real API server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tonnage.api.acceptance import Refusal, accept

LONG_PREFIX = f"{'a' * 254}/x"
COMMIT = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"


class Verdict(Enum):
    """Who refuses an object."""

    GOOD = "nobody"
    BAD = "the API server, in our words"
    MALFORMED = "the API server, in its own words: a type, a bound, an unknown field"
    OPERATOR = "the operator alone: the API server accepts it"


@dataclass(frozen=True)
class Row:
    """One object. `where` is the field that both name, `says` a part of the API server's message (of the
    operator's too, where the words are ours); for the operator alone, `where` is its reason."""

    name: str
    verdict: Verdict
    spec: Mapping[str, Any]
    where: str = ""
    says: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The whole object."""
        return {
            "apiVersion": "tonnage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": "table", **self.metadata},
            "spec": dict(self.spec),
        }

    def judged_rightly(self) -> bool:
        """Do the models, and the checks of the operator, say what the row says?"""
        outcome = accept(self.body)
        if not isinstance(outcome, Refusal):
            return self.verdict is Verdict.GOOD
        if self.verdict is Verdict.OPERATOR:
            return outcome.reason == self.where and self.says in outcome.message
        ours = self.says if self.verdict is Verdict.BAD else ""
        return (
            self.verdict is not Verdict.GOOD
            and outcome.reason == "InvalidSpec"
            and self.where in outcome.message
            and ours in outcome.message
        )


def _spec(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": {"uri": "pvc://models/smollm2"}, "hardware": {"accelerator": "CPU"}, **fields}


def good(name: str, **fields: Any) -> Row:
    return Row(name, Verdict.GOOD, _spec(fields))


def bad(name: str, where: str, says: str, **fields: Any) -> Row:
    return Row(name, Verdict.BAD, _spec(fields), where, says)


def malformed(name: str, where: str, says: str, **fields: Any) -> Row:
    return Row(name, Verdict.MALFORMED, _spec(fields), where, says)


def operator(name: str, reason: str, says: str, **fields: Any) -> Row:
    return Row(name, Verdict.OPERATOR, _spec(fields), reason, says)


def named(name: str, verdict: Verdict, says: str = "") -> Row:
    shown = name if len(name) < 20 else f"{name[:8]}... ({len(name)})"
    where = "metadata.name" if says else ""
    return Row(f"object called {shown}", verdict, _spec({}), where, says, {"name": name})


def volume(source: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    wanted = {"name": "data", "mountPath": "/mnt/data", **(source or {"emptyDir": {}}), **fields}
    return {"template": {"volumes": [{k: v for k, v in wanted.items() if v is not None}]}}


def toleration(**fields: Any) -> dict[str, Any]:
    return {"template": {"tolerations": [fields]}}


def node_terms(*expressions: Mapping[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [expression]} for expression in expressions]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"template": {"affinity": {"nodeAffinity": required}}}


def pod_term(kind: str = "podAntiAffinity", **fields: Any) -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, **fields}]}
    return {"template": {"affinity": {kind: required}}}


def spread(**fields: Any) -> dict[str, Any]:
    base = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    return {"template": {"topologySpreadConstraints": [{**base, **fields}]}}


def env(*names: str) -> dict[str, Any]:
    return {"engine": {"env": [{"name": name, "value": "1"} for name in names]}}


def internal(**fields: Any) -> dict[str, Any]:
    return {"scaling": {"mode": "Internal", "internal": {"maxReplicas": 4, **fields}}}


def latency(text: str) -> dict[str, Any]:
    return internal(objective={"timeToFirstToken": {"p95": text}})


EVICTION = {"mode": "Streaming", "streaming": {"sinkTokens": 4, "windowTokens": 1024}}
HUB = {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}
NAME_SAYS = "write a metadata.name of at most 44"
TEMPLATE = "spec.template"

MODELS = (
    good("the least that is needed"),
    Row("no accelerator, which the planner chooses", Verdict.GOOD, {"model": {"uri": "pvc://models/x"}}),
    good("a directory in directories", model={"uri": "pvc://models.v1/a/b-1/c_2.3/"}),
    good("the root of a claim", model={"uri": "pvc://models"}),
    good("a directory of the hub's own cache", model={"uri": "pvc://m/.cache/models--org--name/snapshots/1"}),
    good("a name for clients", model={"uri": "pvc://m/x", "servedName": "org/name:v1.2+x@1"}),
    good("an unknown architecture", model={"uri": "pvc://m/x", "assumeFullAttention": True}),
    good("revision main, the default, of a claim", model={"uri": "pvc://m/x", "revision": "main"}),
    malformed("no model at all", "spec.model", "Required value", model=None),
    malformed("a model without uri", "spec.model.uri", "Required value", model={}),
    bad("a path without scheme", "spec.model.uri", "write pvc://CLAIM/DIRECTORY", model={"uri": "models/x"}),
    bad("a scheme that is not served", "spec.model.uri", "hf://ORG/NAME", model={"uri": "s3://bucket/x"}),
    bad("a file of the node", "spec.model.uri", "write pvc://", model={"uri": "file:///etc/passwd"}),
    bad("an empty uri", "spec.model.uri", "write pvc://", model={"uri": ""}),
    bad("a path that climbs", "spec.model.uri", "no '.' or '..'", model={"uri": "pvc://m/../../etc"}),
    bad("a path that stands still", "spec.model.uri", "no '.' or '..'", model={"uri": "pvc://m/./x"}),
    bad("two slashes", "spec.model.uri", "write pvc://", model={"uri": "pvc://m//x"}),
    bad("a claim in capitals", "spec.model.uri", "write pvc://", model={"uri": "pvc://Models/x"}),
    bad("a space in a path", "spec.model.uri", "write pvc://", model={"uri": "pvc://m/a b"}),
    bad("a line feed behind a path", "spec.model.uri", "write pvc://", model={"uri": "pvc://m/x\n"}),
    bad("a hub model without organization", "spec.model.uri", "hf://ORG/NAME", model={"uri": "hf://gpt2"}),
    bad("a hub model with a file", "spec.model.uri", "hf://ORG/NAME", model={"uri": "hf://o/n/x.gguf"}),
    malformed("a long uri", "spec.model.uri", "Too long", model={"uri": f"pvc://m/{'x' * 512}"}),
    malformed("a number as uri", "spec.model.uri", "must be of type string", model={"uri": 5}),
    bad(
        "a token for a claim", "spec.model", "tokenSecret is for hf:// models",
        model={"uri": "pvc://m/x", "tokenSecret": {"name": "hf", "key": "token"}},
    ),
    bad(
        "a revision of a claim", "spec.model", "revision is for hf:// models",
        model={"uri": "pvc://m/x", "revision": "v1"},
    ),
    bad("an empty revision", "spec.model.revision", "write a branch", model={**HUB, "revision": ""}),
    bad("a revision that is an option", "spec.model.revision", "write a branch", model={**HUB, "revision": "-x"}),
    bad(
        "a Secret of another namespace", "spec.model.tokenSecret.name", "of the same namespace",
        model={**HUB, "tokenSecret": {"name": "kube-system/hf", "key": "token"}},
    ),
    malformed(
        "a Secret without key", "spec.model.tokenSecret.key", "Required value",
        model={**HUB, "tokenSecret": {"name": "hf"}},
    ),
    bad(
        "an empty key of a Secret", "spec.model.tokenSecret.key", "write a key of the Secret",
        model={**HUB, "tokenSecret": {"name": "hf", "key": ""}},
    ),
    malformed(
        "a token in the object itself", "spec.model.tokenSecret.value", "unknown field",
        model={**HUB, "tokenSecret": {"name": "hf", "key": "t", "value": "hf_x"}},
    ),
    bad(
        "a name for clients that is an option", "spec.model.servedName", "beginning with a letter",
        model={"uri": "pvc://m/x", "servedName": "--trust-remote-code"},
    ),
    bad(
        "a name for clients of two words", "spec.model.servedName", "write the name that clients send",
        model={"uri": "pvc://m/x", "servedName": "a b"},
    ),
    malformed(
        "a yes in words", "spec.model.assumeFullAttention", "must be of type boolean",
        model={"uri": "pvc://m/x", "assumeFullAttention": "yes"},
    ),
)  # fmt: skip

WORKLOADS = (
    good("the smallest workload", workload={"contextLength": 1, "concurrency": 1, "typicalTokens": 1}),
    good("the largest workload", workload={"contextLength": 2**31 - 1, "concurrency": 65536}),
    malformed("8.0 for 8", "spec.workload.concurrency", "write a whole number from 1 to 65536", workload={"concurrency": 8.0}),
    good("null where there is a default", workload={"concurrency": None}),
    good("null where there is none", workload={"contextLength": None}, replicas=None),
    good("an empty workload", workload={}),
    good("typical tokens up to the context", workload={"contextLength": 8, "typicalTokens": 8}),
    good("typical tokens alone", workload={"typicalTokens": 8}),
    bad(
        "typical tokens above the context", "spec.workload", "typicalTokens must not be above contextLength",
        workload={"contextLength": 8, "typicalTokens": 9},
    ),
    malformed("no context", "spec.workload.contextLength", "greater than or equal to 1", workload={"contextLength": 0}),
    malformed("a negative context", "spec.workload.contextLength", "greater than", workload={"contextLength": -1}),
    malformed("a context of 2^31", "spec.workload.contextLength", "less than", workload={"contextLength": 2**31}),
    malformed("a context in words", "spec.workload.contextLength", "of type integer", workload={"contextLength": "32k"}),
    malformed("concurrency as text", "spec.workload.concurrency", "of type integer", workload={"concurrency": "8"}),
    malformed("a fraction of a request", "spec.workload.concurrency", "of type integer", workload={"concurrency": 37.5}),
    malformed("true for a number", "spec.workload.concurrency", "of type int", workload={"concurrency": True}),
    malformed("too many requests", "spec.workload.concurrency", "less than", workload={"concurrency": 65537}),
    malformed("a number beyond int64", "spec.workload.concurrency", "concurrency", workload={"concurrency": 2**64}),
    malformed("a list for an object", "spec.workload", "of type object", workload=[]),
    malformed("a text for an object", "spec.workload", "of type object", workload="big"),
    malformed("an unknown field, null", "spec.workload.contextLenght", "unknown field", workload={"contextLenght": None}),
    malformed("a misspelled field", "spec.workload.contextLenght", "unknown field", workload={"contextLenght": 8}),
    malformed("a field in snake case", "spec.workload.context_length", "unknown field", workload={"context_length": 8}),
    malformed("an unknown part", "spec.memory", "unknown field", memory={}),
    malformed("a quality that is none", "spec.quality", "Unsupported value", quality="Best"),
    malformed("a quality in lower case", "spec.quality", "Unsupported value", quality="lossless"),
    good("the lossless rung", quality="Lossless"),
)  # fmt: skip

CACHES = (
    good("a pinned KV dtype", cache={"dtype": "fp8"}),
    good("a KV dtype with a version", cache={"dtype": "fp8_e4m3"}),
    good("prefix caching on", cache={"prefixCaching": "Enabled"}),
    good("nothing automatic", cache={"eviction": {"mode": "None"}, "offload": {"mode": "None"}}),
    bad("an empty KV dtype", "spec.cache.dtype", "write Auto or the engine's own name", cache={"dtype": ""}),
    bad("a KV dtype with a space", "spec.cache.dtype", "write Auto or", cache={"dtype": "fp8 e4m3"}),
    bad("a KV dtype that is an option", "spec.cache.dtype", "write Auto or", cache={"dtype": "--x"}),
    malformed("a long KV dtype", "spec.cache.dtype", "Too long", cache={"dtype": "x" * 64}),
    malformed("prefix caching as truth", "spec.cache.prefixCaching", "of type string", cache={"prefixCaching": True}),
    malformed("prefix caching unknown", "spec.cache.prefixCaching", "Unsupported", cache={"prefixCaching": "On"}),
    bad(
        "eviction without its sizes", "spec.cache.eviction", "write streaming together with mode Streaming",
        quality="Economy", cache={"eviction": {"mode": "Streaming"}},
    ),
    bad(
        "sizes of an eviction that is off", "spec.cache.eviction", "leave it out with any other mode",
        cache={"eviction": {"mode": "None", "streaming": EVICTION["streaming"]}},
    ),
    bad("eviction without leave", "spec", "set quality to Economy", cache={"eviction": EVICTION}),
    malformed(
        "no sink tokens", "spec.cache.eviction.streaming.sinkTokens", "greater than or equal to 1",
        quality="Economy",
        cache={"eviction": {"mode": "Streaming", "streaming": {"sinkTokens": 0, "windowTokens": 1}}},
    ),
    malformed(
        "a window that is not said", "spec.cache.eviction.streaming.windowTokens", "Required value",
        quality="Economy", cache={"eviction": {"mode": "Streaming", "streaming": {"sinkTokens": 4}}},
    ),
    malformed("an eviction of another name", "spec.cache.eviction.mode", "Unsupported", cache={"eviction": {"mode": "H2O"}}),
    bad("offload without sizes", "spec.cache.offload", "write fixed together", cache={"offload": {"mode": "Fixed"}}),
    bad(
        "offload of no size", "spec.cache.offload.fixed", "write hostMemory, disk or both",
        cache={"offload": {"mode": "Fixed", "fixed": {}}},
    ),
    bad(
        "offload of zero", "spec.cache.offload.fixed.hostMemory", "quantity above zero",
        cache={"offload": {"mode": "Fixed", "fixed": {"hostMemory": "0Gi"}}},
    ),
    bad(
        "sizes of an offload that is automatic", "spec.cache.offload", "leave it out",
        cache={"offload": {"fixed": {"disk": "1Gi"}}},
    ),
    bad("a pool that is not said", "spec.cache.sharing", "write pool together", cache={"sharing": {"mode": "Pool"}}),
    bad("a pool without sharing", "spec.cache.sharing", "leave it out", cache={"sharing": {"pool": {"size": "1Gi"}}}),
    good("weights as they are", weights={"quantization": "None"}),
    bad("weights in nothing", "spec.weights.quantization", "write Auto or", weights={"quantization": " "}),
)  # fmt: skip

HARDWARE = (
    good("sizes of one", hardware={"accelerator": "CPU", "parallelism": {"tensor": 1, "pipeline": 1}}),
    malformed("a processor of another kind", "spec.hardware.accelerator", "Unsupported", hardware={"accelerator": "TPU"}),
    malformed("no ranks", "spec.hardware.parallelism.tensor", "greater than", hardware={"parallelism": {"tensor": 0}}),
    malformed("too many ranks", "spec.hardware.parallelism.tensor", "less than", hardware={"parallelism": {"tensor": 65}}),
    malformed("no GPUs", "spec.hardware.maxGPUsPerReplica", "greater than", hardware={"maxGPUsPerReplica": 0}),
    malformed(
        "GPUs spelled otherwise", "spec.hardware.maxGpusPerReplica", "unknown field",
        hardware={"maxGpusPerReplica": 1},
    ),
    bad(
        "GPU products on CPUs", "spec.hardware", "products and maxGPUsPerReplica are about GPUs",
        hardware={"accelerator": "CPU", "products": ["H100"]},
    ),
    bad("GPUs on CPUs", "spec.hardware", "are about GPUs", hardware={"accelerator": "CPU", "maxGPUsPerReplica": 1}),
    bad(
        "more ranks than GPUs", "spec.hardware", "tensor times pipeline",
        hardware={"parallelism": {"tensor": 4, "pipeline": 2}, "maxGPUsPerReplica": 7},
    ),
    bad(
        "a context split that does not divide", "spec.hardware.parallelism", "write a divisor of tensor",
        hardware={"parallelism": {"tensor": 4, "decodeContext": 3}},
    ),
    bad("a product twice", "spec.hardware.products", "Duplicate value", hardware={"products": ["H100", "H100"]}),
    bad("a product of no name", "spec.hardware.products[0]", "write a GPU product", hardware={"products": [""]}),
    malformed("33 products", "spec.hardware.products", "at most 32 items", hardware={"products": [f"p{i}" for i in range(33)]}),
)  # fmt: skip

OPERATION = (
    good("no replicas", replicas=0),
    good("the most replicas", replicas=1000),
    good("replicas of an external autoscaler", replicas=3, scaling={"mode": "External"}),
    bad("an external autoscaler that cannot read where it starts", "spec", "needs replicas, the number to start from", scaling={"mode": "External"}),
    malformed("fewer than no replicas", "spec.replicas", "greater than or equal to 0", replicas=-1),
    malformed("too many replicas", "spec.replicas", "less than", replicas=1001),
    bad(
        "replicas that the autoscaler decides", "spec", "from minReplicas 1 to maxReplicas 4 of scaling.internal",
        replicas=2, **internal(),
    ),
    bad("an autoscaler without bounds", "spec.scaling", "write internal together", scaling={"mode": "Internal"}),
    bad(
        "bounds without autoscaler", "spec.scaling", "leave it out with any other mode",
        scaling={"mode": "External", "internal": {"maxReplicas": 2}},
    ),
    bad("bounds the wrong way round", "spec.scaling.internal", "minReplicas must not be above", **internal(minReplicas=5)),
    malformed("no upper bound", "spec.scaling.internal.maxReplicas", "Required", scaling={"mode": "Internal", "internal": {}}),
    malformed("an upper bound of none", "spec.scaling.internal.maxReplicas", "greater than", **internal(minReplicas=0, maxReplicas=0)),
    bad("a latency without unit", "timeToFirstToken.p95", "write a duration from 1ms to 1h", **latency("2")),
    bad("a latency of nothing", "timeToFirstToken.p95", "write a duration", **latency("0s")),
    bad("a latency below zero", "timeToFirstToken.p95", "write a duration", **latency("-1s")),
    bad("a latency of hours", "timeToFirstToken.p95", "from 1ms to 1h", **latency("1h1ms")),
    bad("a latency in microseconds", "timeToFirstToken.p95", "write a duration", **latency("0.0005s")),
    good("a long roll-out", rollout={"progressDeadline": "168h"}),
    good("a roll-out in parts", rollout={"progressDeadline": "1h30m10.5s5ms", "paused": True}),
    bad("a roll-out of no time", "spec.rollout.progressDeadline", "from 1s to 168h", rollout={"progressDeadline": "0s"}),
    bad("a roll-out below a second", "spec.rollout.progressDeadline", "from 1s", rollout={"progressDeadline": "999ms"}),
    bad("a roll-out of weeks", "spec.rollout.progressDeadline", "to 168h", rollout={"progressDeadline": "168h1s"}),
    bad("an empty duration", "spec.rollout.progressDeadline", "write a duration", rollout={"progressDeadline": ""}),
    bad("a duration in days", "spec.rollout.progressDeadline", "write a duration", rollout={"progressDeadline": "1d"}),
    bad("a duration out of order", "spec.rollout.progressDeadline", "write a duration", rollout={"progressDeadline": "5s1h"}),
    malformed("a duration in seconds", "spec.rollout.progressDeadline", "of type string", rollout={"progressDeadline": 90}),
    malformed("a pause in words", "spec.rollout.paused", "of type boolean", rollout={"paused": "true"}),
    good("an image by digest", engine={"image": f"r.example.com:5000/a/b@sha256:{'0' * 64}", "version": "0.32.0"}),
    good("further arguments", engine={"extraArgs": ["--enable-lora", "--max-loras", "4", "$(HOME)"]}),
    good("further variables", **env("NCCL_DEBUG", "VLLM_LOGGING_LEVEL")),
    good("a variable without value", engine={"env": [{"name": "EMPTY"}]}),
    bad("an empty image", "spec.engine.image", "write an image reference", engine={"image": ""}),
    bad("an image with a space", "spec.engine.image", "write an image reference", engine={"image": " vllm"}),
    bad("a version in words", "spec.engine.version", "write a vLLM release", engine={"version": "latest"}),
    bad("a version with v", "spec.engine.version", "such as 0.32.0", engine={"version": "v0.32.0"}),
    malformed("a version as number", "spec.engine.version", "of type string", engine={"version": 0.32}),
    malformed("an empty argument", "spec.engine.extraArgs[0]", "at least 1 chars long", engine={"extraArgs": [""]}),
    malformed("65 arguments", "spec.engine.extraArgs", "at most 64 items", engine={"extraArgs": ["x"] * 65}),
    malformed("arguments as text", "spec.engine.extraArgs", "of type array", engine={"extraArgs": "--enable-lora"}),
    malformed("a null argument", "spec.engine.extraArgs[0]", "null", engine={"extraArgs": [None]}),
    bad("a variable twice", "spec.engine.env", "Duplicate value", **env("A", "B", "A")),
    bad("a variable that begins with a digit", "spec.engine.env[0].name", "not beginning with a digit", **env("1A")),
    bad("a variable with a hyphen", "spec.engine.env[0].name", "write the name of a variable", **env("A-B")),
    malformed(
        "a variable from a Secret", "spec.engine.env[0].valueFrom", "unknown field",
        engine={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]},
    ),
    malformed("a verification that is none", "spec.engine.verification", "Unsupported", engine={"verification": "Off"}),
    good("a start at least as large", engine={"verification": "AtLeast"}),
)  # fmt: skip

TEMPLATES = (
    good("labels of one's own", template={"labels": {"team": "a", "example.com/cost-centre": "", "x_y.z": "1.2_3-4"}}),
    good("a queue of Kueue", template={"labels": {"kueue.x-k8s.io/queue-name": "llm"}}),
    good("a label that is null", template={"labels": {"team": None}}),
    good("annotations of one's own", template={"annotations": {"example.com/note": "any text, also äöü 漢"}}),
    bad("a label of ours", f"{TEMPLATE}.labels", "use keys of your own", template={"labels": {"tonnage.dev/plan": "x"}}),
    bad("a label below ours", f"{TEMPLATE}.labels", "use keys", template={"labels": {"a.tonnage.dev/x": "x"}}),
    bad("whose pods they are", f"{TEMPLATE}.labels", "use keys", template={"labels": {"app.kubernetes.io/managed-by": "me"}}),
    bad("the hash of a ReplicaSet", f"{TEMPLATE}.labels", "use keys", template={"labels": {"pod-template-hash": "x"}}),
    bad("a label key with a space", f"{TEMPLATE}.labels", "write keys as Kubernetes does", template={"labels": {"a b": "x"}}),
    bad("a label key of two slashes", f"{TEMPLATE}.labels", "write keys", template={"labels": {"a/b/c": "x"}}),
    bad("an empty label key", f"{TEMPLATE}.labels", "write keys", template={"labels": {"": "x"}}),
    bad("a label key of a long part", f"{TEMPLATE}.labels", "write keys", template={"labels": {"a" * 64: "x"}}),
    bad("a label key of a long prefix", f"{TEMPLATE}.labels", "write keys", template={"labels": {LONG_PREFIX: "x"}}),
    bad("a label value with a space", f"{TEMPLATE}.labels", "write a label value", template={"labels": {"a": "b c"}}),
    bad("a label value with a hyphen behind", f"{TEMPLATE}.labels", "write a label value", template={"labels": {"a": "b-"}}),
    malformed("a long label value", f"{TEMPLATE}.labels.a", "Too long", template={"labels": {"a": "b" * 64}}),
    malformed("a number as label", f"{TEMPLATE}.labels.a", "of type string", template={"labels": {"a": 1}}),
    malformed("33 labels", f"{TEMPLATE}.labels", "at most 32", template={"labels": {f"l{i}": "x" for i in range(33)}}),
    good("memory of a number", template={"resources": {"cpu": 4, "memory": 68719476736}}),
    good("memory of a quantity", template={"resources": {"cpu": "1500m", "memory": "1.5Ti"}}),
    bad("no CPU", f"{TEMPLATE}.resources.cpu", "quantity above zero", template={"resources": {"cpu": "0"}}),
    bad("no CPU, as a number", f"{TEMPLATE}.resources.cpu", "quantity above zero", template={"resources": {"cpu": 0}}),
    bad("negative memory", f"{TEMPLATE}.resources.memory", "quantity above zero", template={"resources": {"memory": "-1Gi"}}),
    bad("memory without end", f"{TEMPLATE}.resources.memory", "at most 1Ei", template={"resources": {"memory": "2Ei"}}),
    bad("memory in GB", f"{TEMPLATE}.resources.memory", "such as 64Gi", template={"resources": {"memory": "64GB"}}),
    bad("memory in powers", f"{TEMPLATE}.resources.memory", "such as 64Gi", template={"resources": {"memory": "1e9"}}),
    malformed("half a core as a number", f"{TEMPLATE}.resources.cpu", "of type integer,string", template={"resources": {"cpu": 0.5}}),
    malformed("4.0 cores", f"{TEMPLATE}.resources.cpu", "quantity", template={"resources": {"cpu": 4.0}}),
    malformed("true cores", f"{TEMPLATE}.resources.cpu", "of type integer,string", template={"resources": {"cpu": True}}),
    malformed("GPUs by hand", f"{TEMPLATE}.resources.nvidia.com/gpu", "unknown field", template={"resources": {"nvidia.com/gpu": 8}}),
    malformed("limits", f"{TEMPLATE}.resources.limits", "unknown field", template={"resources": {"limits": {"cpu": "1"}}}),
    good("a node by labels", template={"nodeSelector": {"disk": "ssd", "topology.kubernetes.io/zone": "a"}}),
    bad("a node selector that is none", f"{TEMPLATE}.nodeSelector", "write keys", template={"nodeSelector": {"-a": "b"}}),
    good("every taint", **toleration(operator="Exists")),
    good("a taint with a value", **toleration(key="dedicated", value="llm", effect="NoSchedule")),
    good("one key, two effects", template={"tolerations": [
        {"key": "a", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
    ]}),
    bad("a value that is not compared", f"{TEMPLATE}.tolerations[0]", "operator Exists takes no value", **toleration(key="a", operator="Exists", value="b")),
    bad("a value of no key", f"{TEMPLATE}.tolerations[0]", "operator Equal needs a key", **toleration(value="b")),
    bad("seconds of another effect", f"{TEMPLATE}.tolerations[0]", "tolerationSeconds is for effect NoExecute", **toleration(key="a", effect="NoSchedule", tolerationSeconds=5)),
    bad("a taint key that is none", f"{TEMPLATE}.tolerations[0].key", "write a label key", **toleration(key="a b")),
    malformed("an operator that is none", f"{TEMPLATE}.tolerations[0].operator", "Unsupported", **toleration(key="a", operator="In")),
    malformed("an effect that is none", f"{TEMPLATE}.tolerations[0].effect", "Unsupported", **toleration(key="a", effect="Never")),
    good("a priority class", template={"priorityClassName": "high", "schedulerName": "default-scheduler"}),
    good("an identity", template={"serviceAccountName": "worker", "runtimeClassName": "nvidia"}),
    bad("an identity of another namespace", f"{TEMPLATE}.serviceAccountName", "of the same namespace", template={"serviceAccountName": "kube-system:admin"}),
    bad("an identity as a path", f"{TEMPLATE}.serviceAccountName", "of the same namespace", template={"serviceAccountName": "kube-system/admin"}),
    bad("an empty priority class", f"{TEMPLATE}.priorityClassName", "write an object's name", template={"priorityClassName": ""}),
    good("a pull secret", template={"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
    bad("a pull secret twice", f"{TEMPLATE}.imagePullSecrets", "Duplicate value", template={"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
    malformed("a pull secret of a namespace", f"{TEMPLATE}.imagePullSecrets[0].namespace", "unknown field", template={"imagePullSecrets": [{"name": "a", "namespace": "b"}]}),
)  # fmt: skip

SCHEDULING = (
    good("a required node", **node_terms({"key": "zone", "operator": "In", "values": ["a", "b"]})),
    good("one of two nodes", **node_terms({"key": "gpu", "operator": "Exists"}, {"key": "n", "operator": "Gt", "values": ["3"]})),
    good("a preferred node", template={"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}
    ]}}}),
    good("an affinity to nothing", template={"affinity": {}}),
    bad("a comparison with nothing", "matchExpressions[0]", "write values with operator In", **node_terms({"key": "a", "operator": "In"})),
    bad("a presence with values", "matchExpressions[0]", "none with Exists", **node_terms({"key": "a", "operator": "Exists", "values": ["b"]})),
    bad("more than a word", "matchExpressions[0]", "take one value, a whole number", **node_terms({"key": "a", "operator": "Gt", "values": ["b"]})),
    bad("less than two numbers", "matchExpressions[0]", "take one value", **node_terms({"key": "a", "operator": "Lt", "values": ["1", "2"]})),
    bad("a node label that is none", "matchExpressions[0].key", "write a label key", **node_terms({"key": "a b", "operator": "Exists"})),
    bad("a node value that is none", "matchExpressions[0].values[0]", "write a label value", **node_terms({"key": "a", "operator": "In", "values": ["b c"]})),
    malformed("an operator of no node", "matchExpressions[0].operator", "Unsupported", **node_terms({"key": "a", "operator": "Like", "values": ["b"]})),
    malformed("no terms", "nodeSelectorTerms", "at least 1 items", **node_terms()),
    malformed("a node by name", "matchFields", "unknown field", template={"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
        ]}
    }}}),
    malformed("a weight of none", "weight", "greater than", template={"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}
    ]}}}),
    good("apart from neighbours", **pod_term()),
    good("near to neighbours", **pod_term("podAffinity", labelSelector={"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]})),
    good("apart from all pods of the namespace", **pod_term(labelSelector={})),
    malformed("neighbours of other namespaces", "namespaces", "unknown field", **pod_term(namespaces=["kube-system"])),
    malformed("neighbours of chosen namespaces", "namespaceSelector", "unknown field", **pod_term(namespaceSelector={})),
    malformed("neighbours of no place", "topologyKey", "Required value", **pod_term(topologyKey=None)),
    malformed("no neighbours said", "labelSelector", "Required value", **pod_term(labelSelector=None)),
    bad("a place that is no label", "topologyKey", "write a label key", **pod_term(topologyKey="")),
    good("an even spread", **spread()),
    good("a strict spread", **spread(whenUnsatisfiable="DoNotSchedule", minDomains=2, labelSelector={"matchLabels": {"a": "b"}}, nodeTaintsPolicy="Honor")),
    good("two spreads over one place", template={"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
    ]}),
    bad("a spread twice", "topologySpreadConstraints", "Duplicate value", template={"topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
    ]}),
    bad("domains of a loose spread", "topologySpreadConstraints[0]", "minDomains is for whenUnsatisfiable DoNotSchedule", **spread(minDomains=2)),
    malformed("a spread of no skew", "topologySpreadConstraints[0].maxSkew", "greater than", **spread(maxSkew=0)),
    malformed("a spread that says nothing else", "topologySpreadConstraints[0].whenUnsatisfiable", "Required", **spread(whenUnsatisfiable=None)),
)  # fmt: skip

VOLUMES = (
    good("an empty directory", **volume()),
    good("an empty directory of a size", **volume({"emptyDir": {"sizeLimit": "10Gi"}})),
    good("a claim, read only, in part", **volume({"persistentVolumeClaim": {"claimName": "a"}}, readOnly=True, subPath="x/y")),
    good("files of a ConfigMap", **volume({"configMap": {"name": "a", "items": [{"key": "k", "path": "d/f"}]}})),
    good("files of a Secret", **volume({"secret": {"secretName": "a", "optional": True}}, mountPath="/srv")),
    good("a volume with one of our names", **volume(name="models")),
    bad("a volume of nothing", f"{TEMPLATE}.volumes[0]", "write exactly one of persistentVolumeClaim", **volume({"emptyDir": None})),
    bad("a volume of two things", f"{TEMPLATE}.volumes[0]", "write exactly one of", **volume({"emptyDir": {}, "secret": {"secretName": "a"}})),
    bad("a volume without name", f"{TEMPLATE}.volumes[0].name", "write a short name", **volume(name="")),
    bad("a volume in capitals", f"{TEMPLATE}.volumes[0].name", "write a short name", **volume(name="Data")),
    malformed("a volume of a long name", f"{TEMPLATE}.volumes[0].name", "Too long", **volume(name="d" * 59)),
    bad("a volume twice", f"{TEMPLATE}.volumes", "Duplicate value", template={"volumes": [
        {"name": "a", "mountPath": "/mnt/a", "emptyDir": {}}, {"name": "a", "mountPath": "/mnt/b", "emptyDir": {}},
    ]}),
    bad("a directory twice", f"{TEMPLATE}.volumes", "a mountPath of its own", template={"volumes": [
        {"name": "a", "mountPath": "/mnt/a", "emptyDir": {}}, {"name": "b", "mountPath": "/mnt/a", "emptyDir": {}},
    ]}),
    malformed("a volume nowhere", f"{TEMPLATE}.volumes[0].mountPath", "Required value", **volume(mountPath=None)),
    *(
        bad(f"a volume on {path}", f"{TEMPLATE}.volumes[0].mountPath", "mount below /mnt, /data or /srv", **volume(mountPath=path))
        for path in (
            "/", "/models", "/models/x", "/etc/tonnage", "/etc", "/tmp", "/dev/shm", "/proc", "/sys", "/usr/lib",
            "/opt/venv", "/root", "/home/vllm", "/var/run/secrets/kubernetes.io/serviceaccount", "/mnt/../etc",
            "/mnt/./x", "/mnt//x", "/mnt/a:b", "/mntx", "mnt", "/mnt/\n", "",
        )
    ),
    bad("a part outside the volume", f"{TEMPLATE}.volumes[0].subPath", "write a relative path", **volume(subPath="../x")),
    bad("a part from the root", f"{TEMPLATE}.volumes[0].subPath", "write a relative path", **volume(subPath="/etc")),
    bad("a file outside the volume", "items[0].path", "write a relative path", **volume({"secret": {"secretName": "a", "items": [{"key": "k", "path": "../../x"}]}})),
    bad("a key twice", "items", "Duplicate value", **volume({"configMap": {"name": "a", "items": [{"key": "k", "path": "x"}, {"key": "k", "path": "y"}]}})),
    bad("a Secret of another namespace, as files", "secret.secretName", "of the same namespace", **volume({"secret": {"secretName": "kube-system/a"}})),
    malformed("a disk that is memory", "emptyDir.medium", "unknown field", **volume({"emptyDir": {"medium": "Memory"}})),
    malformed("modes of files", "secret.defaultMode", "unknown field", **volume({"secret": {"secretName": "a", "defaultMode": 511}})),
    *(
        malformed(f"a volume of kind {kind}", f"{TEMPLATE}.volumes[0].{kind}", "unknown field", **volume({kind: source}))
        for kind, source in (
            ("hostPath", {"path": "/"}),
            ("csi", {"driver": "d", "volumeAttributes": {"x": "y"}}),
            ("projected", {"sources": [{"serviceAccountToken": {"path": "token"}}]}),
            ("nfs", {"server": "s", "path": "/"}),
            ("downwardAPI", {"items": []}),
            ("ephemeral", {"volumeClaimTemplate": {}}),
            ("iscsi", {"targetPortal": "x"}),
            ("image", {"reference": "x"}),
        )
    ),
)  # fmt: skip

# every field of a pod, a container or a Deployment that would be a way out, written where somebody may try it
_FORBIDDEN: Mapping[str, Any] = {
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostUsers": True,
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["kubernetes.default"]}],
    "hostname": "x",
    "subdomain": "x",
    "setHostnameAsFQDN": True,
    "hostPort": 80,
    "ports": [{"containerPort": 80, "hostPort": 80}],
    "nodeName": "control-plane",
    "namespace": "kube-system",
    "securityContext": {"runAsUser": 0, "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}]},
    "privileged": True,
    "capabilities": {"add": ["SYS_ADMIN"]},
    "automountServiceAccountToken": True,
    "serviceAccount": "admin",
    "shareProcessNamespace": True,
    "initContainers": [{"name": "x", "image": "x"}],
    "containers": [{"name": "x", "image": "x"}],
    "ephemeralContainers": [{"name": "x", "image": "x"}],
    "sidecars": [],
    "volumeMounts": [{"name": "models", "mountPath": "/mnt"}],
    "volumeDevices": [{"name": "x", "devicePath": "/dev/sda"}],
    "command": ["sh"],
    "args": ["-c", "id"],
    "lifecycle": {"postStart": {"exec": {"command": ["sh"]}}},
    "livenessProbe": {"exec": {"command": ["sh"]}},
    "envFrom": [{"secretRef": {"name": "x"}}],
    "resourceClaims": [{"name": "x", "resourceClaimName": "x"}],
    "dnsPolicy": "ClusterFirstWithHostNet",
    "dnsConfig": {"nameservers": ["10.0.0.1"]},
    "priority": 2000001000,
    "preemptionPolicy": "PreemptLowerPriority",
    "overhead": {"cpu": "1"},
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": 0,
    "readinessGates": [],
    "schedulingGates": [],
    "os": {"name": "windows"},
    "finalizers": ["x/y"],
    "ownerReferences": [],
    "spec": {"hostNetwork": True},
    "metadata": {"namespace": "kube-system"},
}
_DANGEROUS_ANNOTATIONS = (
    "container.apparmor.security.beta.kubernetes.io/engine",
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/engine",
    "io.kubernetes.cri-o.Devices",
    "io.kubernetes.cri-o.userns-mode",
    "io.containerd.rdt-class",
    "cdi.k8s.io/gpus",
    "nvidia.cdi.k8s.io/container.engine",
    "k8s.v1.cni.cncf.io/networks",
    "io.katacontainers.config.hypervisor.path",
    "tonnage.dev/inputs",
)
ESCAPES = (
    *(
        malformed(f"{name} in the template", f"{TEMPLATE}.{name}", "unknown field", template={name: value})
        for name, value in _FORBIDDEN.items()
    ),
    *(
        malformed(f"{name} in the engine", f"spec.engine.{name}", "unknown field", engine={name: value})
        for name, value in _FORBIDDEN.items()
        if name in ("securityContext", "privileged", "command", "ports", "envFrom", "volumeMounts")
    ),
    *(
        bad(f"annotation {key}", f"{TEMPLATE}.annotations", "are not allowed: remove them", template={"annotations": {key: "unconfined"}})
        for key in _DANGEROUS_ANNOTATIONS
    ),
)  # fmt: skip

NAMES = (
    named("a", Verdict.GOOD),
    named("a" * 44, Verdict.GOOD),
    named("chat-2", Verdict.GOOD),
    named("a" * 45, Verdict.BAD, NAME_SAYS),
    named("Chat", Verdict.BAD, NAME_SAYS),
    named("chat.v1", Verdict.BAD, NAME_SAYS),
    named("1chat", Verdict.BAD, NAME_SAYS),
    named("chat-", Verdict.BAD, NAME_SAYS),
)

# what is built later moves from here to the good ones
NOT_YET = (
    operator("streaming eviction", "NotSupportedYet", "spec.cache.eviction.mode", quality="Economy", cache={"eviction": EVICTION}),
    operator("fixed offload", "NotSupportedYet", "spec.cache.offload.mode", cache={"offload": {"mode": "Fixed", "fixed": {"hostMemory": 1, "disk": "1.5Ti"}}}),
    operator("a shared pool", "NotSupportedYet", "spec.cache.sharing.mode", cache={"sharing": {"mode": "Pool", "pool": {"size": "1Ti"}}}),
    operator("a pool of the planner's size", "NotSupportedYet", "spec.cache.sharing.mode", cache={"sharing": {"mode": "Pool", "pool": {}}}),
    operator("split caches", "NotSupportedYet", "spec.hardware.parallelism.decodeContext", hardware={"parallelism": {"tensor": 4, "pipeline": 2, "decodeContext": 2}, "maxGPUsPerReplica": 8}),
    operator("our own autoscaler", "NotSupportedYet", "spec.scaling.mode", **internal(minReplicas=0)),
    operator("a latency to hold", "NotSupportedYet", "spec.scaling.mode", **internal(objective={
        "timeToFirstToken": {"p95": "1m30s"}, "interTokenLatency": {"p95": "1ms"},
    })),
)  # fmt: skip

PINNED = (
    operator("a pinned argument", "PinnedByPlan", "set spec.workload", engine={"extraArgs": ["--gpu-memory-utilization", "0.5"]}),
    operator("a pinned argument with =", "PinnedByPlan", "set spec.workload.contextLength", engine={"extraArgs": ["--max-model-len=9"]}),
    operator("a pinned argument cut short", "PinnedByPlan", "set spec.cache.dtype", engine={"extraArgs": ["--kv-cache-dty=fp8"]}),
    operator("a short option", "PinnedByPlan", "set spec.weights.quantization", engine={"extraArgs": ["-qfp8"]}),
    operator("remote code", "PinnedByPlan", "decided by Tonnage: remove it", engine={"extraArgs": ["--trust-remote-code"]}),
    operator("a pinned variable", "PinnedByPlan", "engine.env: LD_PRELOAD", **env("LD_PRELOAD")),
    operator("a variable of the worker", "PinnedByPlan", "engine.env: TONNAGE_X", **env("TONNAGE_X")),
)  # fmt: skip

ON_GPUS = (
    good("the economical rung", quality="Economy"),
    good("weights in fp8", weights={"quantization": "fp8"}),
    good("GPUs", hardware={"accelerator": "GPU", "products": ["H100-80GB-HBM3", "L40S"]}),
    good("ranks", hardware={"parallelism": {"tensor": 4, "pipeline": 2}, "maxGPUsPerReplica": 8}),
    good("downtime", rollout={"allowDowntime": True}),
)  # fmt: skip

HUBS = (
    good("a hub model", model=HUB),
    good("a hub model at a commit", model={**HUB, "revision": COMMIT}),
    good("a private hub model", model={**HUB, "tokenSecret": {"name": "hf", "key": "token.txt"}}),
    operator("a token in plain sight", "PinnedByPlan", "set spec.model.tokenSecret", model=HUB, **env("HF_TOKEN")),
    operator("another tokenizer", "PinnedByPlan", "set spec.model.uri", model=HUB, engine={"extraArgs": ["--tokenizer", "a/b"]}),
    operator("another hub", "PinnedByPlan", "engine.env: HF_ENDPOINT", model=HUB, **env("HF_ENDPOINT")),
)  # fmt: skip

ROWS: tuple[Row, ...] = (
    *MODELS,
    *WORKLOADS,
    *CACHES,
    *HARDWARE,
    *OPERATION,
    *TEMPLATES,
    *SCHEDULING,
    *VOLUMES,
    *ESCAPES,
    *NAMES,
    *NOT_YET,
    *PINNED,
    *ON_GPUS,
    *HUBS,
)
