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
    with (cluster.state / "logs" / "apiserver.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    pid_file.write_text(f"{process.pid} {process_started(process.pid)}\n")
    wait_until("the API server", lambda: cluster.kubectl("get", "--raw", "/readyz", check=False), seconds=120)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
