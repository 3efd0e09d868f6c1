"""The allow list of pod fields: what a user may say about pods that the plan does not decide.

Whatever is not listed cannot be said: the schema has no place for it. Pod Security *restricted* accepts
every pod that can be written here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tonnage.api.base import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    Annotations,
    ApiModel,
    ClusterName,
    Labels,
    Name,
    Quantity,
    VolumeName,
)
from tonnage.api.rules import Form, ListMap, Obeys, Rule, fits
from tonnage.api.scheduling import Affinity, Toleration, TopologySpreads

_OURS = r"^(([a-z0-9.-]*\.)?tonnage\.dev/.*|app\.kubernetes\.io/managed-by|pod-template-hash)$"
# read by container runtimes, device and network plugins: ways around the pod's own fields
_FOREIGN = (
    r"^([a-z0-9.-]*\.)?(tonnage\.dev|apparmor\.security\.beta\.kubernetes\.io|"
    r"seccomp\.security\.alpha\.kubernetes\.io|cdi\.k8s\.io|cni\.cncf\.io|katacontainers\.io|"
    r"kubernetes\.cri-o\.io)/.*$|^io\.(kubernetes\.cri-o|containerd|katacontainers)[./].*$"
)
_DIRECTORY = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_MOUNT_PATH = rf"^/(mnt|data|srv)(/{_DIRECTORY})*$"
_SUB_PATH = rf"^{_DIRECTORY}(/{_DIRECTORY})*$"

_NOT_OURS = Obeys(
    Rule(
        f"!self.exists(key, key.matches(r'{_OURS}'))",
        "labels of tonnage.dev, app.kubernetes.io/managed-by and pod-template-hash are set by controllers: "
        "use keys of your own",
        lambda found: not any(fits(_OURS, key) for key in found),
    )
)
_HARMLESS = Obeys(
    Rule(
        f"!self.exists(key, key.matches(r'{_FOREIGN}'))",
        "annotations that speak to Tonnage, the container runtime, device plugins or network plugins are "
        "not allowed: remove them",
        lambda found: not any(fits(_FOREIGN, key) for key in found),
    )
)
Path = Annotated[
    str,
    Field(max_length=128),
    Form(_SUB_PATH, "write a relative path whose parts begin with a letter, a digit or '_'"),
]
FileKey = Annotated[
    str,
    Field(max_length=253),
    Form(r"^[-._a-zA-Z0-9]+$", "write a key: letters, digits, '-', '_' and '.'"),
]


class Resources(ApiModel):
    """CPU and memory of one worker pod."""

    cpu: Quantity | None = Field(
        default=None, description="CPU request, a quantity such as 4 or 500m; 1 if absent. No limit is set."
    )
    memory: Quantity | None = Field(
        default=None,
        description=(
            "Memory request and limit, a quantity such as 64Gi; the plan's need if absent. Less is refused."
        ),
    )


class LocalReference(ApiModel):
    """A named object of the same namespace."""

    name: Name = Field(description="Name of the object.")


class ClaimSource(ApiModel):
    """A PersistentVolumeClaim of the same namespace."""

    claim_name: Name = Field(description="Name of the PersistentVolumeClaim.")


class EmptyDirSource(ApiModel):
    """An empty directory on the node's disk that lives as long as the pod."""

    size_limit: Quantity | None = Field(
        default=None, description="Size at which the pod is evicted, a quantity such as 10Gi; none if absent."
    )


class KeyToPath(ApiModel):
    """One key as one file."""

    key: FileKey = Field(description="The key.")
    path: Path = Field(description="The file, relative to the volume.")


Items = Annotated[list[KeyToPath], Field(max_length=16), ListMap(("key",))]


class ConfigMapSource(ApiModel):
    """A ConfigMap of the same namespace, one file for each key."""

    name: Name = Field(description="Name of the ConfigMap.")
    items: Items = Field(default_factory=list, description="Keys to show, and as what; all if empty.")
    optional: bool = Field(default=False, description="Whether pods start without the ConfigMap.")


class SecretSource(ApiModel):
    """A Secret of the same namespace, one file for each key. Tonnage itself never reads it."""

    secret_name: Name = Field(description="Name of the Secret.")
    items: Items = Field(default_factory=list, description="Keys to show, and as what; all if empty.")
    optional: bool = Field(default=False, description="Whether pods start without the Secret.")


_SOURCES = ("persistentVolumeClaim", "emptyDir", "configMap", "secret")


class Volume(ApiModel):
    """A volume of the worker pods, and where the engine sees it. Exactly one source is set."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"[{', '.join(f'has(self.{source})' for source in _SOURCES)}].filter(one, one).size() == 1",
            f"write exactly one of {', '.join(_SOURCES[:-1])} and {_SOURCES[-1]}; other kinds of volumes are "
            "not allowed",
            lambda volume: len([one for one in volume.sources if one is not None]) == 1,
        ),
    )

    name: VolumeName = Field(description="Name of the volume, for server-side apply and for people.")
    mount_path: Annotated[
        str,
        Field(max_length=256),
        Form(
            _MOUNT_PATH,
            "mount below /mnt, /data or /srv: other directories belong to the image, the engine and the node",
        ),
    ] = Field(description="Where the engine sees the volume: a path below /mnt, /data or /srv.")
    read_only: bool = Field(default=False, description="Whether the engine may only read it.")
    sub_path: Path | None = Field(
        default=None, description="A path inside the volume to mount instead of its root."
    )
    persistent_volume_claim: ClaimSource | None = Field(
        default=None, description="A PersistentVolumeClaim of the same namespace."
    )
    empty_dir: EmptyDirSource | None = Field(
        default=None, description="An empty directory on the node's disk."
    )
    config_map: ConfigMapSource | None = Field(
        default=None, description="A ConfigMap of the same namespace, as files."
    )
    secret: SecretSource | None = Field(default=None, description="A Secret of the same namespace, as files.")

    @property
    def sources(self) -> tuple[ApiModel | None, ...]:
        """All sources, of which one is set."""
        return self.persistent_volume_claim, self.empty_dir, self.config_map, self.secret


_MOUNTED_ONCE = Obeys(
    Rule(
        "self.all(one, self.exists_one(other, other.mountPath == one.mountPath))",
        "each volume needs a mountPath of its own",
        lambda volumes: len({one.mount_path for one in volumes}) == len(volumes),
    )
)


class Template(ApiModel):
    """Pod fields that a user may set; all others belong to the plan."""

    labels: Annotated[Labels, _NOT_OURS] = Field(
        default_factory=dict, description="Further labels of the worker pods."
    )
    annotations: Annotated[Annotations, _HARMLESS] = Field(
        default_factory=dict, description="Further annotations of the worker pods."
    )
    resources: Resources = Field(
        default_factory=Resources, description="CPU and memory of a worker pod; GPUs come from the plan."
    )
    node_selector: Labels = Field(
        default_factory=dict,
        description="Labels that a node must carry, all of them. Planning counts no other node.",
        json_schema_extra=ATOMIC_MAP,
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(
        default_factory=list,
        description="Node taints that the pods tolerate. Planning counts the nodes that have no others.",
        json_schema_extra=ATOMIC_LIST,
    )
    affinity: Affinity | None = Field(
        default=None,
        description="Which nodes and which neighbours the pods need or avoid, as in a Pod.",
    )
    topology_spread_constraints: TopologySpreads = Field(
        default_factory=list,
        description="How evenly the pods are spread over zones or nodes, as in a Pod.",
    )
    priority_class_name: ClusterName | None = Field(
        default=None, description="PriorityClass of the pods; the cluster's default if absent."
    )
    runtime_class_name: ClusterName | None = Field(
        default=None,
        description="RuntimeClass of the worker pods. Nodes that it excludes are left to the scheduler.",
    )
    scheduler_name: ClusterName | None = Field(
        default=None, description="Scheduler of the pods; the cluster's default if absent."
    )
    service_account_name: Name | None = Field(
        default=None,
        description="ServiceAccount of the worker pods, of the same namespace. Its token is never mounted.",
    )
    image_pull_secrets: Annotated[list[LocalReference], Field(max_length=16), ListMap(("name",))] = Field(
        default_factory=list, description="Secrets of the same namespace for pulling images."
    )
    volumes: Annotated[list[Volume], Field(max_length=16), ListMap(("name",)), _MOUNTED_ONCE] = Field(
        default_factory=list,
        description="Further volumes of the worker pods: adapters, templates, certificates, scratch space.",
    )


__all__ = ["Resources", "Template", "Volume"]
