"""Plan -> the engine's command line. Everything that moves memory is written out."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tonnage.api.v1alpha1 import Spec
from tonnage.planning.plan import Plan
from tonnage.rendering.gpu import engine_words
from tonnage.rendering.settings import ENGINE_PORT, MODELS_PATH, SHUTDOWN_TIMEOUT_SECONDS

MASTER_PORT: Final = 29501


class Role(StrEnum):
    """What a worker pod is: a whole replica, or of one that spans nodes the pod that serves or another."""

    ALONE = "Alone"
    LEADER = "Leader"
    FOLLOWER = "Follower"


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


def group_arguments(plan: Plan, *, role: Role) -> list[str]:
    """How the engines of one replica's nodes find each other, as arguments of a container: the kubelet puts
    in what LeaderWorkerSet's webhook tells each pod (LWS api/leaderworkerset/v1 leaderworkerset_types.go).

    Names as in vLLM 0.32 engine/arg_utils.py; a headless engine of a node other than the first runs workers
    alone (entrypoints/cli/serve.py run_headless).
    """
    if plan.gpu is None or role is Role.ALONE:
        return []
    rank = "0" if role is Role.LEADER else "$(LWS_WORKER_INDEX)"
    words = ["--nnodes", str(plan.gpu.nodes_per_replica), "--node-rank", rank]
    words += ["--master-addr", "$(LWS_LEADER_ADDRESS)", "--master-port", str(MASTER_PORT)]
    return words if role is Role.LEADER else [*words, "--headless"]


def model_path(spec: Spec) -> str:
    """Directory of a pvc:// model inside the pod."""
    return f"{MODELS_PATH}/{spec.model.path}".rstrip("/")
