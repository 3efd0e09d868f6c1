"""Plan -> the engine's command line. Everything that moves memory is written out."""

from __future__ import annotations

from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import Plan
from tonnage.rendering.gpu import engine_words
from tonnage.rendering.settings import ENGINE_PORT, MODELS_PATH, SHUTDOWN_TIMEOUT_SECONDS


def engine_arguments(plan: Plan, *, spec: Spec, revision: str) -> list[str]:
    """Arguments of vLLM's API server for `plan`, the user's own last.

    `revision` is the commit of a hub model: an engine that starts later gets the same files.

    Names as in vLLM 0.32 engine/arg_utils.py and entrypoints/openai/cli_args.py.
    """
    pinned: dict[str, str | int] = {
        "--model": spec.model.hub_name or model_path(spec),
        "--served-model-name": spec.served_name,
        "--host": "0.0.0.0",  # noqa: S104 - the pod's own address is not known before it starts
        "--port": ENGINE_PORT,
        "--dtype": plan.weights_dtype,
        "--max-model-len": plan.context_length,
        "--kv-cache-memory-bytes": plan.memory.kv,
        "--kv-cache-dtype": plan.kv_dtype,
        "--block-size": plan.block_size,
        "--max-num-seqs": plan.max_num_seqs,
        "--max-num-batched-tokens": plan.max_num_batched_tokens,
        "--tensor-parallel-size": plan.tensor_parallel,
        "--shutdown-timeout": SHUTDOWN_TIMEOUT_SECONDS,
    }
    if spec.model.hub_name:
        pinned |= {"--revision": revision, "--tokenizer-revision": revision}
    words = [word for name, value in pinned.items() for word in (name, str(value))]
    words.append("--enable-prefix-caching" if plan.prefix_caching else "--no-enable-prefix-caching")
    if plan.attention_backend is not None:
        words += ["--attention-backend", plan.attention_backend]
    words += ["--enforce-eager"] if plan.gpu is None else engine_words(plan.gpu)
    return [*words, *spec.engine.extra_args]


def model_path(spec: Spec) -> str:
    """Directory of a pvc:// model inside the pod."""
    return f"{MODELS_PATH}/{spec.model.path}".rstrip("/")
