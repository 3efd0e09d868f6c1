"""A directory of models as a PersistentVolumeClaim that pods mount read-only."""

from pathlib import Path

from harness.cluster import Cluster

CLAIM = "models"


def mounted_directory(cluster: Cluster, *, namespace: str, name: str = CLAIM) -> str:
    """The directory behind the namespace's claim; empty if there is none."""
    volume = cluster.get("pv", f"{namespace}-{name}")
    return str(volume["spec"]["hostPath"]["path"]) if volume else ""


def make_claim(cluster: Cluster, directory: Path, *, namespace: str, name: str = CLAIM) -> None:
    """Bind a claim in the namespace to a directory of this machine.

    The volume is the harness's: pods name only the claim, so Pod Security `restricted` admits them.
    """
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"{namespace}-{name}",
            "labels": {"harness.tonnage.dev/namespace": namespace},
        },
        "spec": {
            "capacity": size,
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(directory.resolve()), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": name},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{name}",
            "resources": {"requests": size},
        },
    }
    cluster.apply(volume, claim, namespace=namespace)
    bound = "--for=jsonpath={.status.phase}=Bound"
    cluster.kubectl("wait", bound, f"pvc/{name}", "-n", namespace, "--timeout=60s")
