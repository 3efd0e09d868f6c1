"""What tests and the demo do with a running cluster. `harness.lifecycle` starts and stops them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from harness.audit import AuditLog
from harness.images.oci import Image
from harness.paths import BIN
from harness.rest import Rest
from harness.steps import StepError, step

CLUSTER_NETWORKS = "127.0.0.1,localhost,10.96.0.0/16,10.244.0.0/24"
PORT_BASE = 16440
Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `state` holds its kubeconfigs and logs."""

    state: Path
    real: bool
    port_base: int = PORT_BASE

    @property
    def kubeconfig(self) -> Path:
        """Credentials of a cluster administrator."""
        return self.state / "admin.kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """Variables for kubectl, helm and client libraries."""
        exempt = [os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "", CLUSTER_NETWORKS]
        return {"KUBECONFIG": str(self.kubeconfig), "NO_PROXY": ",".join(filter(None, exempt))}

    @property
    def full_environment(self) -> dict[str, str]:
        """This process's variables with those of the cluster."""
        return {**os.environ, **self.environment}

    @property
    def audit(self) -> AuditLog:
        """The API server's log of every write."""
        return AuditLog(self.state / "logs/audit.log")

    @property
    def pod_network(self) -> str:
        """Addresses that KWOK gives to pods: another range for each cluster of this machine."""
        return f"10.{200 + (self.port_base - PORT_BASE) // 20 % 56}.0.0/16"

    @staticmethod
    def program(name: str) -> str:
        """Path of kubectl or helm: the one that was built, else the one on PATH."""
        found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
        if not found:
            raise StepError(f"{name} is not installed")
        return found

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl and return its standard output.

        Raises:
            StepError: kubectl failed and `check` is set.
        """
        done = subprocess.run(
            [self.program("kubectl"), *arguments],
            env=self.full_environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise StepError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    @cached_property
    def rest(self) -> Rest | None:
        """Plain requests with an administrator's certificate; None where the kubeconfig holds none."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        return Rest(config) if "client-certificate-data" in config["users"][0]["user"] else None

    def get(self, kind: str, name: str, *, namespace: str = "default") -> dict[str, Any] | None:
        """One object, or None if it is absent."""
        path = Rest.path(kind, namespace=namespace)
        if self.rest is not None and path is not None:
            body = self.rest.get(f"{path}/{name}")
            return None if body is None else _without_managed_fields(body)
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def find(self, kind: str, *, namespace: str = "default", labels: str = "") -> list[dict[str, Any]]:
        """Objects of a kind in a namespace, narrowed by a label selector."""
        path = Rest.path(kind, namespace=namespace)
        if self.rest is not None and path is not None:
            return [_without_managed_fields(body) for body in self.rest.list(path, labelSelector=labels)]
        selector = ["-l", labels] if labels else []
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kind, "-n", namespace, "-o", "json", *selector)
        )["items"]
        return found

    def apply(self, *manifests: Manifest, namespace: str = "default") -> None:
        """Create or update objects, server side, as field manager `test`."""
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        flags = ["--server-side", "--force-conflicts", "--field-manager=test"]
        self.kubectl("apply", *flags, "-n", namespace, "-f", "-", stdin=bundle)

    def patch(
        self, kind: str, name: str, patch: Manifest, *, namespace: str = "default", subresource: str = ""
    ) -> None:
        """Merge a patch into an object."""
        flags = [f"--subresource={subresource}"] if subresource else []
        self.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(patch), *flags)

    def delete(self, kind: str, name: str, *, namespace: str = "default", wait: bool = True) -> None:
        """Delete an object; absent is fine."""
        flags = ["--ignore-not-found", f"--wait={str(wait).lower()}"]
        self.kubectl("delete", kind, name, "-n", namespace, *flags)

    def remove(self, *manifests: Manifest) -> None:
        """Delete these objects; absent is fine."""
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=bundle)

    def load(self, image: Image) -> str:
        """Put an image on the real node unless it is there; returns its reference."""
        reference = image.reference
        if reference not in self._containerctl("images", "ls", "-q").split():
            with step(f"load {reference}"):
                self._import(image)
        return reference

    def _import(self, image: Image) -> None:
        digests = self._containerctl("content", "ls", "-q").split()
        present = frozenset(digest.removeprefix("sha256:") for digest in digests)
        argv = [*self._containerctl_argv(), "images", "import", "--local", "-"]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as ctr:
            assert ctr.stdin
            assert ctr.stdout
            try:
                image.write(ctr.stdin, present=present)
                ctr.stdin.close()
            except BrokenPipeError:
                pass  # its output says why
            output = ctr.stdout.read().decode(errors="replace")
        if ctr.returncode:
            raise StepError(f"importing {image.reference} failed: {output.strip()}")

    def _containerctl_argv(self) -> list[str]:
        pid = (self.state / "run/node.pid").read_text().split()[0]
        return ["nsenter", "-t", pid, "-m", str(BIN / "ctr"), "-n", "k8s.io"]

    def _containerctl(self, *arguments: str) -> str:
        argv = [*self._containerctl_argv(), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def account_kubeconfig(self, account: str, *, namespace: str) -> Path:
        """A kubeconfig that acts as a ServiceAccount, with its rights and no others."""
        token = self.kubectl("create", "token", account, "-n", namespace, "--duration=24h").strip()
        config = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))
        config["users"] = [{"name": "u", "user": {"token": token}}]
        path = self.state / f"{namespace}-{account}.kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    @contextmanager
    def namespace(self, name: str, *, pod_security: str = "restricted") -> Iterator[str]:
        """A namespace that enforces a Pod Security level, removed at the end with all it holds."""
        labels = {"pod-security.kubernetes.io/enforce": pod_security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
            # nobody waits for the last requests of a test that is over
            self.kubectl("delete", "pods", "--all", "-n", name, "--grace-period=0", "--force", check=False)
            self.kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=180s")
            self.kubectl("delete", "pv", "-l", f"harness.tonnage.dev/namespace={name}", "--ignore-not-found")


def _without_managed_fields(body: dict[str, Any]) -> dict[str, Any]:
    body["metadata"].pop("managedFields", None)
    return body
