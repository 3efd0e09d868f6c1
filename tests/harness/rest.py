"""Requests to the API server through kept connections: who waits polls, and a kubectl costs 0.1 s of CPU."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from harness.steps import StepError

_CORE, _APPS, _TONNAGE = "/api/v1", "/apis/apps/v1", "/apis/tonnage.dev/v1alpha1"
_ROOTS = {
    "configmaps": _CORE,
    "events": _CORE,
    "pods": _CORE,
    "secrets": _CORE,
    "services": _CORE,
    "deployments": _APPS,
    "replicasets": _APPS,
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "llmdeployments": _TONNAGE,
}
_PLURALS = {plural.removesuffix("s"): plural for plural in _ROOTS} | {"llmdep": "llmdeployments"}


class Rest:
    """A cluster's API server, asked with the client certificate of a kubeconfig."""

    def __init__(self, kubeconfig: dict[str, Any]) -> None:
        server, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
        self._address = urlsplit(server["server"])
        self._context = ssl.create_default_context(cadata=_decoded(server["certificate-authority-data"]))
        with tempfile.TemporaryDirectory() as directory:
            pair = Path(directory) / "client.pem"
            pair.touch(mode=0o600)
            pair.write_text(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            self._context.load_cert_chain(pair)
        self._mine = threading.local()

    @staticmethod
    def path(kind: str, *, namespace: str) -> str | None:
        """Where namespaced objects of a kind are served; None where kubectl has to find out."""
        plural = _PLURALS.get(kind, kind)
        return f"{_ROOTS[plural]}/namespaces/{namespace}/{plural}" if plural in _ROOTS else None

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """What is at a path; None if it is not there.

        Raises:
            StepError: the server cannot be reached or answers with another error.
        """
        status, body = self.send("GET", f"{path}?{urlencode(query)}" if query else path)
        if status == http.HTTPStatus.NOT_FOUND:
            return None
        if status != http.HTTPStatus.OK:
            raise StepError(f"GET {path} failed: {status} {body.get('message', '')}")
        return body

    def list(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Objects of one kind, each with its kind as kubectl shows it.

        Raises:
            StepError: as `get`.
        """
        body = self.get(path, **query) or {"items": []}
        named = {"apiVersion": body.get("apiVersion"), "kind": body.get("kind", "").removesuffix("List")}
        return [{**named, **item} for item in body["items"]]

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        """Status code and decoded answer of one request; a connection that the server closed is made anew."""
        # as UTF-8: where YAML is read, the escapes of a character beyond \uffff are refused
        text = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        try:
            try:
                return self._send(method, path, text, content_type)
            except http.client.RemoteDisconnected:
                return self._send(method, path, text, content_type)
        except (OSError, http.client.HTTPException) as error:
            raise StepError(f"{method} {path} failed: {type(error).__name__}: {error}") from error

    def _send(
        self, method: str, path: str, text: bytes | None, content_type: str
    ) -> tuple[int, dict[str, Any]]:
        connection = self._connection()
        try:
            connection.request(method, path, text, {"Content-Type": content_type})
            answer = connection.getresponse()
            data = answer.read()
            # a path that is not served (yet) is answered in plain text
            plain = not (answer.getheader("Content-Type") or "").startswith("application/json")
            return answer.status, {"message": data.decode()} if plain else json.loads(data)
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise

    def _connection(self) -> http.client.HTTPSConnection:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = http.client.HTTPSConnection(
                self._address.hostname or "", self._address.port, context=self._context, timeout=60
            )
        connection: http.client.HTTPSConnection = self._mine.connection
        return connection


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()
