"""Who is still connected to the engine's port? Read from the kernel's own table, /proc/net/tcp.

It counts what no engine metric can: idle keep-alive connections, which are the ones that lose a request when
the engine stops. The kernel lists a connection from the handshake on, so one that the engine has not
accepted yet counts.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

WORKER_ADDRESS = (
    "127.0.0.2"  # the worker's own requests to the engine come from here, to be told from clients
)
_ESTABLISHED = "01"
_LISTEN = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """`open`: established client connections. `seen`: remote ends in any state, also those just closed."""

    open: int
    seen: frozenset[str]


def parse_table(lines: Iterable[str], *, port: int) -> Connections:
    """Read /proc/net/tcp and tcp6 for one local port, leaving out the worker's own connections."""
    opened, seen = 0, set()
    for line in lines:
        fields = line.split()
        if len(fields) < 4 or ":" not in fields[1]:
            continue
        local, remote, state = fields[1], fields[2], fields[3]
        if int(local.rpartition(":")[2], 16) != port or state == _LISTEN or _is_worker(remote):
            continue
        seen.add(remote)
        opened += state == _ESTABLISHED
    return Connections(open=opened, seen=frozenset(seen))


def _is_worker(remote: str) -> bool:
    return _address(remote.rpartition(":")[0]) == WORKER_ADDRESS


def _address(hexadecimal: str) -> str:
    """The kernel prints 32-bit words in the machine's byte order; vLLM's platforms are little endian."""
    raw = bytes.fromhex(hexadecimal)
    ordered = b"".join(raw[index : index + 4][::-1] for index in range(0, len(raw), 4))
    address = ipaddress.ip_address(ordered)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def read_connections(
    port: int, *, tables: Sequence[str] = ("/proc/net/tcp", "/proc/net/tcp6")
) -> Connections | None:
    """The connections now; None where the kernel offers no table."""
    lines: list[str] = []
    for table in tables:
        try:
            lines += Path(table).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
    return parse_table(lines, port=port) if lines else None
