"""The clusters that tests run on. A tier that cannot run here is skipped and says why; in CI it fails.

`TONNAGE_KEEP=1` leaves the clusters running for the next run of the tests.
"""

import os
import shutil
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from harness import lifecycle
from harness.cluster import Cluster
from harness.paths import BIN
from harness.tiers import require

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("tonnage", deadline=None)
hypothesis.settings.load_profile("tonnage")


@pytest.fixture(scope="session")
def simulated_cluster() -> Iterator[Cluster]:
    """A control plane whose nodes KWOK simulates (`harness.simulation.add_node`)."""
    require(_missing_for_control_plane())
    cluster = lifecycle.start_simulated(reuse=bool(os.environ.get("TONNAGE_KEEP")))
    yield cluster
    _end(cluster)


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[Cluster]:
    """A control plane with one real node: containers, network, DNS."""
    require(_missing_for_real_node())
    cluster = lifecycle.start_real()
    yield cluster
    _end(cluster)


def _end(cluster: Cluster) -> None:
    if os.environ.get("TONNAGE_KEEP"):
        lifecycle.disown(cluster)
    elif lifecycle.is_owned(cluster):
        lifecycle.stop(cluster)


def _missing_for_control_plane() -> str:
    if sys.platform != "linux":
        return "Kubernetes runs on Linux only"
    if not shutil.which("go") and not (BIN / "kube-apiserver").exists():
        return "Kubernetes is not built yet and Go is not installed"
    missing = [name for name in ("openssl", "curl", "ip") if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _missing_for_real_node() -> str:
    if os.geteuid() != 0:
        return "a real node needs root"
    missing = [name for name in ("nft", "gcc", "objdump", "unshare", "nsenter") if not shutil.which(name)]
    return _missing_for_control_plane() or (f"not installed: {', '.join(missing)}" if missing else "")
