"""vLLM's OpenAI server on CPU with one import instead of three; same arguments, same behaviour.

vLLM forces the start method `spawn` on CPU (vllm/platforms/cpu.py, 0.32.0), so that its engine core and its
worker import everything again: 30 CPU seconds for a start instead of 13. This puts `fork` back.
`TEST_ENGINE_ARGS` holds further arguments, with which a test makes the engine differ from its plan.
"""

import os
import runpy
import shlex
import sys
from typing import Any

from vllm.platforms.cpu import CpuPlatform

_configure = CpuPlatform.check_and_update_config.__func__


def _configure_then_fork(cls: type, config: Any) -> None:
    _configure(cls, config)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


CpuPlatform.check_and_update_config = classmethod(_configure_then_fork)

if __name__ == "__main__":
    sys.argv = ["api_server", *sys.argv[1:], *shlex.split(os.environ.get("TEST_ENGINE_ARGS", ""))]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
