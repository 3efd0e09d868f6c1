"""An engine to break: speaks the few endpoints that the worker uses and misbehaves on command.

Faults come as JSON in FAKE_ENGINE: `print` (lines to write first), `exit` (code to end with right away),
`signal` (signal to end by right away), `blocks`, `labels` (of the capacity series; null: no such series),
`sick_after` (number of /health answers after which it answers 503), `ignore_sigterm`, `orphan` (leave a
grandchild behind), `memory` (what a rank tells of its device).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = json.loads(os.environ.get("FAKE_ENGINE", "{}"))
LABELS = (
    'block_size="32",cache_dtype="auto",engine="0",kv_cache_max_concurrency="2.84375",'
    'kv_cache_size_tokens="5824",num_gpu_blocks="%s"'
)


if "memory" in FAULTS:
    with open(f"{os.environ['TONNAGE_MEMORY_DIRECTORY']}/1.json", "w") as told:
        json.dump(FAULTS["memory"], told)


def page() -> str:
    labels = FAULTS.get("labels", LABELS % FAULTS.get("blocks", 182))
    lines = [
        "# TYPE vllm:num_requests_running gauge",
        'vllm:num_requests_running{engine="0"} 0.0',
        "# TYPE vllm:kv_cache_usage_perc gauge",
        'vllm:kv_cache_usage_perc{engine="0"} 0.25',
    ]
    if labels is not None:
        lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{labels}}} 1.0"]
    return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    health_answers = 0

    def do_GET(self) -> None:
        if self.path == "/health":
            Handler.health_answers += 1
            sick = Handler.health_answers > FAULTS.get("sick_after", 10**9)
            self._answer(503 if sick else 200, "")
        elif self.path == "/metrics":
            self._answer(200, page())
        elif self.path == "/version":
            self._answer(200, '{"version": "0.32.0"}', kind="application/json")
        elif self.path.startswith("/stream/"):
            self._stream(float(self.path.rpartition("/")[2]))
        elif self.path == "/environment":
            self._answer(200, json.dumps({"arguments": sys.argv[1:], **os.environ}))

    def _answer(self, status: int, body: str, *, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def _stream(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for part in range(10):
            self.wfile.write(f"part {part}\n".encode())
            self.wfile.flush()
            time.sleep(seconds / 10)

    def log_message(self, *_: object) -> None:
        print(f'{self.client_address[0]}:{self.client_address[1]} - "{self.requestline}"', flush=True)


def main() -> int:
    for line in FAULTS.get("print", []):
        print(line, file=sys.stderr, flush=True)
    if FAULTS.get("orphan"):
        # The middle process ends at once; its sleeping child belongs to whoever adopts orphans.
        subprocess.run(
            [sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '0.3'])"], check=True
        )
    if "signal" in FAULTS:
        os.kill(os.getpid(), FAULTS["signal"])
    if "exit" in FAULTS:
        return int(FAULTS["exit"])
    port = int(sys.argv[sys.argv.index("--port") + 1])
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if FAULTS.get("ignore_sigterm") else lambda *_: os._exit(0))
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
