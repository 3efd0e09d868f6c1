"""Reads the API server's audit log: every write, with who did it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Write:
    """One write that the API server answered."""

    time: str
    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    user_agent: str


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
            write
            for write in self._read(after)
            if write.user.endswith(user)
            and namespace in {"", write.namespace}
            and resource in {"", write.resource}
        ]

    def _read(self, after: int) -> Iterator[Write]:
        with self.path.open("rb") as log:
            log.seek(after)
            for line in log:
                if line.endswith(b"\n"):  # the last line may be half written
                    yield _write(json.loads(line))


def _write(event: dict[str, Any]) -> Write:
    target = event.get("objectRef", {})
    return Write(
        time=event["stageTimestamp"],
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        user_agent=event.get("userAgent", ""),
    )
