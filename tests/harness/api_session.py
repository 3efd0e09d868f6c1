"""Plain requests to the API server through one connection: hundreds of them take seconds."""

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.cluster import Cluster

Answer = tuple[int, dict[str, Any]]
_OBJECTS = "/apis/tonnage.dev/v1alpha1/namespaces/{}/llmdeployments"


class ApiSession:
    """A connection to an API server with an administrator's rights."""

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        self._connection = connection

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json"
    ) -> Answer:
        """Status code and decoded answer of one request."""
        # as UTF-8: where YAML is read, the escapes of a character beyond \uffff are refused
        text = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        self._connection.request(method, path, text, {"Content-Type": content_type})
        answer = self._connection.getresponse()
        data = answer.read()
        # a path that is not served (yet) is answered in plain text
        plain = not (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, {"message": data.decode()} if plain else json.loads(data)

    def try_create(self, body: Mapping[str, Any], *, namespace: str = "default") -> Answer:
        """What the API server would answer to a strict `kubectl create`: nothing is stored."""
        path = _OBJECTS.format(namespace)
        return self.send("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)


@contextmanager
def api_session(cluster: Cluster) -> Iterator[ApiSession]:
    """A session with the cluster's API server."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_decoded(server["certificate-authority-data"]))
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory) / "client.pem"
        pair.touch(mode=0o600)
        pair.write_text(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
        context.load_cert_chain(pair)
    address = urlsplit(server["server"])
    connection = http.client.HTTPSConnection(
        address.hostname or "", address.port, context=context, timeout=60
    )
    try:
        yield ApiSession(connection)
    finally:
        connection.close()


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()
