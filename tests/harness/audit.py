"""Reads the API server's audit log: every write, and every read of the operator, with who did it."""

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READS = {"get", "list", "watch"}


@dataclass(frozen=True)
class Request:
    """One request that the API server answered at `time` (RFC 3339 with microseconds); `path` has no query.
    One for a URL that is no resource has neither group nor resource. `forbidden`: a right was missing
    (admission refuses with 403, too)."""

    time: str
    user: str
    verb: str
    path: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    user_agent: str
    forbidden: bool

    @property
    def answered_at(self) -> float:
        """Unix time of the answer in seconds, to the microsecond."""
        return datetime.datetime.fromisoformat(self.time).timestamp()

    @property
    def what(self) -> str:
        """Verb, resource and subresource in one word, such as `patch llmdeployments/status`."""
        return f"{self.verb} {self.resource}" + (f"/{self.subresource}" if self.subresource else "")


@dataclass(frozen=True)
class Write(Request):
    """A request that asked for a change."""


@dataclass(frozen=True)
class AuditLog:
    """The log file of a cluster."""

    path: Path

    def position(self) -> int:
        """Where the log ends now, to be given as `after` later."""
        return self.path.stat().st_size

    def writes(
        self, *, after: int = 0, user: str = "", namespace: str = "", resource: str = ""
    ) -> list[Write]:
        """Writes since a position, narrowed by the end of the user's name, namespace and resource."""
        return [
            request
            for request in self.requests(after=after, user=user)
            if isinstance(request, Write)
            and namespace in {"", request.namespace}
            and resource in {"", request.resource}
        ]

    def requests(self, *, after: int = 0, user: str = "") -> list[Request]:
        """Requests since a position, reads only of ServiceAccounts of `tonnage-system`, each watch twice:
        when it was answered, and when it ended."""
        return [request for request in self._read(after) if request.user.endswith(user)]

    def _read(self, after: int) -> Iterator[Request]:
        with self.path.open("rb") as log:
            log.seek(after)
            for line in log:
                if line.endswith(b"\n"):  # the last line may be half written
                    yield _request(json.loads(line))


def _request(event: dict[str, Any]) -> Request:
    target = event.get("objectRef", {})
    kind = Request if event["verb"] in READS else Write
    return kind(
        time=event["stageTimestamp"],
        user=event["user"].get("username", ""),
        verb=event["verb"],
        path=event["requestURI"].partition("?")[0],
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        user_agent=event.get("userAgent", ""),
        forbidden=event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid",
    )
