"""Reading the kernel's table of connections."""

from __future__ import annotations

import socket
from pathlib import Path

from tonnage_worker.connections import WORKER_ADDRESS, parse_table, read_connections

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
LISTEN = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 1 1"
CLIENT = "   1: 0A00000A:1F40 0B00000A:A1B2 01 00000000:00000000 00:00000000 00000000 65532        0 2 1"
CLOSED = "   2: 0A00000A:1F40 0B00000A:A1B3 06 00000000:00000000 03:00000000 00000000     0        0 0 3"
WORKER = "   3: 0100007F:1F40 0200007F:A1B4 01 00000000:00000000 00:00000000 00000000 65532        0 3 1"
OTHER_PORT = "   4: 0A00000A:1F91 0B00000A:A1B5 01 00000000:00000000 00:00000000 00000000 65532        0 4 1"
OUTGOING = "   5: 0A00000A:A1B6 0B00000A:1F40 01 00000000:00000000 00:00000000 00000000 65532        0 5 1"
WORKER_V6 = (
    "   0: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000200007F:A1B7 01"
    " 00000000:00000000 00:00000000 00000000 65532        0 6 1"
)
CLIENT_V6 = (
    "   1: 0000000000000000FFFF00000A00000A:1F40 0000000000000000FFFF00000B00000A:A1B8 01"
    " 00000000:00000000 00:00000000 00000000 65532        0 7 1"
)


def test_counts_clients_and_nothing_else() -> None:
    lines = [HEADER, LISTEN, CLIENT, CLOSED, WORKER, OTHER_PORT, OUTGOING, HEADER, WORKER_V6, CLIENT_V6]
    connections = parse_table(lines, port=8000)
    assert connections.open == 2
    assert connections.seen == {
        "0B00000A:A1B2",
        "0B00000A:A1B3",
        "0000000000000000FFFF00000B00000A:A1B8",
    }


def test_real_connections(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        idle = read_connections(port)
        assert idle is not None
        assert idle.open == 0
        with socket.create_connection(("127.0.0.1", port)):  # not accepted yet: counts all the same
            opened = read_connections(port)
        with socket.create_connection(("127.0.0.1", port), source_address=(WORKER_ADDRESS, 0)):
            own = read_connections(port)
    assert opened is not None
    assert opened.open == 1
    assert len(opened.seen) == 1
    assert own is not None
    assert not any(remote.startswith("0200007F") for remote in own.seen)


def test_no_table(tmp_path: Path) -> None:
    assert read_connections(8000, tables=[str(tmp_path / "none")]) is None
