"""What the administrator decides once, for all objects: images and constants of the rendering."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """How pods reach the hub; empty means as they would by themselves."""

    endpoint: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Defaults that come with the installation (chart values), not with an object."""

    operator_image: str
    worker_image: str
    engine_version: str
    image_pull_policy: str = "IfNotPresent"
    hub: HubSettings = HubSettings()


ENGINE_PORT = 8000
WORKER_PORT = 8081
UID = 65532
MODELS_PATH = "/models"
PLAN_PATH = "/etc/tonnage"
PLAN_KEY = "plan.json"
KEPT_KEY = "kept.json"
# A worker leaves the endpoints, then waits until idle keep-alive connections of clients are gone: the
# engine's HTTP server closes them after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE, vLLM 0.32 envs.py).
ENDPOINT_SECONDS = 7
SHUTDOWN_TIMEOUT_SECONDS = 120
GRACE_MARGIN_SECONDS = 53
PROGRESS_DEADLINE_SECONDS = 1800
# a worker that downloads its model is given longer: what its bytes take at the slowest speed waited for
SLOWEST_DOWNLOAD_BYTES_PER_SECOND = 20 * 2**20
# beside what an engine downloads: lock files, references, logs, the file that is being written
DOWNLOAD_MARGIN_BYTES = 512 * 2**20
INSPECTION_TTL_SECONDS = 300
INSPECTION_DEADLINE_SECONDS = 600
