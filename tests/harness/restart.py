"""An API server that is killed and started again, as a control plane's upgrade does it."""

import os
import signal
import subprocess
from pathlib import Path

from harness.cluster import Cluster
from harness.lifecycle import process_started
from harness.waiting import wait_until


def restart_api_server(cluster: Cluster) -> None:
    """Kill the API server, start it with the same arguments, and return when it is ready."""
    pid_file = cluster.state / "run" / "apiserver.pid"
    pid = int(pid_file.read_text().split()[0])
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    os.kill(pid, signal.SIGKILL)
    wait_until("the API server to end", lambda: not _runs(pid))
    process: subprocess.Popen[bytes] | None = None

    def ready() -> str:
        # threads of the killed one may hold its port for a moment: then this one ends at once
        nonlocal process
        if process is None or process.poll() is not None:
            process = _start(argv, log=cluster.state / "logs" / "apiserver.log")
            pid_file.write_text(f"{process.pid} {process_started(process.pid)}\n")
        return cluster.kubectl("get", "--raw", "/readyz", check=False)

    wait_until("the API server", ready, seconds=120)


def _start(argv: list[bytes], *, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
