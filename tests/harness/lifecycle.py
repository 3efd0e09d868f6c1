"""Starting and stopping clusters: a control plane with simulated nodes, or with one real node (root).

A cluster belongs to the process that started it: if that was killed, the next start removes what it left.
"""

import os
import shutil
from pathlib import Path

from harness.cluster import PORT_BASE, Cluster
from harness.images import catalogue
from harness.paths import BIN, CACHE, K8S, STATE
from harness.steps import StepError, run, say, step

_OWNER = "owner.pid"
_SIMULATED = "sim-"
_PORT_BASES = range(PORT_BASE, PORT_BASE + 300, 20)


def find_port_base() -> int:
    """The first port base whose API server port nobody listens on."""
    listening = _listening_ports()
    for base in _PORT_BASES:
        if not listening & set(range(base, base + 20)):
            return base
    raise StepError(f"no free ports for another control plane; running clusters are in {STATE}")


def _listening_ports() -> set[int]:
    """Ports that somebody listens on (state 0A in the kernel's tables)."""
    ports = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        rows = [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []
        ports |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    return ports


def start_simulated(*, port_base: int | None = None, reuse: bool = False) -> Cluster:
    """Start a control plane with KWOK, or take one that nobody owns. `simulation.add_node` adds nodes."""
    build_binaries("control")
    _stop_abandoned()
    left = [one for one in running_clusters() if not one.real and not (one.state / _OWNER).exists()]
    if reuse and left:
        return left[0]
    base = port_base or find_port_base()
    cluster = Cluster(state=STATE / f"{_SIMULATED}{base}", real=False, port_base=base)
    stop(cluster)  # what a reboot left of one
    with step(f"start a control plane on port {base + 3}"):
        _own(cluster)
        _script(cluster, "up.sh")
        _script(cluster, "kwok-up.sh")
    return cluster


def start_real(name: str = "real") -> Cluster:
    """Start a control plane and one real node (root; one such cluster per machine)."""
    if os.geteuid() != 0:
        raise StepError("a real node needs root")
    build_binaries("all")
    catalogue.pause_archive()
    _stop_abandoned()
    cluster = named(name)
    for other in running_clusters():
        if other.real and other.state != cluster.state:
            raise StepError(f"another real node runs on this machine: {other.state} ({_stop_hint(other)})")
    if is_running(cluster):
        if (cluster.state / _OWNER).exists() and not is_owned(cluster):
            raise StepError(f"another run of the tests uses the real node: {_stop_hint(cluster)}")
        return cluster
    stop(cluster)
    with step("start a control plane with one real node"):
        _own(cluster)
        _script(cluster, "up.sh")
        _script(cluster, "node-up.sh")
    return cluster


def named(name: str) -> Cluster:
    """The cluster of that name, running or not."""
    return _from_state(STATE / name)


def from_current_kubeconfig() -> Cluster:
    """The cluster that kubectl talks to here, with a copy of its credentials for the harness's own calls."""
    cluster = Cluster(state=STATE / "existing", real=False)
    argv = [cluster.program("kubectl"), "config", "view", "--raw", "--minify", "--flatten"]
    config = run("read kubeconfig", argv)
    cluster.state.mkdir(parents=True, exist_ok=True)
    cluster.kubeconfig.touch(mode=0o600)
    cluster.kubeconfig.write_text(config)
    return cluster


def stop(cluster: Cluster) -> None:
    """Stop every process of the cluster and remove its state."""
    if cluster.state.exists():
        with step(f"stop cluster {cluster.state.name}"):
            _script(cluster, "down.sh", "--wipe")
            shutil.rmtree(cluster.state, ignore_errors=True)


def running_clusters() -> list[Cluster]:
    """Clusters of this machine whose API server was started and not stopped."""
    found = [_from_state(path.parent) for path in sorted(STATE.glob("*/admin.kubeconfig"))]
    return [cluster for cluster in found if is_running(cluster)]


def is_running(cluster: Cluster) -> bool:
    """Whether the processes that the pid files name are alive."""
    processes = ("apiserver", "node" if cluster.real else "kwok")
    return all(_alive(cluster.state / f"run/{name}.pid") for name in processes)


def is_owned(cluster: Cluster) -> bool:
    """Whether this process started the cluster, and so has to stop it."""
    owner = cluster.state / _OWNER
    return owner.exists() and owner.read_text().split()[0] == str(os.getpid())


def disown(cluster: Cluster) -> None:
    """Let the cluster outlive this process; without this the next start removes it as abandoned."""
    (cluster.state / _OWNER).unlink(missing_ok=True)


def build_binaries(*names: str) -> None:
    """Build what is not in the cache; about 16 minutes on two cores for everything, once per machine."""
    if not (BIN / "coredns").exists():
        say("building Kubernetes from its Go modules: about 16 minutes, once per machine")
    run(f"build {' '.join(names)}", ["nice", K8S / "build.sh", *names], env={"TONNAGE_CACHE": str(CACHE)})


def _own(cluster: Cluster) -> None:
    """Say whose it is before anything runs: a start that is killed half way is found as well."""
    cluster.state.mkdir(parents=True, exist_ok=True)
    (cluster.state / _OWNER).write_text(f"{os.getpid()} {process_started(os.getpid())}")


def _stop_abandoned() -> None:
    """Stop clusters whose owning process was killed before it could."""
    for owner in STATE.glob(f"*/{_OWNER}"):
        if not _alive(owner):
            stop(_from_state(owner.parent))


def _from_state(state: Path) -> Cluster:
    simulated = state.name.startswith(_SIMULATED)
    base = int(state.name.removeprefix(_SIMULATED)) if simulated else PORT_BASE + 300
    return Cluster(state=state, real=not simulated, port_base=base)


def _stop_hint(cluster: Cluster) -> str:
    owner = cluster.state / _OWNER
    return (
        f"process {owner.read_text().split()[0]} owns it" if owner.exists() else "`make demo-down` stops it"
    )


def _alive(pid_file: Path) -> bool:
    try:
        pid, started = pid_file.read_text().split()
    except (OSError, ValueError):
        return False
    return process_started(int(pid)) == started


def process_started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, or "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _script(cluster: Cluster, name: str, *arguments: str) -> None:
    environment = {
        "TONNAGE_CACHE": str(CACHE),
        "K8S_STATE": str(cluster.state),
        "K8S_NODE": str(int(cluster.real)),
        "K8S_PORT_BASE": str(cluster.port_base),
        "K8S_KWOK_CIDR": cluster.pod_network.replace(".0.0/", ".0.1/"),
        "NO_PROXY": cluster.environment["NO_PROXY"],
    }
    try:
        run(f"{cluster.state.name} {name}", [K8S / "cluster" / name, *arguments], env=environment)
    except StepError as error:
        raise StepError(f"{error}\nlogs of the components: {cluster.state / 'logs'}") from error
