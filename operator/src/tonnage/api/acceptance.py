"""Is this object one that Tonnage can act on? Parsing and the checks that need nothing but the object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tonnage.api.arguments import Unclear, adapters_of, option_named
from tonnage.api.rules import fits
from tonnage.api.support import unsupported
from tonnage.api.v1alpha1 import OBJECT_NAME, Spec


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object is not acted on: `reason` for programs, `message` for people."""

    reason: str
    message: str


# Arguments and variables that the plan pins -> the field that decides them.
PINNED_ARGUMENTS: Mapping[str, str] = {
    "--kv-cache-memory-bytes": "workload",
    "--kv-cache-memory": "workload",
    "--gpu-memory-utilization": "workload",
    "--device-memory-utilization": "workload",
    "--num-gpu-blocks-override": "workload",
    "--max-num-seqs": "workload.concurrency",
    "--max-num-batched-tokens": "workload",
    "--block-size": "workload",
    "--kv-cache-dtype": "cache.dtype",
    "--calculate-kv-scales": "cache.dtype",
    "--kv-cache-dtype-skip-layers": "cache.dtype",
    "--max-model-len": "workload.contextLength",
    "--enable-prefix-caching": "cache.prefixCaching",
    "--no-enable-prefix-caching": "cache.prefixCaching",
    "--model": "model.uri",
    "--served-model-name": "model.servedName",
    "--revision": "model.revision",
    "--tokenizer": "model.uri",
    "--tokenizer-revision": "model.revision",
    "--code-revision": "model.revision",
    "--hf-config-path": "model.uri",
    "--hf-token": "model.tokenSecret",
    "--download-dir": "",
    "--dtype": "weights",
    "--quantization": "weights.quantization",
    "-q": "weights.quantization",
    "--quantization-config": "weights.quantization",
    "--tensor-parallel-size": "hardware.parallelism.tensor",
    "-tp": "hardware.parallelism.tensor",
    "--pipeline-parallel-size": "hardware.parallelism.pipeline",
    "-pp": "hardware.parallelism.pipeline",
    "--decode-context-parallel-size": "hardware.parallelism.decodeContext",
    "-dcp": "hardware.parallelism.decodeContext",
    "--prefill-context-parallel-size": "hardware.parallelism",
    "-pcp": "hardware.parallelism",
    "--enable-expert-parallel": "hardware.parallelism",
    "-ep": "hardware.parallelism",
    "--data-parallel-size": "replicas",
    "-dp": "replicas",
    "--data-parallel-size-local": "replicas",
    "-dpl": "replicas",
    "--distributed-executor-backend": "",
    "--nnodes": "",
    "-n": "",
    "--node-rank": "",
    "-r": "",
    "--master-addr": "",
    "--master-port": "",
    "--headless": "",
    "--device-ids": "hardware",
    "--enforce-eager": "",
    "--no-enforce-eager": "",
    "--compilation-config": "",
    "-cc": "",
    "--cudagraph-capture-sizes": "workload.concurrency",
    "--max-cudagraph-capture-size": "workload.concurrency",
    "--enable-sleep-mode": "",
    "--enable-cumem-allocator": "",
    "--disable-hybrid-kv-cache-manager": "workload",
    "--attention-backend": "workload",
    "--attention-config": "workload",
    "-ac": "workload",
    "--speculative-config": "",
    "-sc": "",
    "--spec-method": "",
    "--spec-model": "",
    "--spec-tokens": "",
    "--kv-transfer-config": "cache.offload",
    "--kv-offloading-size": "cache.offload",
    "--cpu-offload-gb": "cache.offload",
    "--offload-group-size": "cache.offload",
    "--config": "",
    "--middleware": "",
    "--host": "",
    "--port": "",
    "--uds": "",
    "--root-path": "",
    "--ssl-keyfile": "",
    "--ssl-certfile": "",
    "--shutdown-timeout": "",
    "--hf-overrides": "",
    "--trust-remote-code": "",
    "--load-format": "",
}
PINNED_VARIABLES: Mapping[str, str] = {
    "VLLM_CPU_KVCACHE_SPACE": "workload",
    "VLLM_TARGET_DEVICE": "hardware.accelerator",
    # a device plugin's choice, and its limits of clients of one card; a variable of the pod would win
    "NVIDIA_VISIBLE_DEVICES": "hardware",
    "CUDA_VISIBLE_DEVICES": "hardware",
    "CUDA_MPS_PIPE_DIRECTORY": "",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "",
    "VLLM_USE_V2_MODEL_RUNNER": "",
    "VLLM_PLUGINS": "",
    "VLLM_ENABLE_STARTUP_PLAN": "",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "",
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "workload.contextLength",
    "VLLM_SERVER_DEV_MODE": "",
    "LD_PRELOAD": "",
    "LD_LIBRARY_PATH": "",
    "PYTHONPATH": "",
    "PYTHONSTARTUP": "",
    "HOME": "",
    "HF_TOKEN": "model.tokenSecret",
    "HUGGING_FACE_HUB_TOKEN": "model.tokenSecret",
    "HF_TOKEN_PATH": "model.tokenSecret",
    "HF_ENDPOINT": "",
    "HF_HOME": "",
    "HF_HUB_CACHE": "",
    "HUGGINGFACE_HUB_CACHE": "",
    "HF_XET_CACHE": "",
    "HF_HUB_OFFLINE": "",
    "TRANSFORMERS_OFFLINE": "",
    "VLLM_USE_MODELSCOPE": "model.uri",
    "VLLM_ENGINE_READY_TIMEOUT_S": "",
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "",
}
_TONNAGE_PREFIX = "TONNAGE_"


def accept(body: Mapping[str, Any]) -> Spec | Refusal:
    """Parse an LLMDeployment and check what needs nothing but the object itself.

    Reasons: InvalidSpec (a field is wrong), NotSupportedYet (a feature is not built yet), PinnedByPlan (an
    engine argument or variable that the plan decides).
    """
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if name is not None and not fits(OBJECT_NAME.pattern, str(name)):
        return Refusal("InvalidSpec", f"metadata.name: {OBJECT_NAME.message}")
    try:
        # strict, as the API server is: no "8" for 8, no true for 1
        spec = Spec.model_validate_json(json.dumps(body.get("spec")), strict=True)
    except ValidationError as error:
        return Refusal("InvalidSpec", _explain(error))
    refused = unsupported(spec)
    if refused:
        text = "; ".join(f"spec.{row.path}: use {row.instead}" for row in refused)
        return Refusal("NotSupportedYet", f"not supported by this version of Tonnage yet: {text}")
    pinned = [
        *_pinned_arguments(spec.engine.extra_args),
        *_pinned_variables([e.name for e in spec.engine.env]),
    ]
    if pinned:
        return Refusal("PinnedByPlan", "; ".join(pinned))
    adapters = adapters_of(spec.engine.extra_args)
    return Refusal("InvalidSpec", adapters.message) if isinstance(adapters, Unclear) else spec


_WORDS = {
    "extra_forbidden": "there is no such field: remove it or mend its spelling",
    "missing": "Required value",
}


def _explain(error: ValidationError) -> str:
    return "; ".join(f"spec{_path(item['loc'])}: {_told(item)}" for item in error.errors())


def _path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _told(item: ErrorDetails) -> str:
    return _WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))


def _pinned_arguments(words: Sequence[str]) -> list[str]:
    found = []
    for word in words:
        flag = option_named(word, PINNED_ARGUMENTS)
        if flag is not None:
            found.append(_pinned(f"engine.extraArgs: {word.split('=', 1)[0]}", PINNED_ARGUMENTS[flag]))
    return found


def _pinned_variables(names: Sequence[str]) -> list[str]:
    return [
        _pinned(f"engine.env: {name}", PINNED_VARIABLES.get(name, ""))
        for name in names
        if name in PINNED_VARIABLES or name.startswith(_TONNAGE_PREFIX)
    ]


def _pinned(what: str, field: str) -> str:
    if field:
        return f"spec.{what} is decided by the plan: remove it and set spec.{field}"
    return f"spec.{what} is decided by Tonnage: remove it"
